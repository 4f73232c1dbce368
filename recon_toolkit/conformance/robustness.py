"""Surfaces too near, too far, behind the camera, edge-on or broken: nothing may come out that spoils training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from recon_toolkit.conformance.report import CheckResult
from recon_toolkit.conformance.subject import Gradients, ProtocolFault, Subject, smooth_image
from recon_toolkit.conformance.truth import SIZE, Ellipsoid, Plane, canonical_depth, view_of
from recon_toolkit.registry import describe

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
