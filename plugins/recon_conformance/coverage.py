"""Holes on shared edges, and surfaces too near, too far, behind the camera, edge-on or broken."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from recon_conformance.report import CheckResult
from recon_conformance.subject import (
    CAMERA,
    DEPTH_RANGE,
    SIZE,
    Ellipsoid,
    Gradients,
    Plane,
    ProtocolFault,
    Registration,
    Subject,
    Surface,
    canonical_depth,
    pixel_grid,
    sight,
    smooth_image,
    view_of,
)
from recon_toolkit.components import describe

#: A hole in a thousand pixels is a hole: four in the picture.
HOLES = 1e-3


def edges(subject: Subject) -> CheckResult:
    """Vertices on pixels: every sample lies on a vertex, on an edge or on a quad's diagonal."""
    result = CheckResult(
        name="edges",
        title="samples exactly on shared edges: vertices aligned with pixels",
        limit="no hole within the object, a pixel from its border",
        reason="a hole becomes background in the depth and is lost to the loss; one strict test holes 80 % at identity",
    )
    pixel = 1 / CAMERA.focal_length(SIZE)
    scenes: dict[str, tuple[Surface, Tensor, int]] = {
        "identity": (Ellipsoid(), view_of(0, 0, 0), SIZE),
        "identity, flat": (Plane(), view_of(0, 0, 0), SIZE),
        "identity, 33 pixels": (Plane(), view_of(0, 0, 0), 33),
        "moved by 2 pixels": (Plane(), view_of(0, 0, 0, move=(2 * pixel, pixel, 0)), SIZE),
        "quarter turn": (Plane(), view_of(0, 0, 90), SIZE),
    }
    worst = 0.0
    for name, (surface, view, size) in scenes.items():
        with torch.no_grad():
            found = subject(
                canonical_depth(surface, size)[None].float(), smooth_image(1, size), view[None].float()
            ).mask[0]
        rows = (pixel_grid(size).reshape(2, size, size) - (size - 1) / 2).abs().amax(0)
        # The picture's border of three pixels also holds the object's, shifted by two.
        inner = rows < (size - 1) / 2 - 3
        holes = 1 - float(found.cpu()[inner].double().mean())
        result.measured[f"holes, {name}"] = holes
        worst = max(worst, holes)
    if worst > 0.2:
        result.verdict = "fail"
        result.cause = "samples exactly on shared edges are holes: the inside test is strict"
        result.remedy = "count a sample on an edge as inside (w >= 0); the first face wins a tie"
    elif worst > HOLES:
        result.verdict = "fail"
        result.cause = "pinholes on shared edges: rounding puts a sample outside both of an edge's faces"
        result.remedy = "evaluate an edge's function with its end points in a fixed order, so that both faces agree"
        result.ruins_training = worst > 0.02
    elif worst > 0:
        result.verdict = "warn"
        result.cause = "single holes on shared edges: rounding puts a sample outside both of an edge's faces"
        result.remedy = "evaluate an edge's function with its end points in a fixed order"
    return result


def background(subject: Subject, registration: Registration) -> CheckResult:
    """A plane turned by 55° and moved aside leaves a third of the picture empty."""
    result = CheckResult(
        name="background",
        title="mask and depth where nothing is",
        limit="mask false two pixels beyond the object, true two within it; no valid depth beyond; all finite",
        reason="the loss averages over the mask: background taken for surface is trained as shape",
    )
    surface, view = Plane(), view_of(0, 55, 0, move=(0.02, 0.01, 0.0))
    with torch.no_grad():
        found = subject(canonical_depth(surface)[None].float(), smooth_image(1, SIZE), view[None].float())
    mask, depth = found.mask[0].cpu().flatten(), found.depth[0].double().cpu().flatten()
    within, beyond = _regions(surface, view, registration)
    false_cover, missing = float(mask[beyond].double().mean()), 1 - float(mask[within].double().mean())
    empty = beyond & ~mask
    low, high = DEPTH_RANGE
    valid = float(((depth[empty] >= low) & (depth[empty] <= high)).double().mean()) if empty.any() else 0.0
    result.measured = {
        "empty pixels called covered": false_cover,
        "covered pixels called empty": missing,
        "background depth": _typical(depth[beyond]),
        "empty pixels with a valid depth": valid,
    }
    if not bool(found.image.isfinite().all()) or not bool(depth.isfinite().all()):
        where = "depth" if not bool(depth.isfinite().all()) else "image"
        result.verdict, result.cause = "fail", f"the background's {where} is not finite"
        result.remedy = "0 · NaN is NaN: a masked loss is spoilt too; fill the background with a number"
    elif false_cover > HOLES and registration.found:
        result.verdict, result.cause, result.remedy = "fail", *_false_cover(depth[beyond & mask])
    elif valid > HOLES:
        result.verdict, result.cause = "fail", "empty pixels have a depth within the valid range"
        result.remedy = "fill the background with a depth beyond the range (far), not with 0, -1 or a mean"
        result.ruins_training = False
    elif missing > HOLES and registration.found:
        result.verdict, result.cause = "warn", "covered pixels are called empty: the mask is smaller than the object"
        result.remedy = "see 'edges'; else check the far limit and the mask's threshold"
        if missing > 0.5:
            result.verdict, result.cause = "fail", "the object is called empty: the mask misses most of it"
    return result


