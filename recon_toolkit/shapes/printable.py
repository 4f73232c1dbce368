"""What a slicer asks of a mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon_toolkit.shapes.forms import Mesh
from recon_toolkit.shapes.pieces import pieces

#: Mean thickness, in diagonals of the box, below which nothing is enclosed: 32-bit numbers give a flat sheet a tenth of
#: it, and a sheet of paper has three hundred times as much.
_NO_THICKNESS = 1e-6


@dataclass(frozen=True)
class Printability:
    """Whether a mesh is the surface of a solid. It may still pass through itself, which is not looked for.

    Attributes:
        watertight: every edge has two faces, and they enclose something.
        winding_consistent: neighbouring faces run along their common edge in opposite directions.
        edge_manifold: no edge has more than two faces.
        vertex_manifold: the faces at every vertex are one fan.
        degenerate_faces: faces without area, or with a vertex twice.
        volume: in cubes of the mesh's unit; below 0 where it is inside out.
        extent: sides (x, y, z) of the box about it.
        pieces: components that are connected by edges.
        problems: what keeps it from being printed, a sentence each.
    """

    watertight: bool
    winding_consistent: bool
    edge_manifold: bool
    vertex_manifold: bool
    degenerate_faces: int
    volume: float
    extent: tuple[float, float, float]
    pieces: int
    problems: tuple[str, ...]

    @property
    def printable(self) -> bool:
        """There are no problems."""
        return not self.problems


def check_printable(mesh: Mesh) -> Printability:
    """Look at a mesh as a slicer does: is it the closed, manifold, outward surface of a solid?

    Vertices of a mesh with colours that lie in one place count as one.
    """
    if mesh.colours is not None:
        mesh = mesh.joined()
    faces, size = mesh.faces, len(mesh.vertices)
    # An edge as the corner it starts at, 3 · face + k.
    start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
    low, high = np.minimum(start, end), np.maximum(start, end)
    order = np.argsort(low * size + high, kind="stable")
    same = np.diff((low * size + high)[order]) == 0
    _, counts = np.unique(low * size + high, return_counts=True)
    _, directed = np.unique(start * size + end, return_counts=True)
    one, other = order[:-1][same], order[1:][same]
    piece = pieces(one // 3, other // 3, len(faces))
    parts = int(piece.max(initial=-1)) + 1
    fans = _fans(faces, one, other)
    doubled = int(fans - len(np.unique(faces)))
    open_edges, crowded, against = int((counts == 1).sum()), int((counts > 2).sum()), int((directed > 1).sum())
    degenerate = int(_degenerate(mesh).sum())
    volume = mesh.volume
    thick = _is_thick(mesh, piece)
    problems = []
    if open_edges:
        problems.append(f"It is open: {_number(open_edges, 'edge')} with one face only.")
    if crowded:
        problems.append(f"It is not manifold: {_number(crowded, 'edge')} with more than two faces.")
    if doubled:
        problems.append(f"It is not manifold: at vertices, {_number(doubled, 'fan')} of faces too many.")
    if against and not crowded:
        problems.append(f"Its faces do not all face outwards: {_number(against, 'edge')} between opposite ones.")
    if degenerate:
        problems.append(f"It has {_number(degenerate, 'face')} without area.")
    if not thick:
        problems.append("It encloses nothing: it has no thickness.")
    elif not problems and not volume > 0:
        problems.append("It is inside out.")
    low_corner, high_corner = mesh.bounds
    x, y, z = (float(side) for side in high_corner - low_corner)
    return Printability(
        watertight=thick and not open_edges and not crowded,
        winding_consistent=not against,
        edge_manifold=not crowded,
        vertex_manifold=not doubled,
        degenerate_faces=degenerate,
        volume=volume,
        extent=(x, y, z),
        pieces=parts,
        problems=tuple(problems),
    )


def _fans(faces: NDArray[np.int64], one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    """How many fans of faces there are at all vertices: corners of one vertex are joined where faces share an edge."""
    following = np.arange(faces.size).reshape(-1, 3)[:, (1, 2, 0)].reshape(-1)
    flat = faces.reshape(-1)
    opposed = flat[one] != flat[other]  # as where both faces look to one side
    first = np.where(opposed, following[other], other)
    second = np.where(opposed, other, following[other])
    joined = pieces(np.concatenate((one, following[one])), np.concatenate((first, second)), faces.size)
    return int(joined.max(initial=-1)) + 1


def _is_thick(mesh: Mesh, piece: NDArray[np.integer]) -> bool:
    """Whether what it encloses has a thickness; of pieces, one may be inside out and cancel another."""
    low, high = mesh.bounds
    a, b, c = (mesh.vertices[mesh.faces[:, k]] - low for k in range(3))
    across = np.cross(b - a, c - a)
    enclosed = float(np.abs(np.bincount(piece, np.einsum("ij,ij->i", a, across) / 6)).sum())
    area = float(np.linalg.norm(across, axis=1).sum()) / 2
    # A sheet's two sides together are the area, so that the volume is half of it times the thickness.
    return bool((high - low).min() > 0 and 2 * enclosed > _NO_THICKNESS * area * float(np.linalg.norm(high - low)))


def _degenerate(mesh: Mesh) -> NDArray[np.bool_]:
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    sides = np.stack((b - a, c - b, a - c))
    longest = np.sqrt((sides**2).sum(-1).max(0))
    low, high = mesh.bounds
    # Lower than what 64-bit numbers tell apart reliably at this size.
    flat = np.linalg.norm(np.cross(sides[0], sides[2]), axis=1) <= 1e-10 * np.linalg.norm(high - low) * longest
    return np.asarray(flat | (mesh.faces == np.roll(mesh.faces, 1, axis=1)).any(axis=1))


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
