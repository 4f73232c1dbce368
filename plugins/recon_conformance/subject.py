"""The renderer under test, the surfaces with closed forms that it is held against, and where its images lie."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from recon_toolkit.geometry import Camera, view_matrix
from recon_toolkit.structures import Rendering

#: The camera and the canonical depths that every renderer is built with: those of the reference method.
CAMERA, DEPTH_RANGE = Camera(fov=10.0), (0.9, 1.1)
SIZE = 64


class Surface(Protocol):
    """A surface in the canonical frame."""

    def hit(self, origin: Tensor, directions: Tensor) -> Tensor:
        """The first s > 0 with origin (3, 1) + s · directions (3, N) on the surface: (N,), NaN where there is none."""

    def facing(self, points: Tensor) -> Tensor:
        """Whether the canonical camera sees the surface's outside at its points (3, N): (N,) bool."""


@dataclass(frozen=True)
class Plane:
    """x·slope_x + y·slope_y + z = distance."""

    slope_x: float = 0.0
    slope_y: float = 0.0
    distance: float = 1.0

    def _normal(self, like: Tensor) -> Tensor:
        return like.new_tensor([self.slope_x, self.slope_y, 1.0])

    def hit(self, origin: Tensor, directions: Tensor) -> Tensor:
        normal = self._normal(directions)
        s = (self.distance - normal @ origin) / (normal @ directions)
        return torch.where(s > 0, s, torch.nan)

    def facing(self, points: Tensor) -> Tensor:
        return self._normal(points) @ points > 0


@dataclass(frozen=True)
class Ellipsoid:
    """Points with Σ ((P − centre) / axes)² = 1.

    The default fills the whole canonical picture with a smooth cap, 0.95 to 0.99 from the camera, and has no symmetry
    that could hide a mirrored axis.
    """

    centre: tuple[float, float, float] = (0.012, -0.02, 1.15)
    axes: tuple[float, float, float] = (0.2, 0.26, 0.2)

    def hit(self, origin: Tensor, directions: Tensor) -> Tensor:
        axes, centre = directions.new_tensor(self.axes)[:, None], directions.new_tensor(self.centre)[:, None]
        start, along = (origin - centre) / axes, directions / axes
        a, b, c = along.square().sum(0), (along * start).sum(0), start.square().sum(0) - 1
        root = (b.square() - a * c).sqrt()  # NaN where the ray misses
        s = (-b - root) / a
        return torch.where(s > 0, s, torch.nan)

    def facing(self, points: Tensor) -> Tensor:
        axes, centre = points.new_tensor(self.axes)[:, None], points.new_tensor(self.centre)[:, None]
        return ((points - centre) / axes.square() * points).sum(0) < 0


@dataclass(frozen=True)
class Sight:
    """What pixels see of a surface.

    Attributes:
        depth: (N,) z in the input view; NaN where the ray meets nothing.
        place: (2, N) canonical pixel u, v of the point seen.
        inside: (N,) how many canonical pixels within the canonical picture's border it lies; −inf where nothing, or
            a side that the canonical camera does not see, is met.
    """

    depth: Tensor
    place: Tensor
    inside: Tensor


def pixel_grid(size: int) -> Tensor:
    """u and v of every pixel in row order: (2, size²) float64."""
    axis = torch.arange(size, dtype=torch.float64)
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack((u.flatten(), v.flatten()))


def canonical_depth(surface: Surface, size: int = SIZE) -> Tensor:
    """The surface's canonical depth map (size, size) float64."""
    rays = CAMERA.rays(size, size, dtype=torch.float64).flatten(1)
    return surface.hit(rays.new_zeros(3, 1), rays).reshape(size, size)


def sight(surface: Surface, view: Tensor, pixels: Tensor, size: int = SIZE) -> Sight:
    """What the pixels (2, N) of the input view see of the surface after a view (6,); pixels need not be whole."""
    rotation, offset = view_matrix(view[None].double())
    back = rotation[0].T
    depth = surface.hit(-back @ offset[0], back @ _rays(pixels, size))
    points = _canonical(view, pixels, depth, size)
    place = _pixels(points, size)
    inside = torch.minimum(place, size - 1 - place).amin(0)
    seen = depth.isfinite() & (points[2] > 0) & surface.facing(points)
    return Sight(depth, place, torch.where(seen, inside, -math.inf))


