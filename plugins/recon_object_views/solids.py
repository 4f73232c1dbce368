"""Coloured triangle meshes from a few kinds of solids, and points on a mesh, evenly by area."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class ColouredMesh:
    """A triangle mesh with a colour for each face.

    Attributes:
        vertices: (V, 3) float64, z up.
        faces: (F, 3) int32, anticlockwise seen from outside.
        colours: (F, 3) float64 in [0, 1].
    """

    vertices: Floats
    faces: NDArray[np.int32]
    colours: Floats

    @classmethod
    def joined(cls, parts: Iterable[ColouredMesh]) -> ColouredMesh:
        """All parts as one mesh; they may pass through one another."""
        parts = list(parts)
        starts = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
        return cls(
            np.concatenate([part.vertices for part in parts]),
            np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)]).astype(np.int32),
            np.concatenate([part.colours for part in parts]),
        )

    def moved(self, matrix: ArrayLike, offset: ArrayLike = (0, 0, 0)) -> ColouredMesh:
        """The mesh with vertices ``matrix`` · v + ``offset``; a mirroring matrix turns the faces over."""
        turn = np.asarray(matrix, dtype=np.float64)
        faces = self.faces if np.linalg.det(turn) > 0 else self.faces[:, ::-1]
        return ColouredMesh(self.vertices @ turn.T + np.asarray(offset, dtype=np.float64), faces, self.colours)

    def mirrored(self) -> ColouredMesh:
        """The mesh with x and −x exchanged."""
        return self.moved(np.diag((-1.0, 1.0, 1.0)))

    def normalised(self) -> ColouredMesh:
        """The mesh with its bounding box about the origin and the box's diagonal of length 1, as ShapeNet has it."""
        low, high = self.vertices.min(0), self.vertices.max(0)
        scale = 1 / np.linalg.norm(high - low)
        return ColouredMesh((self.vertices - (low + high) / 2) * scale, self.faces, self.colours)


def mesh(vertices: ArrayLike, faces: ArrayLike, colour: Colour) -> ColouredMesh:
    """A mesh of one colour."""
    corners = np.asarray(faces, dtype=np.int32)
    return ColouredMesh(np.asarray(vertices, dtype=np.float64), corners, np.tile(np.asarray(colour), (len(corners), 1)))


_HEXAHEDRON = (
    (0, 2, 1), (1, 2, 3), (4, 5, 6), (5, 7, 6), (0, 1, 4), (1, 5, 4),
    (2, 6, 3), (3, 6, 7), (0, 4, 2), (2, 4, 6), (1, 3, 5), (3, 7, 5),
)  # fmt: skip


def hexahedron(corners: ArrayLike, colour: Colour) -> ColouredMesh:
    """Six sides between eight corners (8, 3); corner number 4 k + 2 j + i lies at (x_i, y_j, z_k) of a box."""
    return mesh(corners, _HEXAHEDRON, colour)


def box(low: ArrayLike, high: ArrayLike, colour: Colour, *, taper: tuple[float, float] = (1.0, 1.0)) -> ColouredMesh:
    """A box between two corners; its upper side is scaled by ``taper`` across and along about its middle."""
    (x0, y0, z0), (x1, y1, z1) = np.asarray(low, float), np.asarray(high, float)
    middle = np.array(((x0 + x1) / 2, (y0 + y1) / 2, 0))
    corners = np.array([(x, y, z) for z in (z0, z1) for y in (y0, y1) for x in (x0, x1)])
    corners[4:] = (corners[4:] - middle) * (*taper, 1) + middle
    return hexahedron(corners, colour)


def prism(outline: ArrayLike, low: float, high: float, colour: Colour) -> ColouredMesh:
    """A convex outline (K, 2), anticlockwise, drawn upwards from z = low to z = high."""
    points = np.asarray(outline, dtype=np.float64)
    count = len(points)
    vertices = np.concatenate([np.column_stack((points, np.full(count, z))) for z in (low, high)])
    a, b = np.arange(count), (np.arange(count) + 1) % count
    sides = np.concatenate((np.column_stack((a, b, a + count)), np.column_stack((b, b + count, a + count))))
    fan = np.column_stack((np.zeros(count - 2, int), np.arange(1, count - 1), np.arange(2, count)))
    return mesh(vertices, np.concatenate((sides, fan[:, ::-1], fan + count)), colour)


