"""A shape as the page gets it: coordinates in 16 bits, and no more points and faces than a page can carry."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator, Philox
from numpy.typing import NDArray

from recon_toolkit.export.viewer.payload import base64_text, script_text
from recon_toolkit.export.viewer.shape_scene import ShapeScene

STEPS = 65535
#: Points of one shape. With as many vertices, and so twice the faces, they are about 2.2 MB of the page.
MOST = 60_000
#: Points of all shapes of a page together, and what a shape gets however many there are.
MOST_OF_PAGE, LEAST = 120_000, 6_000
#: A closed mesh has about two faces for each vertex.
FACES = 2
#: Vertices are joined in this many cells along the longest side at first, where a mesh has too many faces.
CELLS = 512


@dataclass(frozen=True)
class ShownShape:
    """A shape thinned out to what the page draws, in float64, and in which frame."""

    points: NDArray[np.float64]  # (N, 3)
    normals: NDArray[np.float64] | None  # (N, 3) of length 1, or 0 where there is none
    vertices: NDArray[np.float64]  # (V, 3)
    faces: NDArray[np.int64]  # (F, 3)
    centre: NDArray[np.float64]  # (3,) what the page turns it about
    radius: float  # of what the page shows at first, about the centre
    facts: list[tuple[str, str]]  # what was left out


def share(shapes: int) -> int:
    """How many points each of a page's shapes may have, by their number."""
    return max(LEAST, min(MOST, MOST_OF_PAGE // max(1, shapes)))


def shown_shape(scene: ShapeScene, most: int = MOST) -> ShownShape:
    """What is drawn of a shape: at most ``most`` points (:func:`chosen`) and twice the faces (:func:`coarser`)."""
    index = chosen(len(scene.points), most)
    points, normals = np.asarray(scene.points, dtype=np.float64)[index], None
    facts = [] if len(index) == len(scene.points) else [_shown("Points", len(index), len(scene.points))]
    if scene.normals is not None:
        normals = np.asarray(scene.normals, dtype=np.float64)[index]
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        normals = normals / np.where(length > 0, length, 1)
    vertices, faces = np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64)
    if scene.vertices is not None and scene.faces is not None and len(scene.faces):
        given = np.asarray(scene.faces, dtype=np.int64)
        used, flat = np.unique(given, return_inverse=True)
        vertices, faces = coarser(np.asarray(scene.vertices, dtype=np.float64)[used], flat.reshape(-1, 3), FACES * most)
        if len(faces) < len(given):
            facts.append(_shown("Faces", len(faces), len(given)))
    centre, radius = framing(np.concatenate((points, vertices)))
    return ShownShape(points, normals, vertices, faces, centre, radius, facts)


def chosen(count: int, most: int) -> NDArray[np.int64]:
    """Which of ``count`` points are shown: all, or ``most`` of them, in their order, the same at every call.

    Those with the smallest of the numbers that Philox with key 0 gives them in turn. Every k-th point would be
    rows or columns where the points come from a grid.
    """
    if count <= most:
        return np.arange(count)
    drawn = Generator(Philox(key=0)).random(count)
    return np.sort(np.argsort(drawn, kind="stable")[:most])


def coarser(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], most: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """A mesh with at most ``most`` faces: itself, or with all vertices in a cell of a grid joined at their mean.

    Rossignac and Borrel 1993, *Multi-resolution 3D approximations for rendering complex scenes*. The grid's cells are
    as small as they can be, within a tenth.
    """
    cells, low = CELLS, vertices.min(0)
    size = max(float((vertices.max(0) - low).max()), 1e-12)
    joined, kept = vertices, faces
    while len(kept) > most:
        cell = np.minimum(((vertices - low) / size * cells).astype(np.int64), cells - 1)
        _, of, count = np.unique(cell @ (1, cells, cells**2), return_inverse=True, return_counts=True)
        of = of.reshape(-1)
        joined = np.stack([np.bincount(of, weights=axis) for axis in vertices.T], axis=1) / count[:, None]
        kept = of[faces]
        kept = kept[(kept != np.roll(kept, 1, axis=1)).all(axis=1)]
        first = kept.argmin(axis=1)[:, None]  # faces that have become one begin with the same corner
        kept = np.unique(np.take_along_axis(kept, (first + np.arange(3)) % 3, axis=1), axis=0)
        cells = int(cells * min(0.9, max(0.5, (most / max(1, len(kept))) ** 0.5)))
    return joined, kept


def framing(places: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Middle (3,) and radius of what to look at: all of the places (N, 3) but for a few that lie far out.

    The middle is that of a box that a fifth of a percent lies beyond on each side; the radius reaches the furthest,
    but not beyond 5/4 of what holds 99 %. Models leave single points anywhere, which would make the object small.
    """
    low, high = np.quantile(places, (0.002, 0.998), axis=0)
    centre = (low + high) / 2
    away = np.linalg.norm(places - centre, axis=1)
    return centre, max(1e-6, min(float(away.max()), 1.25 * float(np.quantile(away, 0.99))))


def shape_json(name: str, shown: ShownShape) -> str:
    """What the page's script needs of a shape, safe inside a ``script`` element.

    Coordinates are steps of the common bounding box, ``low + (high − low) · steps / 65535``, unsigned 16 bits; corners
    of faces are unsigned 16 bits, or 32 where there are more vertices; normals are signed bytes, ``127 n``. All are
    little-endian, in rows of three, in base64.
    """
    together = np.concatenate((shown.points, shown.vertices))
    low, high = together.min(0), together.max(0)

    def steps(places: NDArray[np.float64]) -> str:
        scaled = (places - low) / np.where(high > low, high - low, 1) * STEPS
        return base64_text(np.rint(scaled).astype("<u2").tobytes())

    content: dict[str, Any] = {
        "kind": "shape",
        "name": name,
        "low": low.tolist(),
        "high": high.tolist(),
        "centre": shown.centre.tolist(),
        "radius": shown.radius,
        "points": None,
        "surface": None,
    }
    if len(shown.points):
        signed = None if shown.normals is None else np.rint(shown.normals * 127).astype(np.int8)
        normals = None if signed is None else base64_text(signed.tobytes())
        content["points"] = {"data": steps(shown.points), "normals": normals}
    if len(shown.faces):
        bits = 16 if len(shown.vertices) <= 65536 else 32
        corners = shown.faces.astype("<u2" if bits == 16 else "<u4")
        content["surface"] = {
            "data": steps(shown.vertices),
            "bits": bits,
            "faces": base64_text(corners.tobytes()),
        }
    return script_text(json.dumps(content, allow_nan=False, separators=(",", ":")))


def _shown(label: str, count: int, of: int) -> tuple[str, str]:
    return f"{label} on this page", f"{count:,} of {of:,}"