def place_of(view: Tensor, pixels: Tensor, depth: Tensor, size: int = SIZE) -> Tensor:
    """Canonical pixels (2, N) of the points at ``depth`` (N,) along the rays of the pixels (2, N) of a view (6,)."""
    return _pixels(_canonical(view, pixels, depth, size), size)


def _rays(pixels: Tensor, size: int) -> Tensor:
    """Directions (3, N) through pixels (2, N), with third component 1."""
    return torch.cat(((pixels - (size - 1) / 2) / CAMERA.focal_length(size), torch.ones_like(pixels[:1])))


def _canonical(view: Tensor, pixels: Tensor, depth: Tensor, size: int) -> Tensor:
    """Canonical points (3, N) of what a view sees at ``depth`` (N,)."""
    rotation, offset = view_matrix(view[None].double())
    return rotation[0].T @ (depth * _rays(pixels, size) - offset[0])


def _pixels(points: Tensor, size: int) -> Tensor:
    return points[:2] / points[2:] * CAMERA.focal_length(size) + (size - 1) / 2


def view_of(*degrees: float, move: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Tensor:
    """A view (6,) float64 from rotations about x, y, z in degrees and a translation."""
    return torch.tensor([*map(math.radians, degrees), *move], dtype=torch.float64)


Factory = Callable[..., Any]


class ProtocolFault(Exception):
    """The renderer's answer is no rendering of the object; says what it is instead."""


@dataclass(frozen=True)
class Gradients:
    """A rendering, and the gradients of one scalar of it."""

    rendering: Rendering
    depth: Tensor  # (B, H, W)
    image: Tensor  # (B, C, H, W)
    view: Tensor  # (B, 6)

    def finite(self) -> bool:
        return all(bool(g.isfinite().all()) for g in (self.depth, self.image, self.view))


class Subject:
    """Builds the renderer once and calls it with checks on what it returns.

    Args:
        factory: called with ``camera`` and ``depth_range``; returns the renderer.
        device: where everything runs.
    """

    def __init__(self, factory: Factory, device: torch.device | str = "cpu") -> None:
        self.factory, self.device = factory, torch.device(device)

    @cached_property
    def renderer(self) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            built = self.factory(camera=CAMERA, depth_range=DEPTH_RANGE)
        return built.to(self.device) if isinstance(built, nn.Module) else built

    @cached_property
    def double(self) -> bool:
        """Whether it takes float64 and answers in it."""
        depth = torch.ones(1, 16, 16, dtype=torch.float64)
        try:
            return self(depth, torch.full((1, 3, 16, 16), 0.5).double(), torch.zeros(1, 6).double()).depth.dtype == (
                torch.float64
            )
        except Exception:
            return False

    @property
    def best(self) -> torch.dtype:
        """The most exact type that it takes."""
        return torch.float64 if self.double else torch.float32

    def __call__(self, depth: Tensor, image: Tensor, view: Tensor) -> Rendering:
        """Render, on the subject's device.

        Raises:
            ProtocolFault: what comes back has another form than the protocol says.
        """
        found = self.renderer(depth.to(self.device), image.to(self.device), view.to(self.device))
        batch, height, width = depth.shape
        shapes = {
            "image": (batch, image.shape[1], height, width),
            "depth": (batch, height, width),
            "mask": (batch, height, width),
        }
        for name, shape in shapes.items():
            value = getattr(found, name, None)
            if not isinstance(value, Tensor):
                raise ProtocolFault(f"it returned a {type(found).__name__} whose '{name}' is no tensor")
            if tuple(value.shape) != shape:
                raise ProtocolFault(f"its {name} has the shape {tuple(value.shape)}, not {shape}")
        if found.mask.dtype != torch.bool:
            raise ProtocolFault(f"its mask is {found.mask.dtype}, not torch.bool")
        return found  # type: ignore[no-any-return]

    def gradients(
        self, depth: Tensor, image: Tensor, view: Tensor, loss: Callable[[Rendering], Tensor] | None = None
    ) -> Gradients:
        """Gradients of a scalar: by default the sum of all depths and colours. Zeros where none arrives."""
        inputs = [t.detach().clone().to(self.device).requires_grad_() for t in (depth, image, view)]
        with torch.enable_grad():
            found = self(*inputs)
            total = loss(found) if loss is not None else found.depth.sum() + found.image.sum()
            grads = (
                torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)
                if total.requires_grad
                else [torch.zeros_like(t) for t in inputs]
            )
        return Gradients(found, *grads)