def oval(width: float, depth: float, *, power: float = 2.0, sides: int = 32) -> Floats:
    """The outline (sides, 2) of a superellipse: power 2 is an ellipse, a high one a rounded rectangle."""
    angle = np.arange(sides) / sides * 2 * np.pi
    unit = np.column_stack((np.cos(angle), np.sin(angle)))
    return np.asarray(np.sign(unit) * np.abs(unit) ** (2 / power) * (width / 2, depth / 2), dtype=np.float64)


def revolved(profile: ArrayLike, colour: Colour, *, sides: int = 32) -> ColouredMesh:
    """A profile (K, 2) of radius and height turned about the z axis, from its lower to its upper end outside."""
    points = np.asarray(profile, dtype=np.float64)
    angle = np.arange(sides) / sides * 2 * np.pi
    ring = np.column_stack((np.cos(angle), np.sin(angle)))
    vertices = np.concatenate([np.column_stack((ring * r, np.full(sides, z))) for r, z in points])
    return mesh(vertices, _quads(len(points), sides), colour)


def tube(path: ArrayLike, radii: ArrayLike, colour: Colour, *, sides: int = 12) -> ColouredMesh:
    """A closed tube about a path.

    Args:
        path: (P, 3), its middle line.
        radii: one number, (P,) for round sections or (P, 2) for elliptic ones: half axes across and upwards.
        colour: of all.
        sides: of a section.
    """
    line = np.asarray(path, dtype=np.float64)
    size = np.asarray(radii, dtype=np.float64)
    size = np.broadcast_to(size if size.ndim == 2 else np.atleast_1d(size)[:, None], (len(line), 2))
    along = np.gradient(line, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    # One reference for all sections, the axis that the path follows least: they do not turn against each other.
    reference = np.eye(3)[np.abs(along).mean(0).argmin()]
    across = np.cross(along, reference)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    upwards = np.cross(across, along)
    angle = np.arange(sides) / sides * 2 * np.pi
    ring = (
        np.cos(angle)[None, :, None] * (size[:, 0, None] * across)[:, None]
        + np.sin(angle)[None, :, None] * (size[:, 1, None] * upwards)[:, None]
    )
    vertices = np.concatenate(((line[:, None] + ring).reshape(-1, 3), line[[0, -1]]))
    first, last = len(vertices) - 2, len(vertices) - 1
    a, b = np.arange(sides), (np.arange(sides) + 1) % sides
    end = (len(line) - 1) * sides
    caps = np.concatenate(
        (np.column_stack((np.full(sides, first), a, b)), np.column_stack((np.full(sides, last), b + end, a + end)))
    )
    return mesh(vertices, np.concatenate((_quads(len(line), sides)[:, ::-1], caps)), colour)


def rod(start: Sequence[float], end: Sequence[float], radius: float, colour: Colour, *, sides: int = 10,
        thin: float = 1.0) -> ColouredMesh:  # fmt: skip
    """A straight round bar; its radius at the end is ``thin`` times that at the start."""
    return tube(np.array((start, end)), np.array((radius, radius * thin)), colour, sides=sides)


def _quads(rows: int, sides: int) -> NDArray[np.int64]:
    row, side = np.arange(rows - 1)[:, None] * sides, np.arange(sides)
    a, b = (row + side).ravel(), (row + (side + 1) % sides).ravel()
    return np.concatenate((np.column_stack((a, b, a + sides)), np.column_stack((b, b + sides, a + sides))))


def sample_surface(vertices: Floats, faces: NDArray[np.integer], count: int, rng: Generator) -> NDArray[np.float32]:
    """Points drawn evenly from a mesh's surface, (count, 3).

    Strata of equal area have a point each, so that few points cover all of it.

    Args:
        vertices: (V, 3).
        faces: (F, 3).
        count: how many.
        rng: the only source of chance.

    Raises:
        ValueError: the mesh has no area.
    """
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    total = np.cumsum(area)
    if not len(total) or not 0 < total[-1] < np.inf:
        raise ValueError("a mesh without area has no points to draw")
    at = (np.arange(count) + rng.random(count)) / count * total[-1]
    face = np.minimum(np.searchsorted(total, at, side="right"), len(total) - 1)
    # The square folded into a triangle (Osada et al. 2002): √r spreads evenly from one corner.
    r, s = np.sqrt(rng.random(count))[:, None], rng.random(count)[:, None]
    points = a[face] * (1 - r) + b[face] * (r * (1 - s)) + c[face] * (r * s)
    return np.asarray(points, dtype=np.float32)
