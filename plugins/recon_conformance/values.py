"""Depth and colour against closed forms, and where the picture lies."""

from __future__ import annotations

import torch
from torch import Tensor

from recon_conformance.report import CheckResult
from recon_conformance.subject import (
    DEPTH_RANGE,
    SIZE,
    Ellipsoid,
    Plane,
    Registration,
    Sight,
    Subject,
    Surface,
    canonical_depth,
    pixel_grid,
    place_of,
    sight,
    smooth_image,
    view_of,
)

VIEWS = {
    "identity": view_of(0, 0, 0),
    "rotation": view_of(4, 25, -8),
    "translation": view_of(0, 0, 0, move=(0.011, -0.017, 0.02)),
    "both": view_of(-12, 30, 15, move=(-0.01, 0.008, -0.015)),
}
PLANES = {"frontal plane": Plane(), "slanted plane": Plane(0.3, -0.2, 1.0)}

#: Canonical pixels that a pixel's sight must keep from the canonical picture's border to be judged.
BORDER = 3.0

#: A ten-thousandth of the depth range. Rounding (1e-6) and interpolating depth rather than inverse depth over one
#: pixel (5e-7) stay ten times below it.
PLANE_LIMIT = 2e-5
#: Twice the chord error of a mesh with one vertex a pixel: a quad's diagonal of √2 · 2.8e-3 / cos 38° on a surface of
#: radius 0.2 has its chord (5.0e-3)² / (8 · 0.2) = 1.6e-5 behind it, seen under up to 60°: 3.1e-5.
CURVED_LIMIT = 6e-5
#: One hundredth of the depth range; a trained model errs by about as much.
COARSE_LIMIT = 0.01 * (DEPTH_RANGE[1] - DEPTH_RANGE[0])
#: Pixels of the canonical image: an eighth of an 8-bit step from one pixel to the next of a contrasty photograph.
COLOUR_LIMIT, COARSE_COLOUR = 0.03, 0.5


def planes(subject: Subject, registration: Registration) -> CheckResult:
    """Depth of planes against ray–plane intersection."""
    return _depths(
        subject,
        registration,
        {f"{plane}, {view}": (PLANES[plane], VIEWS[view]) for plane in PLANES for view in VIEWS},
        CheckResult(
            name="planes",
            title="depth of planes, against ray–plane intersection",
            limit=f"largest error ≤ {PLANE_LIMIT:g}",
            reason="a ten-thousandth of the depth range, ten times float32 rounding and interpolation over one pixel",
        ),
        PLANE_LIMIT,
    )


def curved(subject: Subject, registration: Registration) -> CheckResult:
    """Depth of an ellipsoid against ray–ellipsoid intersection."""
    return _depths(
        subject,
        registration,
        {view: (Ellipsoid(), VIEWS[view]) for view in VIEWS},
        CheckResult(
            name="ellipsoid",
            title="depth of an ellipsoid, against ray–ellipsoid intersection",
            limit=f"largest error ≤ {CURVED_LIMIT:g}",
            reason="twice the chord error of a mesh with one vertex per pixel on this surface",
        ),
        CURVED_LIMIT,
    )


def _depths(
    subject: Subject,
    registration: Registration,
    scenes: dict[str, tuple[Surface, Tensor]],
    result: CheckResult,
    limit: float,
) -> CheckResult:
    worst, unseen = 0.0, []
    for name, (surface, view) in scenes.items():
        with torch.no_grad():
            depth = canonical_depth(surface)[None].to(subject.best)
            found = subject(depth, smooth_image(1, SIZE, subject.best), view[None].to(subject.best))
        truth = sight(surface, registration.turned(view), registration.where(pixel_grid(SIZE)))
        judged = (truth.inside > BORDER) & found.mask[0].cpu().flatten()
        if float(judged.double().mean()) < Registration.LEAST:
            unseen.append(name)
            continue
        error = float((found.depth[0].double().cpu().flatten() - truth.depth)[judged].abs().nan_to_num(nan=9.0).max())
        result.measured[name] = error
        worst = max(worst, error)
    if unseen:
        result.measured["hardly covered, not judged"] = ", ".join(unseen)
    if len(unseen) == len(scenes):
        result.verdict, result.cause = "fail", "nothing is covered: the object is not drawn where it is"
        result.remedy = "see the checks 'edges' and 'pixel-offset'"
    elif worst > COARSE_LIMIT:
        result.verdict, result.cause = (
            "fail",
            "depth is wrong: it is not the surface that the canonical depth describes",
        )
        result.remedy = "depth is z of the moved surface, P' = R (P - c) + c + t with c = (0, 0, 1); see conventions"
    elif worst > limit:
        result.verdict, result.cause = "warn", "depth is approximate: right to a hundredth of its range, not exactly"
        result.remedy = "smoothing, a coarse march or a learned renderer does this; use it knowingly"
    if result.measured and not registration.right and registration.found:
        result.measured["compared"] = "where the picture lies, see pixel-offset"
    return result


