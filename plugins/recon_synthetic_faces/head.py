"""The template head: skin, ears and hair shell as one triangle mesh, in millimetres of the head frame (``surface.py``).

Ears are patches of their own; the hair shell shares the skull's surface and is pushed out of it, or hidden below it,
image by image (see ``hair.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from recon_synthetic_faces.surface import AXIS, Floats, base_surface, gauss, sculpt

SKIN, EAR, HAIR = 0, 1, 2


@dataclass(frozen=True)
class Template:
    """The mean head. V vertices, F faces; seen from outside, faces wind so that normals point along the line of sight.

    Attributes:
        sculpted: (V, 3) the surface as ``surface.py`` describes it, with features at the heights named there.
        points: (V, 3) the mean head.
        faces: (F, 3).
        part, face_part: (V,) and (F,), what a vertex and a face belong to: SKIN, EAR or HAIR.
        chart: (V, 3) coordinates that albedo is written in: x and y of the undisplaced surface, millimetres, and the
            angle around the axis, radians (0 in front, positive to the right). For ears: backwards and down from
            the middle of the ear, and the side.
        outward: (V, 3) the direction that hair grows in.
        gap: (V,) how far the outline of hanging hair lies outside the skin, millimetres.
    """

    sculpted: Floats
    points: Floats
    faces: NDArray[np.int32]
    part: NDArray[np.int32]
    face_part: NDArray[np.int32]
    chart: Floats
    outward: Floats
    gap: Floats


def _grid_faces(rows: int, columns: int) -> NDArray[np.int32]:
    r = np.arange(rows - 1)[:, None]
    c = np.arange(columns)[None]
    n = (c + 1) % columns
    a, b = r * columns + c, r * columns + n
    e, f = a + columns, b + columns
    pairs = (np.stack((a, b, e), -1).reshape(-1, 3), np.stack((b, f, e), -1).reshape(-1, 3))
    return np.concatenate(pairs).astype(np.int32)


def _spaced(knots: list[tuple[float, float]]) -> Floats:
    """Samples whose spacing follows ``knots`` (position, spacing there)."""
    table = np.array(knots)
    fine = np.linspace(table[0, 0], table[-1, 0], 4000)
    count = np.concatenate(([0.0], np.cumsum(np.diff(fine) / np.interp(fine[:-1], table[:, 0], table[:, 1]))))
    return np.asarray(np.interp(np.linspace(0, count[-1], round(count[-1]) + 1), count, fine), dtype=np.float64)


_TOP = [-113.0, -112.2, -110.5, -107.0, -102.0, -95.5, -88.0, -79.0, -70.0, -62.0]


def _skin_grid() -> tuple[Floats, Floats]:
    lower = _spaced(
        [(-55, 7), (-24, 5), (-12, 2.2), (8, 2.2), (16, 4.2), (36, 4.0), (43, 2.3), (56, 2.4), (64, 2.6), (69, 1.7),
         (77, 1.7), (84, 3.0), (96, 4.2), (110, 3.0), (128, 3.6), (150, 10), (200, 20)]
    )  # fmt: skip
    half = np.radians(_spaced([(0, 1.3), (12, 1.35), (30, 1.7), (36, 3.0), (70, 5), (100, 9), (180, 16)]))
    theta = np.concatenate((-half[:0:-1], half[:-1]))  # closed: the column at 180 degrees appears once, as −180
    y = np.concatenate((_TOP, lower))
    grid = np.meshgrid(y, theta, indexing="ij")
    return grid[1], grid[0]


def _hair_grid() -> tuple[Floats, Floats]:
    y = np.concatenate((_TOP, np.arange(-55.0, 61, 6.5), np.arange(68.0, 190, 13.0)))
    half = np.radians(_spaced([(0, 5), (50, 5), (95, 5.5), (130, 10), (180, 16)]))
    theta = np.concatenate((-half[:0:-1], half[:-1]))
    grid = np.meshgrid(y, theta, indexing="ij")
    return grid[1], grid[0]


def _ear() -> tuple[Floats, NDArray[np.int32]]:
    """The right ear (picture right): polar patch with helix, antihelix, bowl and lobe, attached at its front edge."""
    rings, spokes = 9, 22
    radius = np.linspace(0, 1.0, rings)[:, None]
    phi = np.linspace(0, 2 * np.pi, spokes, endpoint=False)[None]  # 0 backwards, a quarter turn down
    outline = 1 + 0.10 * np.cos(2 * (phi + 0.5)) - 0.18 * np.maximum(0, np.sin(phi)) ** 2 * np.abs(np.cos(phi))
    back = radius * outline * np.cos(phi) * 17.5
    down = radius * outline * np.sin(phi) * 31.5
    relief = (
        4.2 * np.exp(-(((radius - 0.86) / 0.11) ** 2)) * (0.55 + 0.45 * np.cos(phi - 3.9 + np.pi) ** 2)
        - 6.0 * gauss(back, down, -3.5, 3.5, 5.5, 8.0)
        + 2.4 * gauss(back, down, 5.0, -3.0, 2.6, 12.0)
        - 2.0 * gauss(back, down, 8.5, -8.0, 2.0, 12.0)
        + 2.5 * gauss(back, down, -12, 4, 3.0, 4.0)
        + 1.5 * gauss(back, down, -4, 25, 6, 5)
        - 4.0 * radius**6
    )
    lean, flare = 0.22, 0.42  # radians: the ear leans back and stands off the head
    d = AXIS + 4 + back * np.cos(lean) - down * np.sin(lean) * 0.9
    y = 17.0 + down * np.cos(lean) + back * np.sin(lean)
    x = 71.0 + (back + 15) * np.sin(flare) + relief
    points = np.stack(np.broadcast_arrays(x, y, d), -1).reshape(-1, 3)
    faces = _grid_faces(rings, spokes)[:, (0, 2, 1)]
    return points, faces


@cache
def template() -> Template:
    """Build the mean head (about 7,000 vertices) once."""
    points: list[Floats] = []
    faces: list[NDArray[np.int32]] = []
    charts: list[Floats] = []
    gaps: list[Floats] = []
    parts: list[int] = []
    start = 0

    def add(p: Floats, f: NDArray[np.int32], chart: Floats, gap: Floats, part: int) -> None:
        nonlocal start
        points.append(p.reshape(-1, 3))
        faces.append((f + start).astype(np.int32))
        charts.append(chart.reshape(-1, 3))
        gaps.append(gap.reshape(-1))
        parts.append(part)
        start += points[-1].shape[0]

    theta, y = _skin_grid()
    base = base_surface(theta, y)
    chart = np.stack((base[..., 0], y, theta), -1)
    add(sculpt(base, theta), _grid_faces(*theta.shape), chart, 0 * y, SKIN)
    ear, ear_faces = _ear()
    for side in (1.0, -1.0):
        placed = ear * np.array([side, 1.0, 1.0])
        # Albedo sees the ear's own plane: backwards as x, so that the rim can be told from the bowl.
        local = np.stack(((ear[:, 2] - AXIS - 4), ear[:, 1] - 17, np.full(len(ear), side)), -1)
        add(placed, ear_faces if side > 0 else ear_faces[:, (0, 2, 1)], local, np.zeros(len(ear)), EAR)
    theta, y = _hair_grid()
    base = base_surface(theta, y)
    envelope = base_surface(theta, np.minimum(y, 0.15 * y + 17))
    reach = np.hypot(envelope[..., 0], envelope[..., 2] - AXIS) - np.hypot(base[..., 0], base[..., 2] - AXIS)
    chart = np.stack((base[..., 0], y, theta), -1)
    add(base, _grid_faces(*theta.shape), chart, np.maximum(reach, 0), HAIR)

    sculpted = np.concatenate(points)
    everything = sculpted * np.array([1.075, 1.0, 1.0])
    # The tables are a long-faced man's; the mean lies between the sexes.
    everything[:, 1] -= 0.05 * np.maximum(everything[:, 1], 0)
    part = np.repeat(np.array(parts, np.int32), [len(p) for p in points])
    outward = everything - np.array([0, 0, AXIS])
    outward[:, 1] = np.minimum(everything[:, 1] + 40, 0)  # hair stands up on the crown only
    outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)
    return Template(
        sculpted=sculpted,
        points=everything,
        faces=np.concatenate(faces),
        part=part,
        face_part=np.repeat(np.array(parts, np.int32), [len(f) for f in faces]),
        chart=np.concatenate(charts),
        outward=outward,
        gap=np.concatenate(gaps),
    )
