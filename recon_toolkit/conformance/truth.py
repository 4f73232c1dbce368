"""Surfaces whose depth in any view has a closed form: what renderers are held against.

Nothing here uses the rendering package. A view moves a surface rigidly, so its depth along a pixel's ray (x, y, 1) is
that of the unmoved surface along the ray's inverse image: P = s·Rᵀd + c − Rᵀ(c + t), with s the depth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from recon_toolkit.geometry import Camera, view_matrix

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
