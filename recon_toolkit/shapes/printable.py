"""What a slicer asks of a mesh, and a surface closed to a solid."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recon_toolkit.errors import DataError
from recon_toolkit.shapes.forms import Mesh
from recon_toolkit.shapes.mesh import TexturedMesh, scaled


def pieces(one: NDArray[np.int64], other: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """The number of the piece that each of ``size`` things belongs to, from 0, where ``one`` and ``other`` are joined.

    Args:
        one, other: (L,) each, the two ends of every link.
        size: how many things there are.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(one), dtype=bool), (one, other)), shape=(size, size))
    return np.asarray(connected_components(links, directed=False)[1])


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


Faces = NDArray[np.int64]


def solid(mesh: TexturedMesh, *, thickness: float = 0.1, height: float | None = None) -> TexturedMesh:
    """Close an open surface to a watertight, manifold solid that lies flat on its back.

    Of several pieces the largest is taken, and its holes are filled. The solid is everything between the surface and
    the back along the camera's lines of sight, which see each point of the surface once: so the walls and the back
    cannot cut it, or each other. Walls and back wear the colours of the rim, as if drawn inwards from there.

    z points away from the printing bed; slicers take the numbers of an STL file as millimetres.

    Args:
        mesh: an oriented surface that its eye sees from outside everywhere, as
            :func:`~recon_toolkit.shapes.mesh.mesh_from_depth` makes it. Faces may touch at single vertices.
        thickness: how far behind the surface's farthest point the back lies, in the mesh's units (half the
            picture's width), above 0.
        height: scale the result to this extent along y, e.g. in millimetres. Its own units by default.

    Raises:
        DataError: the mesh has no face, or an edge with more than two.
        ValueError: ``thickness`` or ``height`` is not above 0.
    """
    from scipy.spatial import cKDTree

    if not thickness > 0:
        raise ValueError(f"a thickness is above 0, not {thickness}")
    front = _filled(_main_piece(mesh))
    depth = front.vertices[:, 2]
    back_z = float(depth.min()) - thickness
    back = front.vertices.copy()
    back[:, 2] = back_z
    if np.isfinite(front.eye):
        back[:, :2] *= ((front.eye - back_z) / (front.eye - depth))[:, None]
    count = len(front.vertices)
    rim = _rim(front.faces)
    start, end = rim.T
    walls = np.concatenate(
        (np.stack((end, start, start + count), axis=1), np.stack((end, start + count, end + count), axis=1))
    )
    _, nearest = cKDTree(_seen(front)[start]).query(_seen(front))
    closed = TexturedMesh(
        vertices=np.concatenate((front.vertices, back)),
        normals=np.concatenate((front.normals, np.tile((0.0, 0.0, -1.0), (count, 1)))),
        texture_coordinates=np.concatenate((front.texture_coordinates, front.texture_coordinates[start[nearest]])),
        faces=np.concatenate((front.faces, front.faces[:, ::-1] + count, walls)),
        eye=front.eye,
    )
    return closed if height is None else scaled(closed, height)


