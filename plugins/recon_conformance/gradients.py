"""Gradients against finite differences, and how evenly they fall on the vertices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from recon_conformance.report import CheckResult
from recon_conformance.subject import (
    SIZE,
    VIEW,
    Ellipsoid,
    Subject,
    canonical_depth,
    pixel_grid,
    sight,
    smooth_image,
    view_of,
)
from recon_toolkit.structures import Rendering

INPUTS = ("depth", "image", "view")
DIRECTIONS = 6
#: Step and limit by precision. In float64 the kinks where a sample changes its face decide: a millionth moves vertices
#: by 4e-4 of a pixel. In float32 the step must stand out of rounding, 6e-8, and the kinks grow with it.
STEPS = {torch.float64: 1e-6, torch.float32: 2e-4}
LIMITS = {torch.float64: 2e-3, torch.float32: 2e-2}
#: Below this cosine with the true derivative a gradient leads descent astray more than down.
USEFUL = 0.5

#: Standard deviation of the gradient per vertex, mean 1, on the cap of `truth.Ellipsoid` at 64 pixels without eight
#: border rows, for exact renderers with one sample a pixel and with 2 × 2, by rotation. The columns lie apart at the
#: last two only. Tests compute both again.
EVENNESS: dict[tuple[float, float, float], tuple[float, float]] = {
    (0, 5, 0): (0.01, 0.01),
    (3, 20, 2): (0.07, 0.04),
    (0, 40, 0): (0.35, 0.06),
    (0, 60, 0): (1.14, 0.52),
}
TELLING = ((0.0, 40.0, 0.0), (0.0, 60.0, 0.0))


@dataclass(frozen=True)
class _Scene:
    """A smooth cap under a moderate turn, and weights that see only its interior: nothing becomes visible or hidden."""

    values: dict[str, Tensor]
    weights: Tensor  # (4, H, W): depth, then the three channels

    def losses(self, found: Rendering) -> Tensor:
        """Weighted sums of depth and of colours: (2,) float64."""
        weights = self.weights.to(found.depth.device)
        # Where the weight is 0 anything may stand, a background or a NaN.
        inside = weights[0] != 0
        depth = torch.where(inside, found.depth[0].double(), 0.0)
        image = torch.where(inside, found.image[0].double(), 0.0)
        return torch.stack(((weights[0] * depth).sum(), (weights[1:] * image).sum()))


def _scene(subject: Subject) -> _Scene:
    surface, kind = Ellipsoid(), subject.best
    inside = sight(surface, VIEW, pixel_grid(SIZE)).inside.reshape(SIZE, SIZE)
    weights = torch.where(inside > 8, smooth_image(1, SIZE, torch.float64, channels=4)[0] + 0.2, 0.0)
    values = {
        "depth": canonical_depth(surface)[None],
        "image": smooth_image(1, SIZE, torch.float64),
        "view": VIEW[None],
    }
    return _Scene({name: value.to(kind) for name, value in values.items()}, weights)


def _directions(name: str, like: Tensor, rough: bool) -> Iterator[Tensor]:
    """Seeded directions of largest entry 1: smooth ones, and white noise where rounding allows it."""
    generator = torch.Generator().manual_seed(INPUTS.index(name))
    for number in range(DIRECTIONS):
        if name == "view" or (rough and number % 2):
            found = torch.randn(like.shape, generator=generator, dtype=torch.float64)
        else:
            coarse = torch.randn(1, max(like.shape[1] if like.ndim == 4 else 1, 1), 5, 5, generator=generator).double()
            found = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bicubic", align_corners=True)
            found = found.reshape(like.shape)
        yield (found / found.abs().max()).to(like.dtype)


def against_differences(subject: Subject) -> list[CheckResult]:
    """One result per input: depth, image and view."""
    scene = _scene(subject)
    depth, image, view = (scene.values[name] for name in INPUTS)
    by_loss = []
    for index in range(2):

        def one(found: Rendering, index: int = index) -> Tensor:
            return scene.losses(found)[index]

        by_loss.append(subject.gradients(depth, image, view, loss=one))
    results = []
    for name in INPUTS:
        exact, given = [], []
        for direction in _directions(name, scene.values[name], subject.double):
            exact.append(_difference(subject, scene, name, direction))
            slopes = [(getattr(g, name).cpu() * direction).double().sum() for g in by_loss]
            given.append(torch.stack(slopes))
        results.append(_compare(name, torch.stack(exact), torch.stack(given), subject.best))
    return results


def _difference(subject: Subject, scene: _Scene, name: str, direction: Tensor) -> Tensor:
    """Central difference of both losses along a direction: (2,)."""
    step = STEPS[subject.best]
    sides = []
    with torch.no_grad():
        for sign in (1, -1):
            moved = {**scene.values, name: scene.values[name] + sign * step * direction}
            sides.append(scene.losses(subject(moved["depth"], moved["image"], moved["view"])).cpu())
    return (sides[0] - sides[1]) / (2 * step)


def _compare(name: str, exact: Tensor, given: Tensor, kind: torch.dtype) -> CheckResult:
    limit = LIMITS[kind]
    result = CheckResult(
        name=f"gradient-{name}",
        title=f"gradient with respect to {'canonical ' if name != 'view' else ''}{name}, against finite differences",
        limit=f"relative error ≤ {limit:g} over {len(exact)} directions ({str(kind).removeprefix('torch.')})",
        reason="central differences away from visibility; kinks where a sample changes its face cost a thousandth",
    )
    outputs = ("image",) if name == "image" else ("depth", "image")
    for output in outputs:
        true, found = exact[:, int(output == "image")], given[:, int(output == "image")]
        _judge(result, output, true, found, limit)
    return result


def _judge(result: CheckResult, output: str, true: Tensor, found: Tensor, limit: float) -> None:
    norm = float(true.norm())
    error = float((found - true).norm()) / max(norm, 1e-12)
    cosine = float(found @ true) / max(norm * float(found.norm()), 1e-12)
    slope = float(found @ true) / max(norm**2, 1e-12)
    result.measured |= {f"{output}: relative error": error, f"{output}: cosine": cosine, f"{output}: slope": slope}
    if error <= limit and math.isfinite(error):
        return
    what = f"of the {output} with respect to {result.name.removeprefix('gradient-')}"
    if not math.isfinite(error):
        verdict, cause, remedy = "fail", f"the gradient {what} is not finite", "clamp denominators before dividing"
    elif float(found.norm()) == 0:
        verdict, cause = "fail", f"no gradient arrives: that {what} is zero"
        remedy = "something is detached, rounded or taken by index; interpolate the quantity as an attribute"
    elif cosine > 0.999 and abs(slope - 1) > 0.05:
        verdict, cause = "fail", f"the gradient {what} is {slope:.3g} times what it should be"
        remedy = "a mean forward whose backward is a sum (or the reverse), or a factor of the projection is missing"
    elif cosine >= USEFUL:
        verdict, cause = (
            "warn",
            f"approximate gradient {what}: right in direction (cosine {cosine:.2f}), not the derivative",
        )
        remedy = "use it knowingly: a surrogate such as Kato's makes steps of another length than the loss's slope says"
    else:
        verdict, cause = (
            "fail",
            f"wrong gradient {what}: it does not point the way of the derivative (cosine {cosine:.2f})",
        )
        remedy = (
            "compare with torch.autograd.gradcheck on a small mesh; look for a missing sign or a transposed rotation"
        )
    if result.verdict != "fail":
        result.verdict, result.cause, result.remedy = verdict, cause, remedy  # type: ignore[assignment]


def evenness(subject: Subject) -> CheckResult:
    """How evenly a uniform upstream gradient on the depth arrives at the canonical depth's vertices."""
    limits = {angles: math.sqrt(one * four) for angles, (one, four) in EVENNESS.items()}
    result = CheckResult(
        name="evenness",
        title="evenness of gradients over poses: std per vertex, mean 1, under a uniform upstream gradient",
        limit=" and ".join(f"{_name(a)}: ≤ {limits[a]:.2f}" for a in TELLING),
        reason="the geometric mean of what exact renderers have with one sample a pixel and with 2 × 2",
    )
    depth, image = canonical_depth(Ellipsoid())[None].float(), smooth_image(1, SIZE)
    spread: dict[tuple[float, float, float], float] = {}
    for angles, (one, four) in EVENNESS.items():
        gradient = _inner_gradient(subject, depth, image, view_of(*angles)[None].float())
        mean = float(gradient.mean())
        spread[angles] = float(gradient.std()) / mean if mean else math.nan
        result.measured[_name(angles)] = f"{spread[angles]:.2f} (one sample {one:.2f}, 2 × 2 {four:.2f})"
    if not all(math.isfinite(value) for value in spread.values()):
        result.verdict, result.cause = (
            "skipped",
            "no gradient arrives from depth to canonical depth, see gradient-depth",
        )
        return result
    uneven = [angles for angles in TELLING if spread[angles] > limits[angles]]
    if len(uneven) == len(TELLING):
        result.verdict = "fail"
        result.cause = "one sample a pixel: turned vertices get several samples or none, and so do their gradients"
        result.remedy = (
            "average 2 × 2 samples a pixel or more; trained with one, the depth fills with diagonal stripes within "
            "minutes, which normals by central differences cannot see"
        )
    elif uneven:
        result.verdict, result.cause = (
            "warn",
            f"uneven gradients at {_name(uneven[0])}, nearer to one sample than to 2 × 2",
        )
        result.remedy = "more samples a pixel, or a smoother reconstruction of the surface between vertices"
    return result


def _inner_gradient(subject: Subject, depth: Tensor, image: Tensor, view: Tensor) -> Tensor:
    total: Callable[[Rendering], Tensor] = lambda found: found.depth.sum()  # noqa: E731
    return subject.gradients(depth, image, view, loss=total).depth[0, 8:-8, 8:-8].double().cpu()


def _name(angles: tuple[float, float, float]) -> str:
    return "rotation " + ", ".join(f"{a:g}" for a in angles) + "°"
