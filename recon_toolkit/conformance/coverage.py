"""Holes on shared edges, and what is drawn where there is nothing."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from recon_toolkit.conformance.registration import Registration
from recon_toolkit.conformance.report import CheckResult
from recon_toolkit.conformance.subject import Subject, smooth_image
from recon_toolkit.conformance.truth import (
    CAMERA,
    DEPTH_RANGE,
    SIZE,
    Ellipsoid,
    Plane,
    Surface,
    canonical_depth,
    pixel_grid,
    sight,
    view_of,
)

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
