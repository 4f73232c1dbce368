"""The forms of a shape: a cloud of points, a mesh of triangles, a grid of voxels. z is up in all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recon_toolkit.errors import DataError

Floats: TypeAlias = NDArray[np.float64]
Faces: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points of a surface. Arrays of other types are converted.

    Attributes:
        points: (N, 3) float64, N ≥ 1, finite.
        normals: (N, 3) float64, unit and outward, or None.
        colours: (N, 3) uint8, RGB, or None.

    Raises:
        DataError: there are no points, or a number is not finite.
        ValueError: a shape or the colours' type is wrong.
    """

    points: Floats
    normals: Floats | None = None
    colours: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        points = _rows(self.points, "points")
        if not len(points):
            raise DataError("the cloud has no points", remedy="check what made it")
        object.__setattr__(self, "points", points)
        if self.normals is not None:
            object.__setattr__(self, "normals", _rows(self.normals, "normals", len(points)))
        if self.colours is not None:
            object.__setattr__(self, "colours", _bytes(self.colours, points.shape))

    @property
    def bounds(self) -> tuple[Floats, Floats]:
        """The lowest and the highest corner (3,) of the box about it."""
        return self.points.min(axis=0), self.points.max(axis=0)

    def moved(self, factor: float, offset: ArrayLike) -> Cloud:
        """The cloud with points ``factor`` · p + ``offset``; ``factor`` is above 0."""
        return Cloud(self.points * factor + np.asarray(offset, dtype=np.float64), self.normals, self.colours)

    def only(self, kept: Mask) -> Cloud:
        """The points that a mask (N,) keeps."""
        pick = [None if values is None else values[kept] for values in (self.normals, self.colours)]
        return Cloud(self.points[kept], *pick)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Mesh:
    """A mesh of triangles. Arrays of other types are converted.

    Attributes:
        vertices: (V, 3) float64, finite.
        faces: (F, 3) int64, F ≥ 1, numbers of vertices, anticlockwise seen from outside.
        colours: (V, 3) uint8, RGB, of the vertices, or None.

    Raises:
        DataError: there are no faces, a coordinate is not finite, or a face names a vertex that is not there.
        ValueError: a shape, or the type of the faces or the colours is wrong.
    """

    vertices: Floats
    faces: Faces
    colours: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        vertices, faces = _rows(self.vertices, "vertices"), np.asarray(self.faces)
        if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "iu":
            raise ValueError(f"faces must be integers (F, 3), not {faces.dtype} {faces.shape}")
        if not len(faces):
            raise DataError("the mesh has no faces", remedy="a cloud of points is no mesh: convert it first")
        low, high = int(faces.min()), int(faces.max())
        if low < 0 or high >= len(vertices):
            wrong = low if low < 0 else high
            raise DataError(
                f"a face names vertex {wrong}, and there are {len(vertices)}", remedy="vertices count from 0"
            )
        object.__setattr__(self, "vertices", vertices)
        object.__setattr__(self, "faces", np.ascontiguousarray(faces, dtype=np.int64))
        if self.colours is not None:
            object.__setattr__(self, "colours", _bytes(self.colours, vertices.shape))

    @property
    def bounds(self) -> tuple[Floats, Floats]:
        """The lowest and the highest corner (3,) of the box about its faces."""
        used = self.vertices[np.unique(self.faces)]
        return used.min(axis=0), used.max(axis=0)

    @property
    def volume(self) -> float:
        """What the surface encloses, by the divergence theorem; below 0 where it is inside out."""
        a, b, c = (self.vertices[self.faces[:, k]] - self.bounds[0] for k in range(3))
        return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)

    @property
    def normals(self) -> Floats:
        """Unit normals (F, 3) of the faces, outward; 0 where a face has no area."""
        a, b, c = (self.vertices[self.faces[:, k]] for k in range(3))
        across = np.cross(b - a, c - a)
        return np.asarray(across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-300))

    def moved(self, factor: float, offset: ArrayLike) -> Mesh:
        """The mesh with vertices ``factor`` · v + ``offset``; ``factor`` is above 0."""
        return Mesh(self.vertices * factor + np.asarray(offset, dtype=np.float64), self.faces, self.colours)

    def joined(self, *, by_colour: bool = False) -> Mesh:
        """Vertices in one place as one, without colours; faces that had no area for it are left out.

        Args:
            by_colour: vertices in one place with unlike colours remain several, and colours are kept.

        Raises:
            DataError: no face has an area.
        """
        coloured = self.colours if by_colour else None
        rows: Floats = self.vertices if coloured is None else np.hstack((self.vertices, coloured.astype(np.float64)))
        # np.unique by rows compares bytes, which takes several times as long.
        order = np.lexsort(rows.T[::-1])
        first = np.concatenate(([True], (rows[order[1:]] != rows[order[:-1]]).any(axis=1)))
        index = np.empty(len(rows), dtype=np.int64)
        index[order] = np.cumsum(first) - 1
        rows, faces = rows[order[first]], index[self.faces]
        kept = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
        if not kept.any():
            raise DataError("no face of the mesh has an area", remedy="check where it comes from")
        return Mesh(rows[:, :3], faces[kept], None if coloured is None else rows[:, 3:].astype(np.uint8))


