"""The template head: its surface, sculpted in millimetres, and skin, ears and hair shell as one triangle mesh."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

AXIS = 95.0
EYE_X = 32.0
MOUTH_Y = 73.0

# Knots (height y, radius from the axis to the front, half width at the axis, radius to the back), face above the jaw.
_FACE = np.array(
    [
        (-113, 3, 3, 3),
        (-112, 17, 17, 17),
        (-109, 33, 32, 34),
        (-104, 48, 46, 50),
        (-97, 61, 57, 63),
        (-88, 72, 65.5, 74),
        (-77, 81, 71.5, 82),
        (-66, 87.5, 75, 87),
        (-52, 92.5, 76.5, 91),
        (-38, 95.5, 76, 92),
        (-25, 97, 74, 92),
        (-12, 97.0, 71.5, 91),
        (0, 95.0, 70, 89),
        (15, 94.5, 69.5, 85),
        (30, 96.5, 69, 80),
        (45, 99.5, 67, 74),
        (58, 101.5, 64.5, 68),
        (70, 102, 60.5, 62),
        (82, 100.5, 56, 58),
        (92, 98.5, 51, 56),
        (104, 98.5, 45, 55),
        (112, 97.0, 41, 55),
        (120, 92, 38, 55),
        (240, 80, 36, 55),
    ]
)
_NECK = np.array(
    [
        (-120, 40, 52, 60),
        (70, 40, 52, 60),
        (100, 41, 50, 58),
        (125, 44, 50, 58),
        (140, 47, 54, 59),
        (152, 51, 64, 61),
        (165, 57, 88, 64),
        (180, 66, 125, 68),
        (240, 95, 170, 75),
    ]
)


def smooth_curve(knots: Floats, at: Floats, sigma: float) -> Floats:
    """Piecewise-linear ``knots`` (n, 2) smoothed by a Gaussian of ``sigma`` (same unit as the abscissa), at ``at``."""
    step = sigma / 4
    grid = np.arange(knots[0, 0] - 4 * sigma, knots[-1, 0] + 4 * sigma, step)
    weights = np.exp(-0.5 * (np.arange(-12, 13) * step / sigma) ** 2)
    values = np.interp(grid, knots[:, 0], knots[:, 1])
    padded = np.pad(values, 12, mode="edge")
    smoothed = np.convolve(padded, weights / weights.sum(), mode="valid")
    return np.asarray(np.interp(at, grid, smoothed), dtype=np.float64)


def smoothstep(low: float | Floats, high: float | Floats, value: Floats) -> Floats:
    """Cubic step from 0 at ``low`` to 1 at ``high``."""
    t = np.clip((value - low) / (np.asarray(high) - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float64)


def gauss(x: Floats, y: Floats, x0: float, y0: float, sx: float, sy: float) -> Floats:
    """Bell of height 1 at (x0, y0)."""
    return np.asarray(np.exp(-0.5 * (((x - x0) / sx) ** 2 + ((y - y0) / sy) ** 2)), dtype=np.float64)


def _radius(theta: Floats, y: Floats, table: Floats, exponent: Floats | float) -> Floats:
    # The dome of the skull is drawn tightly, the face as a fair curve without creases between the knots.
    fair = smoothstep(-95, -65, y)
    front, width, back = (
        (1 - fair) * smooth_curve(table[:, (0, k)], y, 2.0) + fair * smooth_curve(table[:, (0, k)], y, 6.0)
        for k in (1, 2, 3)
    )
    along = np.where(np.cos(theta) > 0, front, back)
    ratio = np.abs(np.cos(theta) / along) ** exponent + np.abs(np.sin(theta) / width) ** exponent
    return np.asarray(ratio ** (-1 / np.asarray(exponent)), dtype=np.float64)


#: Height (mm) of the edge of the jaw and over which height it falls back to the neck, by angle (radians).
_JAW = np.array(
    [(0, 116), (0.22, 115), (0.42, 109.5), (0.75, 99), (1, 93), (1.28, 85), (1.5, 72), (2.2, 60), (3.2, 60)]
)
_JAW_DROP = np.array([(0, 11), (0.5, 14), (0.9, 17), (1.4, 24), (2.0, 50), (3.2, 60)])


def base_surface(theta: Floats, y: Floats) -> Floats:
    """The head without features: (..., 3) points x, y, d for angles and heights of the same shape."""
    flat = 2.0 + 0.35 * smoothstep(20, -30, y) + 0.12 * gauss(0 * y, y, 0, 38, 1, 18)
    face = _radius(theta, y, _FACE, flat)
    neck = _radius(theta, y, _NECK, 2.0)
    turn = np.abs(theta)
    jaw, drop = smooth_curve(_JAW, turn, 0.08), smooth_curve(_JAW_DROP, turn, 0.1)
    mix = smoothstep(jaw, jaw + drop, y)
    radius = face * (1 - mix) + neck * mix
    x = radius * np.sin(theta)
    d = AXIS - radius * np.cos(theta)
    return np.stack((x, y + 0 * x, d), axis=-1)


def _eyes(x: Floats, y: Floats, d: Floats) -> Floats:
    """Depth change (positive backwards) that carves sockets and lays lids over the eyeballs."""
    ax = np.abs(x)
    socket = 6.0 * gauss(ax, y, 19, -1, 8.0, 8.5) + 3.5 * gauss(ax, y, 33, -9, 13, 5.0)
    surface = d + socket + 2.0 * gauss(ax, y, 34, 11, 12, 5.5)
    # Lids wrap a ball of 13.5 mm; the ball itself shows 1.2 mm deeper between their edges.
    across, up = (ax - EYE_X), (y - 0.5)
    ball = 9.5 + 13.5 - np.sqrt(np.maximum(13.5**2 - 0.62 * across**2 - up**2, 1.0))
    near = smoothstep(1.35, 0.75, np.sqrt((across / 17.5) ** 2 + (up / 10.5) ** 2))
    surface = surface * (1 - near) + np.minimum(surface + 1.0, ball) * near
    opening = eye_opening(ax, y, -6.3, 5.0)
    surface = surface + 1.5 * smoothstep(-0.6, 1.4, opening)
    crease = gauss(0 * y, y + 9.2 - 0.018 * across**2, 0, 0, 1, 1.3) * gauss(ax, 0 * y, 32, 0, 10, 1)
    return np.asarray(surface + 1.1 * crease - d, dtype=np.float64)


def eye_opening(ax: Floats, y: Floats, upper: float, lower: float) -> Floats:
    """Distance in millimetres inside the slit between the lids (negative outside); ``ax`` is |x|."""
    s = np.clip((ax - EYE_X) / 16.5, -1.05, 1.05)
    tilt = -1.2 * s
    lid_up = tilt + upper * np.maximum(1 - np.abs(s + 0.12) ** 2.3, -0.2)
    lid_low = tilt + lower * np.maximum(1 - np.abs(s - 0.1) ** 2.2, -0.2)
    return np.asarray(np.minimum(y - lid_up, lid_low - y), dtype=np.float64)


#: Height above the face and half width of the ridge of the nose by height on the face, millimetres.
_NOSE_RISE = np.array(
    [(-16, 0), (-8, 0.5), (0, 3), (10, 6.5), (20, 10), (32, 14), (40, 17.5), (45, 18.5), (49, 13.5), (53, 6), (57, 1),
     (62, 0)]
)  # fmt: skip
_NOSE_HALF = np.array([(-16, 9), (0, 7.5), (15, 9.0), (28, 11.0), (38, 12.0), (46, 10.5), (62, 9)])


def _nose(x: Floats, y: Floats) -> Floats:
    """Displacement (..., 3) of bridge, tip, wings and nostrils."""
    ax = np.abs(x)
    under = y + 0.011 * np.minimum(ax, 25) ** 2  # the underside rises towards the wings
    rise, half = smooth_curve(_NOSE_RISE, under, 1.5), smooth_curve(_NOSE_HALF, y, 2.0)
    ridge = rise * np.exp(-((ax / half) ** 1.9))
    wing = 6.5 * np.exp(-((np.abs(ax - 12.3) / 5.0) ** 2.2) - (np.abs(under - 49.5) / 5.8) ** 2.2)
    groove = 2.0 * gauss(ax, y, 19.5, 48, 2.6, 6) + 1.3 * gauss(ax, y, 8.6, 46.5, 1.8, 4)
    nostril = 4.5 * gauss(ax, y, 6.8, 53.0, 3.0, 2.0)
    out = np.zeros((*x.shape, 3))
    out[..., 2] = -ridge - wing + groove + nostril
    out[..., 0] = np.sign(x) * 2.0 * gauss(ax, y, 13.5, 49, 4, 5)
    out[..., 1] = 2.2 * gauss(ax, y, 0, 50, 7, 4) + 1.0 * gauss(ax, y, 13, 51, 4, 3)
    return out


def _mouth(x: Floats, y: Floats) -> Floats:
    """Depth change of lips, mouth line, philtrum and the folds around them."""
    span = np.maximum(1 - (x / 26.5) ** 2, 0)
    bow = 0.8 * gauss(np.abs(x), 0 * y, 5, 0, 3, 1)
    upper = 4.0 * np.sqrt(span) * np.exp(-((np.abs(y - 68.8 + bow) / 3.9) ** 2.4))
    lower = 5.0 * span * np.exp(-((np.abs(y - 79.4) / 5.0) ** 2.4))
    line = 4.2 * np.sqrt(span) * np.exp(-(((y - MOUTH_Y - 0.002 * x**2) / 1.5) ** 2))
    corner = 2.4 * gauss(np.abs(x), y, 28, 73.5, 4.5, 4.5)
    philtrum = 1.1 * gauss(x, y, 0, 60.5, 2.2, 4) - 0.6 * gauss(np.abs(x), y, 4.5, 61.5, 1.8, 4)
    below = 2.2 * gauss(x, y, 0, 89, 13, 4)
    fold = sum(0.8 * gauss(np.abs(x), y, fx, fy, 3.0, 5.0) for fx, fy in ((23, 54), (27.5, 61), (31, 69)))
    return np.asarray(-upper - lower + line + corner + philtrum + below + fold, dtype=np.float64)


def sculpt(points: Floats, theta: Floats) -> Floats:
    """Add the features to base points (..., 3)."""
    x, y, d = np.moveaxis(points, -1, 0)
    ax = np.abs(x)
    front = smoothstep(1.7, 1.2, np.abs(theta))
    change = _nose(x, y)
    change[..., 2] += _eyes(x, y, d) + _mouth(x, y)
    change[..., 2] -= 2.6 * gauss(ax, y, 24, -15.5, 15, 5.0)  # brow ridge
    change[..., 2] += 1.2 * gauss(ax, y, 0, -11, 7, 6)
    change[..., 2] -= 3.2 * gauss(ax, y, 44, 27, 13, 11) + 1.6 * gauss(ax, y, 30, 36, 10, 10)  # cheek bone and apple
    change[..., 0] += np.sign(x) * (2.4 * gauss(ax, y, 60, 24, 12, 12) - 3.0 * gauss(ax, y, 63, -14, 9, 14))
    change[..., 2] += 2.2 * gauss(ax, y, 42, 66, 9, 14)  # hollow of the cheek
    change[..., 2] -= 3.4 * gauss(x, y, 0, 105, 12, 7.5) + 1.5 * gauss(ax, y, 10, 108, 7, 7)  # chin
    change[..., 0] += np.sign(x) * 4.0 * gauss(ax, y, 50, 82, 9, 12)  # corner of the jaw
    return np.asarray(points + change * front[..., None], dtype=np.float64)


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