def smooth_image(batch: int, size: int, dtype: torch.dtype = torch.float32, channels: int = 3) -> Tensor:
    """A smooth picture (batch, channels, size, size) in [0, 1], another in each channel and of each item."""
    axis = torch.linspace(0, 1, size, dtype=torch.float64)
    waves = [
        torch.sin(3.0 * (k % 3 + 1) * axis + k)[:, None] * torch.cos(4.0 * axis - 0.7 * k)[None]
        for k in range(batch * channels)
    ]
    return (torch.stack(waves) * 0.45 + 0.5).reshape(batch, channels, size, size).to(dtype)


#: A view in which every hypothesis below gives another picture.
VIEW = view_of(3, 18, 6, move=(0.004, -0.006, 0.01))

_MIRRORS = {
    "": (1.0, 1.0),
    "left-right": (-1.0, 1.0),
    "upside-down": (1.0, -1.0),
    "left-right and upside-down": (-1.0, -1.0),
}
_TURNS = {
    "": (1, 1, 1, 1, 1, 1),
    "the wrong way about x": (-1, 1, 1, 1, 1, 1),
    "the wrong way about y": (1, -1, 1, 1, 1, 1),
    "the wrong way about z": (1, 1, -1, 1, 1, 1),
    "the wrong way about x and y": (-1, -1, 1, 1, 1, 1),
    "the wrong way about every axis": (-1, -1, -1, 1, 1, 1),
    "the right way but moves the wrong way": (1, 1, 1, -1, -1, -1),
}


@dataclass(frozen=True)
class Registration:
    """Pixel p of the rendering shows what belongs at ``where(p)`` in the view ``turned(view)``.

    Attributes:
        mirror: how the picture is mirrored; empty if it is not.
        turn: how the view is misread; empty if it is not.
        shift: (du, dv) in pixels.
        scale: (su, sv); 1 if right.
        bias: rendered minus true depth that no shift explains.
        spread: standard deviation of what is left.
        covered: share of the pixels that the estimate rests on.
    """

    mirror: str = ""
    turn: str = ""
    shift: tuple[float, float] = (0.0, 0.0)
    scale: tuple[float, float] = (1.0, 1.0)
    bias: float = 0.0
    spread: float = 0.0
    covered: float = 0.0

    #: Fewer pixels than this share decide nothing.
    LEAST = 0.05
    #: A shift of this many pixels is none: ten times what the estimate is off by on exact renderers, a tenth of the
    #: classical fault.
    NEGLIGIBLE = 0.05

    @property
    def found(self) -> bool:
        """Whether enough of the object was drawn to tell."""
        return self.covered >= self.LEAST

    @property
    def off_scale(self) -> float:
        """By how many pixels the scale moves the picture's border."""
        return max(abs(s - 1) for s in self.scale) * (SIZE - 1) / 2

    @property
    def right(self) -> bool:
        """No mirror, no turn, no shift, no scale."""
        small = max(*map(abs, self.shift), self.off_scale) <= self.NEGLIGIBLE
        return small and not self.mirror and not self.turn

    def where(self, pixels: Tensor, size: int = SIZE) -> Tensor:
        """(2, N) pixels of the rendering → where what they show belongs; unchanged if the registration is right."""
        if self.right or not self.found:
            return pixels
        middle = (size - 1) / 2
        factor = pixels.new_tensor(_MIRRORS[self.mirror]) * pixels.new_tensor(self.scale)
        return (pixels - middle) * factor[:, None] + middle + pixels.new_tensor(self.shift)[:, None]

    def turned(self, view: Tensor) -> Tensor:
        """The view (6,) that the renderer makes of ``view``."""
        return view * view.new_tensor(_TURNS[self.turn])