def _main_piece(mesh: TexturedMesh) -> TexturedMesh:
    """The largest set of faces that are connected by edges, with vertices that only touch taken apart."""
    faces = mesh.faces
    if not len(faces):
        raise DataError("the mesh has no faces to close", remedy="use a larger mask")
    # An edge as the corner it starts at, 3 · face + k; its partner runs the other way in the neighbouring face.
    start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
    size = len(mesh.vertices)
    low, high = np.minimum(start, end), np.maximum(start, end)
    order = np.argsort(low * size + high, kind="stable")
    same = (low[order][1:] == low[order][:-1]) & (high[order][1:] == high[order][:-1])
    if (same[1:] & same[:-1]).any():
        raise DataError("an edge of the mesh has more than two faces", remedy="close the surface of a depth map")
    one, other = order[:-1][same], order[1:][same]
    labels = pieces(one // 3, other // 3, len(faces))
    area = np.linalg.norm(_cross(mesh.vertices, faces), axis=1)
    main = labels == np.bincount(labels, weights=area).argmax()
    # Corners are one vertex where an edge of two faces joins them: an edge's start is its partner's end.
    following = np.arange(faces.size).reshape(-1, 3)[:, (1, 2, 0)].reshape(-1)
    joined = np.concatenate((one, following[one])), np.concatenate((following[other], other))
    corners = pieces(*joined, faces.size).reshape(-1, 3)[main]
    kept, index = np.unique(corners, return_inverse=True)
    source = np.empty(len(kept), dtype=np.int64)
    source[index.reshape(-1)] = faces[main].reshape(-1)
    faces = index.reshape(-1, 3).astype(np.int64)
    return replace(
        mesh,
        vertices=_apart(mesh.vertices[source], faces, np.bincount(source, minlength=size)[source] > 1),
        normals=mesh.normals[source],
        texture_coordinates=mesh.texture_coordinates[source],
        faces=faces,
    )


def _apart(vertices: NDArray[np.float64], faces: Faces, touching: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Vertices that lie in one place drawn a little into their own faces, or a file without indices rejoins them."""
    if not touching.any():
        return vertices
    own = faces[touching[faces].any(axis=1)]
    sums, counts = np.zeros_like(vertices), np.zeros(len(vertices))
    np.add.at(sums, own.reshape(-1), np.repeat(vertices[own].mean(axis=1), 3, axis=0))
    np.add.at(counts, own.reshape(-1), 1)
    moved = vertices.copy()
    moved[touching] += 0.05 * (sums[touching] / counts[touching, None] - vertices[touching])
    return moved


def _rim(faces: Faces) -> Faces:
    """The directed edges (E, 2) that only one face has."""
    start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
    size = int(faces.max()) + 1
    lone = ~np.isin(start * size + end, end * size + start)
    return np.stack((start[lone], end[lone]), axis=1)


def _filled(mesh: TexturedMesh) -> TexturedMesh:
    """The mesh with faces over all its holes."""
    rim = _rim(mesh.faces)
    if not len(rim):
        raise DataError("the mesh is closed already", remedy="close an open surface")
    after = dict(rim.tolist())
    loops: list[list[int]] = []
    while after:
        loop = [next(iter(after))]
        while (following := after.pop(loop[-1])) != loop[0]:
            loop.append(following)
        loops.append(loop)
    places = _seen(mesh)
    # Seen from the eye, the outer rim runs anticlockwise and holes clockwise.
    outer = max(range(len(loops)), key=lambda index: _area(places[loops[index]]))
    patches = [_ears(loop[::-1], places) for index, loop in enumerate(loops) if index != outer]
    return replace(mesh, faces=np.concatenate((mesh.faces, *patches))) if patches else mesh


def _seen(mesh: TexturedMesh) -> NDArray[np.float64]:
    """Where the eye sees the vertices: (V, 2), x right and y up."""
    if not np.isfinite(mesh.eye):
        return mesh.vertices[:, :2]
    return np.asarray(mesh.vertices[:, :2] / (mesh.eye - mesh.vertices[:, 2:]))


def _area(polygon: NDArray[np.float64]) -> float:
    """Twice the area of a polygon (N, 2), positive where it runs anticlockwise."""
    following = np.roll(polygon, -1, axis=0)
    return float((polygon[:, 0] * following[:, 1] - polygon[:, 1] * following[:, 0]).sum())


def _ears(loop: list[int], places: NDArray[np.float64]) -> Faces:
    """Triangles (N − 2, 3) over a polygon of vertices that runs anticlockwise, by cutting off its roundest ears."""
    left, faces = list(loop), []
    fitness = [_ear_fitness(places, left, position) for position in range(len(left))]
    while len(left) > 3:
        best = int(np.argmax(fitness))
        faces.append((left[best - 1], left[best], left[(best + 1) % len(left)]))
        del left[best], fitness[best]
        for position in (best - 1, best % len(left)):
            fitness[position] = _ear_fitness(places, left, position)
        if max(fitness) <= 0:  # a corner that stood inside another ear is gone
            fitness = [_ear_fitness(places, left, position) for position in range(len(left))]
    return np.array([*faces, left], dtype=np.int64)


def _ear_fitness(places: NDArray[np.float64], polygon: list[int], position: int) -> float:
    """How round the triangle at a corner is, up to 1; 0 or less where it is no ear."""
    a, b, c = (polygon[(position + step) % len(polygon)] for step in (-1, 0, 1))
    corners = places[[a, b, c]]
    sides = corners - np.roll(corners, -1, axis=0)
    length = float((sides**2).sum())
    round_ = 2 * math.sqrt(3) * _area(corners) / max(length, 1e-300)
    if round_ < 1e-9:
        return min(round_, 0.0)
    others = places[[vertex for vertex in polygon if vertex not in (a, b, c)]]
    inside = np.ones(len(others), dtype=bool)
    for (x0, y0), (dx, dy) in zip(corners, -sides, strict=True):
        inside &= dx * (others[:, 1] - y0) - dy * (others[:, 0] - x0) >= -1e-12 * length
    return 0.0 if inside.any() else round_


def _cross(vertices: NDArray[np.float64], faces: Faces) -> NDArray[np.float64]:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.cross(b - a, c - a)