def colours(subject: Subject, registration: Registration) -> CheckResult:
    """An image linear in canonical pixel coordinates says for each pixel which canonical point it shows."""
    result = CheckResult(
        name="colours",
        title="colour warp: an image linear in canonical pixels comes out linear",
        limit=f"place of the colour within {COLOUR_LIMIT} canonical pixels",
        reason="an eighth of an 8-bit step between neighbouring pixels of strong contrast",
    )
    axis = torch.linspace(0, 1, SIZE, dtype=subject.best)
    ramps = torch.stack((axis.expand(SIZE, SIZE), axis[:, None].expand(SIZE, SIZE), torch.full((SIZE, SIZE), 0.5)))
    worst, surface, fits = 0.0, Ellipsoid(), []
    for name, view in VIEWS.items():
        with torch.no_grad():
            depth = canonical_depth(surface)[None].to(subject.best)
            found = subject(depth, ramps[None].to(subject.best), view[None].to(subject.best))
        seen = found.image[0, :2].double().cpu().flatten(1) * (SIZE - 1)
        # Depth may be displaced and colours not, as when they are warped by the pixel's own ray: either is their place.
        # A picture that is shifted but warped by its own depth is shifted a little where the surface is steep.
        tries = []
        drawn = place_of(registration.turned(view), pixel_grid(SIZE), found.depth[0].double().cpu().flatten())
        for where in (pixel_grid(SIZE), registration.where(pixel_grid(SIZE))):
            truth = sight(surface, registration.turned(view), where)
            judged = (truth.inside > BORDER) & found.mask[0].cpu().flatten()
            if float(judged.double().mean()) >= Registration.LEAST:
                for place in (truth.place, *([] if registration.right else [drawn])):
                    miss = (seen - place)[:, judged]
                    tries.append((float(miss.abs().nan_to_num(nan=SIZE).max()), _fit(miss, truth, judged)))
        if not tries:
            continue
        error, fit = min(tries, key=lambda each: each[0])
        result.measured[f"{name}, pixels off"] = error
        worst = max(worst, error)
        fits.append(fit)
    if not result.measured:
        result.verdict, result.cause = "skipped", "nothing is covered"
        return result
    if worst > COARSE_COLOUR or (worst > COLOUR_LIMIT and _misplaced(fits)):
        shift, scale = _mean(fits)
        result.measured |= {"shift du": shift[0], "shift dv": shift[1], "border off by": scale}
        result.verdict, result.cause, result.remedy = "fail", *_colour_cause(shift, scale)
        result.ruins_training = worst > 2
    elif worst > COLOUR_LIMIT:
        result.verdict, result.cause = "warn", "colours are approximate: within half a pixel of their place"
        result.remedy = "a texture per face or a learned renderer does this; fine detail is lost"
    return result


def _fit(miss: Tensor, truth: Sight, judged: Tensor) -> tuple[Tensor, Tensor]:
    """Shift and relative scale along u and v of misplaced colours."""
    centred = truth.place[:, judged] - (SIZE - 1) / 2
    lines = [torch.stack((torch.ones_like(c), c), dim=1) for c in centred]
    answers = torch.stack([torch.linalg.lstsq(a, m[:, None]).solution[:, 0] for a, m in zip(lines, miss, strict=True)])
    return answers[:, 0], answers[:, 1]


def _mean(fits: list[tuple[Tensor, Tensor]]) -> tuple[tuple[float, float], float]:
    shift = torch.stack([s for s, _ in fits]).mean(0).tolist()
    return (shift[0], shift[1]), float(torch.stack([s for _, s in fits]).mean()) * (SIZE - 1) / 2