def _regions(surface: Surface, view: Tensor, registration: Registration) -> tuple[Tensor, Tensor]:
    """Pixels surely within the object and surely beyond it, with two pixels for the picture's shift and the border."""
    pixels, around = pixel_grid(SIZE), [(du, dv) for du in (-2.0, 0.0, 2.0) for dv in (-2.0, 0.0, 2.0)]
    seen = torch.stack(
        [
            sight(
                surface,
                registration.turned(view),
                registration.where(pixels) + pixels.new_tensor([[du], [dv]]),
            ).inside
            > 0
            for du, dv in around
        ]
    )
    return seen.all(0), ~seen.any(0)


def _typical(values: Tensor) -> float:
    return float(values.median()) if values.numel() else math.nan


def _false_cover(depth: Tensor) -> tuple[str, str]:
    if float(depth.median()) <= DEPTH_RANGE[0]:
        cause = "background is taken for near surface: its depth (-1 in PyTorch3D) is clamped to the nearest depth"
    elif float(depth.median()) >= DEPTH_RANGE[1]:
        cause = "background is called covered: its depth is the far limit, and still counts"
    else:
        cause = "background is called covered, with a depth as the object's"
    return cause, "make the mask from the face index or the hits, never from the depth"


#: No surface of these scenes lies farther than this, after the moves that bring it nearer.
FARTHEST = 2.0
#: There is no picture of this, so an error that says so is as good as an empty one.
BEHIND = "wholly behind the camera"


def _cap() -> Tensor:
    return canonical_depth(Ellipsoid())[None].float()


def _with_patch(value: float) -> Tensor:
    depth = _cap()
    depth[:, 20:30, 20:30] = value
    return depth


def near_far(subject: Subject) -> CheckResult:
    """Finite pictures and gradients, and no covered pixel whose depth is impossible."""
    result = CheckResult(
        name="near-far",
        title="too near, too far, behind the camera, extreme depths",
        limit="finite values and gradients; covered depths above 0; nothing covered by what lies behind the camera",
        reason="views and depths are free early in training, and one value that is not finite stops it",
    )
    still = view_of(0, 0, 0)

    def moved(z: float) -> Tensor:
        return view_of(5, 10, 0, move=(0, 0, z))

    scenes = {
        "nearer than near": (_cap(), moved(-0.5)),
        "partly behind the camera": (_cap(), moved(-0.975)),
        BEHIND: (_cap(), moved(-3.0)),
        "beyond far": (_cap(), moved(1000.0)),
        "a patch of depth 0": (_with_patch(0.0), still),
        "a patch of negative depth": (_with_patch(-1.0), still),
        "a patch of depth 1e6": (_with_patch(1e6), still),
        "a patch of depth 1e-6": (_with_patch(1e-6), still),
    }
    faults: list[str] = []
    for name, (depth, view) in scenes.items():
        found = _tried(subject, depth, view, name, result, faults, may_refuse=name == BEHIND)
        if found is None:
            continue
        covered = found.rendering.depth[found.rendering.mask].detach()
        if covered.numel() and float(covered.min()) <= 0:
            faults.append(f"covered pixels have depth {float(covered.min()):.3g} ({name})")
        elif "patch" not in name and "far" not in name and covered.numel() and float(covered.max()) > FARTHEST:
            faults.append(f"covered pixels have depth {float(covered.max()):.3g} ({name})")
        if name == BEHIND and covered.numel():
            result.measured["covered from behind"] = covered.numel()
            faults.append("what lies behind the camera is drawn")
    return _concluded(
        result, faults, "do not draw faces with a corner at or behind the camera; clamp before dividing by z"
    )