def register(subject: Subject) -> Registration:
    """Estimate mirror, turn, shift and scale from one rendering of a smooth cap, by least squares on depth."""
    surface = Ellipsoid()
    depth = canonical_depth(surface)[None].to(subject.best)
    with torch.no_grad():
        found = subject(depth, smooth_image(1, SIZE, subject.best), VIEW[None].to(subject.best))
    drawn, mask = found.depth[0].double().cpu().flatten(), found.mask[0].cpu().flatten()
    mask = mask & drawn.isfinite()
    best, least = Registration(), float("inf")
    for mirror in _MIRRORS:
        for turn in _TURNS:
            guess = Registration(mirror=mirror, turn=turn, covered=1.0)
            error, share = _misfit(surface, guess, drawn, mask)
            # A more complicated story must explain far more: mirrors and turns differ by hundredths of the distance.
            if share >= Registration.LEAST and error < least * (1 if not (mirror or turn) else 0.25):
                best, least = guess, error
    if not best.covered:
        return Registration(covered=float(mask.double().mean()))
    return _refined(surface, best, drawn, mask)


def _misfit(surface: Ellipsoid, guess: Registration, drawn: Tensor, mask: Tensor) -> tuple[float, float]:
    truth = sight(surface, guess.turned(VIEW), guess.where(pixel_grid(SIZE)))
    use = mask & (truth.inside > 3)
    if not use.any():
        return float("inf"), 0.0
    return float((drawn - truth.depth)[use].abs().median()), float(use.double().mean())


def _refined(surface: Ellipsoid, guess: Registration, drawn: Tensor, mask: Tensor) -> Registration:
    """Shift, scale and bias by Gauss–Newton: each step linearises the true depth about the places found so far."""
    pixels, view, middle = pixel_grid(SIZE), guess.turned(VIEW), (SIZE - 1) / 2
    mirror = pixels.new_tensor(_MIRRORS[guess.mirror])[:, None]
    centred = (pixels - middle) * mirror
    shift, scale, bias, spread, share = pixels.new_zeros(2), pixels.new_ones(2), 0.0, 0.0, 0.0
    for _ in range(4):
        places = centred * scale[:, None] + middle + shift[:, None]
        here = sight(surface, view, places)
        step = 0.25
        slopes = [
            (sight(surface, view, places + e).depth - sight(surface, view, places - e).depth) / (2 * step)
            for e in (pixels.new_tensor([[step], [0.0]]), pixels.new_tensor([[0.0], [step]]))
        ]
        use = mask & (here.inside > 3) & slopes[0].isfinite() & slopes[1].isfinite()
        share = float(use.double().mean())
        if share < Registration.LEAST:
            break
        columns = [slopes[0], slopes[1], slopes[0] * centred[0], slopes[1] * centred[1], torch.ones_like(slopes[0])]
        system = torch.stack(columns, dim=1)[use]
        rest = (drawn - here.depth)[use]
        # A few pixels at a border or a hole must not move the estimate of all.
        sound = rest.sub(rest.median()).abs() <= 6 * rest.sub(rest.median()).abs().median() + 1e-12
        answer = torch.linalg.lstsq(system[sound], rest[sound, None]).solution[:, 0]
        shift, scale, bias = shift + answer[:2], scale + answer[2:4], float(answer[4])
        spread = float((rest - system @ answer)[sound].std())
    return Registration(
        mirror=guess.mirror,
        turn=guess.turn,
        shift=(float(shift[0]), float(shift[1])),
        scale=(float(scale[0]), float(scale[1])),
        bias=bias,
        spread=spread,
        covered=share,
    )
