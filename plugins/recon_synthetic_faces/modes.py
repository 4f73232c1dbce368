"""The linear morphable basis, with heads after human anatomy: a face is mean + coefficients · basis."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon_synthetic_faces.head import EYE_X, MOUTH_Y, Floats, gauss, smoothstep, template

#: The mean, then principal components.
COUNT = 49
#: Standard deviations that components reach.
LIMIT = 2.2


@cache
def anatomy() -> NDArray[np.float32]:
    """Displacements (COUNT, V, 3) in millimetres, in the head frame of ``surface.py``."""
    with np.load(Path(__file__).with_name("heads.npz"), allow_pickle=False) as stored:
        return np.asarray(stored["modes"], dtype=np.float32)


Field = Callable[[Floats], Floats]
Triple = tuple[float, float, float]

#: Smooth random modes beside the named ones: symmetric (identity) and antisymmetric (each face's own asymmetry).
RANDOM_SYMMETRIC, RANDOM_ANTISYMMETRIC = 14, 8
RANDOM_SCALE, ASYMMETRY_SCALE = 0.9, 0.4  # millimetres, one standard deviation
_SEED = 20200614  # of the random fields; part of the template, not of a data set


def push(centre: Triple, sigma: Triple, move: Triple, *, sides: str = "both") -> Field:
    """A bell-shaped displacement, mirrored to the left unless it lies on the midline or ``sides`` is ``one``."""
    at, width, by = (np.array(v) for v in (centre, sigma, move))

    def field(points: Floats) -> Floats:
        total = np.exp(-0.5 * (((points - at) / width) ** 2).sum(-1))[:, None] * by
        if sides == "both" and centre[0] != 0:
            mirror = np.array([-1.0, 1.0, 1.0])
            total = total + np.exp(-0.5 * (((points - at * mirror) / width) ** 2).sum(-1))[:, None] * (by * mirror)
        return np.asarray(total, dtype=np.float64)

    return field


def both(*parts: Field) -> Field:
    """The sum of fields."""
    return lambda points: np.asarray(sum(part(points) for part in parts), dtype=np.float64)


def axis(index: int, amount: Callable[[Floats, Floats, Floats], Floats]) -> Field:
    """Displacement along one axis as a function of x, y, d."""

    def field(points: Floats) -> Floats:
        out = np.zeros_like(points)
        out[:, index] = amount(points[:, 0], points[:, 1], points[:, 2])
        return out

    return field


def _eye(f: Callable[[Floats, Floats], Floats], index: int, sx: float = 17, sy: float = 12) -> Field:
    """A field around both eyes: ``f`` gets coordinates relative to the eye, x outwards."""

    def amount(x: Floats, y: Floats, d: Floats) -> Floats:
        side = np.sign(x) if index == 0 else 1.0
        near = gauss(np.abs(x), y, EYE_X, 0, sx, sy) * smoothstep(60, 40, d)
        return np.asarray(side * near * f(np.abs(x) - EYE_X, y), dtype=np.float64)

    return axis(index, amount)


IDENTITY: tuple[tuple[str, Field], ...] = (
    ("head width", axis(0, lambda x, y, d: 0.040 * x)),
    ("head depth", axis(2, lambda x, y, d: 0.045 * (d - 95))),
    ("lower face length", axis(1, lambda x, y, d: 0.045 * np.clip(y, 0, 125))),
    ("lower face taper", axis(0, lambda x, y, d: 0.075 * x * smoothstep(15, 100, y))),
    ("upper head height", axis(1, lambda x, y, d: 0.06 * np.clip(y + 10, -120, 0))),
    ("upper head width", axis(0, lambda x, y, d: 0.035 * x * smoothstep(-10, -70, y))),
    ("jaw corner", push((52, 88, 75), (22, 24, 38), (4.2, 0, 0))),
    ("jaw line height", push((50, 92, 70), (28, 20, 40), (0, 5.0, 0))),
    ("chin width", push((20, 107, 4), (13, 12, 22), (4.0, 0, -1.0))),
    ("chin forward", push((0, 107, 0), (20, 14, 30), (0, 0, -4.2))),
    ("chin height", push((0, 114, 4), (26, 17, 45), (0, 4.2, 0))),
    ("cheek bones", push((60, 27, 42), (20, 16, 30), (3.4, 0, -0.8))),
    ("front cheeks", push((36, 32, 8), (14, 12, 22), (0.8, 0, -2.6))),
    ("cheek fullness", push((43, 60, 25), (17, 20, 28), (3.4, 0, -3.0))),
    ("brow ridge", push((22, -16, 0), (19, 7, 20), (0, 0, -2.3))),
    ("brow height", push((28, -16, 4), (20, 8, 22), (0, 2.4, 0))),
    ("forehead slope", push((0, -65, 12), (55, 26, 60), (0, 0, 5.0))),
    ("forehead bulge", push((0, -38, 0), (34, 16, 40), (0, 0, -2.8))),
    ("temples", push((64, -14, 45), (14, 16, 28), (2.6, 0, 0))),
    ("eye spacing", push((33, 0, 12), (17, 14, 26), (2.0, 0, 0))),
    ("eye height", push((33, 0, 12), (24, 13, 26), (0, 2.0, 0))),
    ("eye depth", push((32, -1, 10), (13, 11, 20), (0, 0, 2.0))),
    ("eye width", _eye(lambda a, y: 0.075 * a, 0)),
    ("eye opening", _eye(lambda a, y: 0.15 * y, 1, sy=8)),
    ("eye slant", _eye(lambda a, y: -0.06 * a, 1)),
    ("upper lid fullness", push((36, -9, 12), (13, 4.0, 16), (0, 1.6, -1.6))),
    ("eye bags", push((31, 11, 10), (11, 4.0, 16), (0, 0.4, -1.3))),
    ("nose length", push((0, 44, -15), (17, 17, 26), (0, 3.2, 0))),
    ("nose projection", push((0, 46, -20), (13, 13, 24), (0, 0, -3.6))),
    ("nose width", push((14.5, 49, -3), (9, 9, 16), (2.3, 0, 0))),
    ("nose tip width", push((7, 45, -20), (6, 7, 14), (1.6, 0, 0))),
    ("bridge height", push((0, 12, -4), (9, 16, 18), (0, 0, -2.8))),
    ("bridge width", push((7, 18, -5), (6, 18, 14), (1.4, 0, 0))),
    ("nose tip turn", push((0, 46, -23), (9, 8, 14), (0, -3.0, -0.6))),
    ("nose hump", push((0, 22, -12), (7, 8, 16), (0, 0, -2.2))),
    ("mouth width", push((24, MOUTH_Y, 3), (13, 11, 20), (2.6, 0, 0))),
    ("mouth height", push((0, MOUTH_Y, -4), (32, 13, 34), (0, 2.2, 0))),
    ("upper lip", push((0, 67.5, -8), (18, 4.0, 20), (0, -1.5, -1.3))),
    ("lower lip", push((0, 80.5, -7), (16, 4.6, 20), (0, 1.7, -1.5))),
    ("mouth forward", push((0, 72, -6), (28, 19, 32), (0, 0, -3.0))),
    ("chin groove", push((0, 91, -2), (16, 5, 20), (0, 0, 1.5))),
    ("fold beside the mouth", both(
        *(push((px, py, 2), (4.5, 6, 14), (0, 0, 1.0)) for px, py in ((21, 52), (26, 59), (31, 67), (34, 76)))
    )),
    ("under the chin", push((0, 126, 22), (36, 13, 34), (0, 4.0, -3.5))),
    ("neck width", axis(0, lambda x, y, d: 0.09 * x * smoothstep(90, 125, y))),
    ("ears off", push((80, 17, 105), (9, 32, 24), (4.0, 0, 0))),
    ("ear size", axis(1, lambda x, y, d: 0.11 * (y - 17) * smoothstep(70, 76, np.abs(x)) * smoothstep(80, 88, d))),
)  # fmt: skip

ASYMMETRY: tuple[tuple[str, Field], ...] = (
    ("bent nose", push((0, 36, -15), (10, 16, 24), (0.8, 0, 0), sides="one")),
    ("shifted chin", push((0, 108, 0), (30, 20, 50), (1.1, 0, 0), sides="one")),
    ("higher eye", axis(1, lambda x, y, d: 0.6 * np.tanh(x / 18) * np.exp(-0.5 * ((y + 4) / 16) ** 2))),
    ("slanted mouth", axis(1, lambda x, y, d: 0.025 * x * gauss(x, y, 0, MOUTH_Y, 26, 12))),
    ("fuller side", axis(0, lambda x, y, d: 0.012 * np.abs(x) * smoothstep(0, 50, y))),
)  # fmt: skip


def _corner(sides: float) -> Field:
    """Pull one corner of the mouth (sides = ±1) up and out, with its cheek."""
    return both(
        push((sides * 26, 74, 3), (11, 9, 18), (sides * 6.0, -7.0, 3.6), sides="one"),
        push((sides * 38, 36, 8), (13, 10, 20), (sides * 1.0, -2.6, -4.2), sides="one"),
        push((sides * 29, 60, 2), (5, 8, 16), (0, 0, 1.8), sides="one"),
        push((sides * 34, 7, 12), (14, 3.0, 16), (0, -1.0, -0.5), sides="one"),
    )


def _part_lips(x: Floats, y: Floats) -> Floats:
    """−1 on the upper lip to +1 on the lower, fading out towards the corners of the mouth and the chin."""
    bend = 1 - np.clip(np.abs(x) / 27.0, 0, 1) ** 2.5
    side = smoothstep(-1.3, 1.3, y - MOUTH_Y - 0.002 * x**2)
    up, down = 0.28 * smoothstep(52, 71, y), smoothstep(128, 92, y)
    return np.asarray(bend * (side * down - (1 - side) * up), dtype=np.float64)


EXPRESSION: tuple[tuple[str, Field], ...] = (
    ("right corner up", _corner(1.0)),
    ("left corner up", _corner(-1.0)),
    ("lips apart", both(
        axis(1, lambda x, y, d: 8.5 * _part_lips(x, y) * smoothstep(60, 30, d)),
        axis(2, lambda x, y, d: 6.0 * gauss(x, y, 0, MOUTH_Y, 17, 1.5) * smoothstep(60, 30, d)),
    )),
    ("jaw drop", axis(
        1, lambda x, y, d: 8.0 * smoothstep(MOUTH_Y - 1, 110, y) * smoothstep(150, 108, y) * smoothstep(80, 30, d)
    )),
    ("pursed", push((24, MOUTH_Y, 3), (12, 10, 18), (-4.5, 0, -3.0))),
    ("right brow up", push((28, -18, 4), (17, 8, 20), (0, -4.0, 0), sides="one")),
    ("left brow up", push((-28, -18, 4), (17, 8, 20), (0, -4.0, 0), sides="one")),
    ("frown", both(push((12, -15, -2), (9, 7, 14), (-2.4, 3.2, -1.0)), push((0, -14, -4), (3, 7, 14), (0, 0, 1.4)))),
    ("lids down", push((32, -5.5, 10), (15, 3.2, 16), (0, 3.2, 0))),
)  # fmt: skip


def _random_fields(count: int, parity: float, scale: float, seed: int) -> list[Field]:
    """Smooth vector fields of 60 random bells each, symmetric (parity 1) or antisymmetric (−1) about the midline."""
    rng = np.random.Generator(np.random.Philox(seed))

    def make() -> Field:
        centres = np.stack((rng.uniform(0, 75, 60), rng.uniform(-70, 125, 60), rng.uniform(-10, 110, 60)), -1)
        moves = rng.standard_normal((60, 3)) * np.array([0.6, 0.6, 1.0])

        def field(points: Floats) -> Floats:
            mirror = np.array([-1.0, 1.0, 1.0])
            here, there = (
                np.exp(-0.5 * (((points[:, None] - at) / (17, 15, 24)) ** 2).sum(-1))
                for at in (centres, centres * mirror)
            )
            return np.asarray(scale / 2.2 * (here @ moves + parity * there @ (moves * mirror)), dtype=np.float64)

        return field

    return [make() for _ in range(count)]


_ENDS = (
    len(IDENTITY) + RANDOM_SYMMETRIC,
    len(IDENTITY) + RANDOM_SYMMETRIC + len(ASYMMETRY) + RANDOM_ANTISYMMETRIC,
    len(IDENTITY) + RANDOM_SYMMETRIC + len(ASYMMETRY) + RANDOM_ANTISYMMETRIC + len(EXPRESSION),
)
#: Where each group lies among the coefficients, and how many there are.
IDENTITY_MODES = slice(0, _ENDS[0])
ASYMMETRY_MODES = slice(_ENDS[0], _ENDS[1])
EXPRESSION_MODES = slice(_ENDS[1], _ENDS[2])
ANATOMY_MODES = slice(_ENDS[2], _ENDS[2] + COUNT)
MODES = ANATOMY_MODES.stop


@cache
def basis() -> NDArray[np.float32]:
    """Displacements (MODES, V, 3) in millimetres, evaluated on the template once (about a second)."""
    points = template().sculpted
    fields = [field for _, field in IDENTITY]
    fields += _random_fields(RANDOM_SYMMETRIC, 1.0, RANDOM_SCALE, _SEED)
    fields += [field for _, field in ASYMMETRY]
    fields += _random_fields(RANDOM_ANTISYMMETRIC, -1.0, ASYMMETRY_SCALE, _SEED + 1)
    fields += [field for _, field in EXPRESSION]
    procedural = np.stack([field(points) for field in fields]).astype(np.float32)
    return np.concatenate((procedural, anatomy()))