def degenerate(subject: Subject) -> CheckResult:
    """Edge-on and equal depths: nothing to divide by."""
    result = CheckResult(
        name="degenerate",
        title="edge-on surfaces, constant columns, equal depths, spikes",
        limit="finite values and gradients",
        reason="a face without area has no barycentrics; one gradient that is not finite stops training",
    )
    columns, rounded, spikes, steps = _cap(), (_cap() * 100).round() / 100, _cap(), _cap()
    columns[:, :, :2] = columns[:, :, -2:] = 1.04
    spikes[:, ::7, ::5] = 0.9
    spikes[:, 3::7, 2::5] = 1.1
    steps[:, :, 30:] += 0.1
    flat = canonical_depth(Plane())[None].float()
    turned = view_of(3, 20, 2)
    scenes = {
        "plane turned by 90° about y": (flat, view_of(0, 90, 0)),
        "plane turned by 90° about x": (flat, view_of(90, 0, 0)),
        "cap turned by 90° about y": (_cap(), view_of(0, 90, 0)),
        "seen from behind": (_cap(), view_of(0, 180, 0)),
        "constant columns": (columns, turned),
        "equal depths": (rounded, turned),
        "spikes": (spikes, turned),
        "a step": (steps, view_of(0, 60, 0)),
    }
    faults: list[str] = []
    for name, (depth, view) in scenes.items():
        _tried(subject, depth, view, name, result, faults)
    return _concluded(
        result, faults, "leave out faces without area before dividing; clamp(0) has a gradient, 0/0 has not"
    )


def _tried(
    subject: Subject,
    depth: Tensor,
    view: Tensor,
    name: str,
    result: CheckResult,
    faults: list[str],
    *,
    may_refuse: bool = False,
) -> Gradients | None:
    """Render with gradients; what raises or is not finite joins the faults."""
    try:
        found = subject.gradients(depth, smooth_image(1, SIZE), view[None].float())
    except Exception as error:
        if may_refuse and isinstance(error, ValueError):
            result.measured[name] = f"refused: {describe(error)}"
            return None
        result.measured[name] = describe(error)
        faults.append(f"it raises {describe(error)} ({name})")
        return None
    parts = {
        "image": found.rendering.image,
        "depth": found.rendering.depth,
        "the gradient of depth": found.depth,
        "the gradient of the image": found.image,
        "the gradient of view": found.view,
    }
    broken = [part for part, value in parts.items() if not bool(value.isfinite().all())]
    result.measured[name] = "finite" if not broken else f"not finite: {', '.join(broken)}"
    faults += [f"{part} is not finite ({name})" for part in broken]
    return found if not broken else None


def _concluded(result: CheckResult, faults: list[str], remedy: str) -> CheckResult:
    if faults:
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        result.verdict, result.cause, result.remedy = "fail", f"{faults[0]}{more}", remedy
    return result


def one_broken(subject: Subject) -> CheckResult:
    """NaN in one image of a batch must not reach the others; a clear error is as good."""
    result = CheckResult(
        name="broken-input",
        title="NaN in one image of a batch",
        limit="the other images and their gradients as without it, or an error that names the argument",
        reason="a batch mixes images: one bad sample must be traceable, not spread",
    )
    views = torch.stack([view_of(3, 20, 2), view_of(0, -15, 5), view_of(5, 0, 0)]).float()
    depth, image = _cap().repeat(3, 1, 1), smooth_image(3, SIZE)

    def others(found: object) -> Tensor:
        return found.depth[[0, 2]].sum() + found.image[[0, 2]].sum()  # type: ignore[attr-defined,no-any-return]

    clean = subject.gradients(depth, image, views, loss=others)
    spoil: dict[str, Callable[[], tuple[Tensor, Tensor, Tensor]]] = {
        "depth": lambda: (_spoilt(depth), image, views),
        "image": lambda: (depth, _spoilt(image), views),
        "view": lambda: (depth, image, _spoilt(views)),
    }
    for name, make in spoil.items():
        try:
            found = subject.gradients(*make(), loss=others)
        except (ValueError, ProtocolFault) as error:
            result.measured[f"NaN in {name}"] = f"refused: {describe(error)}"
            continue
        except Exception as error:
            result.measured[f"NaN in {name}"] = describe(error)
            result.verdict, result.cause = "warn", f"NaN in {name} raises {describe(error)}"
            result.remedy = "raise a ValueError that names the argument, or draw the other images"
            continue
        same = all(
            torch.equal(a[[0, 2]], b[[0, 2]])
            for a, b in (
                (found.rendering.depth, clean.rendering.depth),
                (found.rendering.image, clean.rendering.image),
                (found.depth, clean.depth),
                (found.view, clean.view),
            )
        )
        result.measured[f"NaN in {name}"] = "others unchanged" if same else "others changed"
        if not same:
            result.verdict, result.cause = "fail", f"NaN in the {name} of one image spoils the others of its batch"
            result.remedy = "a mean, maximum or normalisation over the whole batch spreads it; work image by image"
            result.ruins_training = False
    return result


def _spoilt(values: Tensor) -> Tensor:
    spoilt = values.clone()
    spoilt[1].view(-1)[0 : spoilt[1].numel() : 3] = torch.nan
    return spoilt