def _misplaced(fits: list[tuple[Tensor, Tensor]]) -> bool:
    """Whether the whole picture lies elsewhere, by more than a blur can move it."""
    shift, scale = _mean(fits)
    return max(*map(abs, shift), abs(scale)) > 0.2


def _colour_cause(shift: tuple[float, float], border: float) -> tuple[str, str]:
    if 0.2 < abs(border) < 1.2 and max(map(abs, shift)) < 0.2:
        cause = "colours are sampled with align_corners=False: the picture is scaled by (W-1)/W about its centre"
        return cause, "call grid_sample with align_corners=True: -1 and 1 are the centres of the outermost pixels"
    if all(abs(abs(s) - 0.5) < 0.15 for s in shift):
        cause = "colours lie half a pixel off: their pixel centres are taken at i + 0.5"
        return cause, "integer coordinates are pixel centres; sample at u, not at u + 0.5"
    return "colours are not those of the points seen: the warp does not fit the depth", "see warp_to_view"


def offset(registration: Registration) -> CheckResult:
    """Mirrors, turns, shift and scale of the whole picture, as verdicts."""
    limit = Registration.NEGLIGIBLE
    result = CheckResult(
        name="pixel-offset",
        title="where the picture lies: axes, turns, shift and scale",
        limit=f"shift, and shift of the border by scale, ≤ {limit} pixels",
        reason="the estimate is within 0.005 pixels on exact renderers; the classical faults are 0.5 pixels",
    )
    if not registration.found:
        result.verdict, result.cause = "fail", "nothing is covered where the object must be seen"
        result.remedy = "the picture may lie elsewhere altogether, or be empty; see 'edges' and 'background'"
        return result
    result.measured = {
        "du": registration.shift[0],
        "dv": registration.shift[1],
        "scale u": registration.scale[0],
        "scale v": registration.scale[1],
        "depth bias": registration.bias,
    }
    if registration.mirror or registration.turn:
        result.measured |= {"mirrored": registration.mirror or "no", "turns": registration.turn or "right"}
        result.verdict, result.cause, result.remedy = "fail", *_axes(registration)
        return result
    if registration.right:
        return result
    result.verdict, result.cause, result.remedy = "fail", *_shifted(registration)
    # The published renderer is shifted so, and trains; further off, the mirrored reconstruction no longer fits.
    result.ruins_training = max(map(abs, registration.shift)) > 1.5 or registration.off_scale > 1.5
    return result


def _axes(registration: Registration) -> tuple[str, str]:
    signs = {"left-right": "its x axis points left (+x left, as in PyTorch3D)",
             "upside-down": "its y axis points up (+y up, as in OpenGL)"}  # fmt: skip
    if registration.mirror:
        cause = signs.get(registration.mirror, "its axes are +x left and +y up, as in PyTorch3D")
        cause = f"the picture is mirrored {registration.mirror}: {cause}"
        return (
            cause,
            "x points right and y down; negate the axis in both the vertices and the view, or flip the picture",
        )
    return f"the view turns {registration.turn}", "R = Rz·Ry·Rx moves canonical points to the view, not back"


def _shifted(registration: Registration) -> tuple[str, str]:
    du, dv = registration.shift
    half = [abs(abs(s) - 0.5) < 0.1 for s in (du, dv)]
    if any(half) and all(h or abs(s) < 0.1 for h, s in zip(half, (du, dv), strict=True)):
        cause = f"half a pixel off (du {du:+.2f}, dv {dv:+.2f}): samples lie at i + 0.5 where i is a pixel's centre"
        return (
            cause,
            "put integer pixel coordinates on pixel centres: sample at i, or at i + (k + 1/2)/n - 1/2 for n samples",
        )
    if 0.3 < registration.off_scale < 1.2 and max(abs(du), abs(dv)) < 0.2:
        cause = "scaled about the centre by one pixel: the field of view spans pixel edges, as with align_corners=False"
        return cause, "the field of view spans the centres of the outermost pixels: f = (W-1)/2 / tan(fov/2)"
    cause = (
        f"the picture is displaced by ({du:+.2f}, {dv:+.2f}) pixels, its border by {registration.off_scale:.2f} more"
    )
    return cause, "check the principal point (W-1)/2 and the focal length (W-1)/2 / tan(fov/2)"