@dataclass(frozen=True, eq=False)
class Voxels:
    """A solid as cubes of a regular grid. Voxel (i, j, k) is the cube ``pitch`` wide from ``origin`` + (i, j, k) pitch.

    Attributes:
        filled: (X, Y, Z) bool, some of it True.
        origin: (3,) float64, the lowest corner of voxel (0, 0, 0).
        pitch: a voxel's side, above 0.

    Raises:
        DataError: no voxel is filled.
        ValueError: a shape, a type or a number is wrong.
    """

    filled: Mask
    origin: Floats = field(default_factory=lambda: np.zeros(3))
    pitch: float = 1.0

    def __post_init__(self) -> None:
        filled, origin = np.asarray(self.filled), np.asarray(self.origin, dtype=np.float64)
        if filled.dtype != np.bool_ or filled.ndim != 3:
            raise ValueError(f"voxels must be bool (X, Y, Z), not {filled.dtype} {filled.shape}")
        if not filled.any():
            raise DataError("no voxel is filled", remedy="use more voxels, or check what made them")
        if origin.shape != (3,) or not np.isfinite(origin).all():
            raise ValueError(f"the voxels' origin must be three finite numbers, not {self.origin}")
        if not (np.isfinite(self.pitch) and self.pitch > 0):
            raise ValueError(f"a voxel's side is above 0, not {self.pitch}")
        object.__setattr__(self, "filled", filled)
        object.__setattr__(self, "origin", origin)
        object.__setattr__(self, "pitch", float(self.pitch))

    @property
    def bounds(self) -> tuple[Floats, Floats]:
        """The lowest and the highest corner (3,) of the box about the filled voxels."""
        used = np.argwhere(self.filled)
        return self.origin + used.min(axis=0) * self.pitch, self.origin + (used.max(axis=0) + 1) * self.pitch

    @property
    def volume(self) -> float:
        """Of all filled voxels."""
        return float(self.filled.sum()) * self.pitch**3

    def moved(self, factor: float, offset: ArrayLike) -> Voxels:
        """The voxels with every place p at ``factor`` · p + ``offset``; ``factor`` is above 0."""
        return Voxels(self.filled, self.origin * factor + np.asarray(offset, dtype=np.float64), self.pitch * factor)


#: A shape in any form.
Shape: TypeAlias = Cloud | Mesh | Voxels


def form_of(shape: Shape) -> str:
    """``cloud``, ``mesh`` or ``voxels``."""
    return type(shape).__name__.lower()


def _bytes(values: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    colours = np.asarray(values)
    if colours.dtype != np.uint8 or colours.shape != shape:
        raise ValueError(f"colours must be uint8 {shape}, not {colours.dtype} {colours.shape}")
    return np.ascontiguousarray(colours)


def _rows(values: ArrayLike, name: str, count: int | None = None) -> Floats:
    rows = np.ascontiguousarray(values, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != 3 or (count is not None and len(rows) != count):
        raise ValueError(f"{name} must be ({'N' if count is None else count}, 3), not {rows.shape}")
    wrong = int((~np.isfinite(rows).all(axis=1)).sum())
    if wrong:
        raise DataError(f"{wrong} of {len(rows)} {name} are not finite", remedy="leave these out")
    return rows
