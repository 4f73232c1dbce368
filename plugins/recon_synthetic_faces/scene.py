"""What is in a picture: who, which expression, pose, light and background, drawn from documented ranges.

A scene is one record of :data:`SCENE`. Identity comes from the seed (seed, split, identity), everything that changes
between pictures of a person from (seed, split, identity, picture): no picture depends on which others are made.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator, Philox, SeedSequence
from numpy.typing import NDArray

from recon_synthetic_faces.colours import Patches, draw_patches
from recon_synthetic_faces.dataset import PATCHES
from recon_synthetic_faces.modes import ANATOMY_MODES, ASYMMETRY_MODES, EXPRESSION_MODES, IDENTITY_MODES, LIMIT, MODES
from recon_synthetic_faces.photographic import draw_photograph

SPLITS = ("train", "val", "test")
SHAPES = 9  # loose shapes in a background

_COLOUR = ("f8", (3,))
#: One picture. Lengths are millimetres on the template, angles radians, colours RGB in [0, 1], unless said otherwise.
SCENE = np.dtype(
    [
        ("coefficients", "f4", (MODES,)),
        ("head_size", "f8"), ("eye_line", "f8"),  # scale of the head; height of the eyes in the canonical view, units
        ("pose", "f8", (6,)), ("light", "f8", (5,)),
        ("seed", "u4"),  # of textures that belong to the person
        # hair: cover 0 (bald) to 1, hairline, volume, fringe, hanging curtain, parting, waves
        ("hair", "f8"), ("hairline", "f8"), ("recession", "f8"), ("top", "f8"), ("sides", "f8"), ("fringe", "f8"),
        ("sweep", "f8"), ("curtain", "f8"), ("curtain_right", "f8"), ("curtain_left", "f8"), ("length", "f8"),
        ("part", "f8"), ("part_depth", "f8"), ("wave", "f8"), ("wave_size", "f8"),
        ("hair_colour", *_COLOUR), ("strands", "f8"), ("roots", "f8"),
        ("skin", *_COLOUR), ("blush", "f8"), ("mottle", "f8"), ("freckles", "f8"), ("shade_eyes", "f8"),
        ("folds", "f8"), ("lips", *_COLOUR), ("lip_strength", "f8"), ("iris", *_COLOUR), ("gaze", "f8", (2,)),
        ("lid", "f8"), ("liner", "f8"), ("shadow", *_COLOUR), ("shadow_strength", "f8"), ("catchlight", "f8", (2,)),
        ("teeth", "f8"), ("brow", "f8"), ("brow_width", "f8"), ("brow_arch", "f8"), ("brow_inner", "f8"),
        ("stubble", "f8"), ("moustache", "f8"), ("beard", "f8"), ("beard_line", "f8"),
        ("mole", "f8", (2, 4)),  # x, y, radius, strength
        ("scar", "f8", (5,)),  # x, y, direction, half length, strength
        ("glasses", "f8"), ("frame", *_COLOUR),
        ("clothes", "f8", (2, 3)), ("collar", "f8"), ("collar_stripe", "f8"),
        # painted onto the face: how many; middle (along the arc around the head, down), half sides, direction
        ("patches", "i8"), ("patch", "f8", (PATCHES, 5)), ("patch_colour", "f8", (PATCHES, 3)),
        ("patch_opacity", "f8", (PATCHES,)),
        # background
        ("ground", "f8", (4, 3)), ("ground_kind", "i8"), ("ground_angle", "f8"), ("ground_scale", "f8"),
        ("ground_soft", "f8"), ("ground_noise", "f8"), ("ground_seed", "u4"),
        ("shape", "f8", (SHAPES, 6)), ("shape_colour", "f8", (SHAPES, 3)), ("shapes", "i8"),
        ("photo", "i8"), ("photo_box", "f8", (4,)),  # which photograph, and u0, v0, width, height in it, in [0, 1]
        # light and camera, see photographic.py; cast shadow: strength, direction, offset, softness, waviness
        ("specular", "f8"), ("gloss", "f8"), ("cast", "f8", (5,)), ("blur", "f8"), ("gain", *_COLOUR), ("gamma", "f8"),
        ("contrast", "f8"), ("saturation", "f8"), ("vignette", "f8"), ("grain", "f8"), ("grain_seed", "u4"),
        ("jpeg", "i8"),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Ranges:
    """Ranges of pose, framing and light.

    Yaw is normal with ``yaw_spread``, for one picture in four uniform; pitch and roll are normal; all are cut off at
    their limits, in degrees. The head is moved so that a share ``centring`` of what its turn carries the face away from
    the middle of the picture is taken back, as in a detector's crop, give or take ``translation`` in units of the
    object's distance. ``size`` scales the head. Light travels along normalise(x, y, 1) with x within ±``light_x`` and
    y (down is positive) within ``light_y``, and shading is ambient + diffuse · max(0, n·l).
    """

    yaw: float = 45.0
    yaw_spread: float = 17.0
    pitch: float = 20.0
    pitch_spread: float = 8.0
    roll: float = 20.0
    roll_spread: float = 6.0
    translation: float = 0.008
    centring: float = 0.9
    size: tuple[float, float] = (0.90, 1.03)
    ambient: tuple[float, float] = (0.35, 0.65)
    diffuse: tuple[float, float] = (0.5, 0.85)
    light_x: float = 1.0
    light_y: tuple[float, float] = (-0.35, 1.0)


#: How much of the procedural modes is left in a head that follows human anatomy.
_OWN_SHARE = 0.35


def _cut(rng: Generator, spread: float, limit: float) -> float:
    """A normal variate with standard deviation ``spread``, drawn again until it lies within ±``limit``."""
    if spread <= 0 or limit <= 0:
        return 0.0
    spread = min(spread, 2 * limit)  # keeps the loop short
    while True:
        value = spread * float(rng.standard_normal())
        if abs(value) <= limit:
            return value


def _colour(rng: Generator, saturation: tuple[float, float], value: tuple[float, float]) -> tuple[float, float, float]:
    return colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))


_SKIN = np.array(
    [(0.96, 0.78, 0.69), (0.93, 0.72, 0.60), (0.87, 0.66, 0.53), (0.80, 0.58, 0.44), (0.70, 0.48, 0.34),
     (0.58, 0.38, 0.26), (0.45, 0.29, 0.20), (0.34, 0.22, 0.16)]
)  # fmt: skip
_HAIR = np.array(
    [(0.05, 0.04, 0.04), (0.10, 0.07, 0.05), (0.19, 0.12, 0.07), (0.30, 0.19, 0.11), (0.45, 0.30, 0.16),
     (0.66, 0.49, 0.27), (0.80, 0.66, 0.42), (0.48, 0.19, 0.08), (0.55, 0.53, 0.51), (0.82, 0.81, 0.79)]
)  # fmt: skip
_IRIS = np.array(
    [(0.18, 0.10, 0.05), (0.28, 0.16, 0.07), (0.36, 0.27, 0.12), (0.30, 0.38, 0.25), (0.32, 0.45, 0.58),
     (0.45, 0.52, 0.56)]
)  # fmt: skip


def _person(s: NDArray[np.void], rng: Generator) -> None:
    k = s["coefficients"]
    for n in range(IDENTITY_MODES.start, IDENTITY_MODES.stop):
        k[n] = 0.85 * _cut(rng, 1.0, 2.0)
    for n in range(ASYMMETRY_MODES.start, ASYMMETRY_MODES.stop):
        k[n] = _cut(rng, 1.0, 2.0)
    s["seed"] = rng.integers(1, 2**31)
    tone = float(np.clip(rng.beta(1.0, 2.8), 0, 1)) * (len(_SKIN) - 1.001)
    low = int(tone)
    skin = _SKIN[low] * (1 - tone + low) + _SKIN[low + 1] * (tone - low)
    tint = np.array([rng.uniform(-0.03, 0.04), rng.uniform(-0.03, 0.03), rng.uniform(-0.10, 0.02)])
    s["skin"] = np.clip(skin * (1 + tint), 0, 1)
    dark = tone / (len(_SKIN) - 1)
    female = rng.random() < 0.5
    old = max(0.0, float(rng.uniform(-0.6, 1.0)))
    if rng.random() < 0.04 + 0.4 * old * (old > 0.5):
        hair = _HAIR[8 + int(rng.integers(2))] * rng.uniform(0.8, 1.05)
    elif dark > 0.45:
        hair = _HAIR[int(rng.integers(3))]
    else:
        hair = _HAIR[int(rng.integers(8))]
    s["hair_colour"] = np.clip(hair * (1 + rng.uniform(-0.15, 0.25)), 0, 1)
    s["strands"], s["roots"] = rng.uniform(0.15, 0.5), rng.uniform(0, 0.4) * (rng.random() < 0.4)
    _hair(s, rng, female, old)
    s["blush"], s["mottle"] = rng.uniform(0, 1), rng.uniform(0.3, 1)
    s["freckles"] = rng.uniform(0.3, 1) * (rng.random() < 0.12) * (dark < 0.4)
    s["shade_eyes"], s["folds"] = rng.uniform(0.2, 0.9), old
    lip = skin * np.array([0.86, 0.62, 0.62])
    s["lip_strength"] = rng.uniform(0.4, 0.9)
    if female and rng.random() < 0.6:
        lip = np.array(colorsys.hsv_to_rgb(rng.uniform(0.93, 1.02) % 1, rng.uniform(0.45, 0.85), rng.uniform(0.4, 0.8)))
        s["lip_strength"] = rng.uniform(0.6, 1)
    s["lips"] = lip
    s["iris"] = _IRIS[int(rng.integers(2 if dark > 0.5 else 6))] * rng.uniform(0.65, 1.0)
    s["liner"] = rng.uniform(0.55, 1.0) if female else rng.uniform(0.3, 0.7)
    s["shadow"] = _colour(rng, (0.1, 0.6), (0.2, 0.6))
    s["shadow_strength"] = rng.uniform(0.1, 0.6) * (female and rng.random() < 0.5)
    s["teeth"] = rng.uniform(0.78, 0.95)
    s["brow"] = rng.uniform(0.5, 0.95)
    s["brow_width"] = rng.uniform(1.5, 2.6) if female else rng.uniform(2.2, 3.8)
    s["brow_arch"], s["brow_inner"] = rng.uniform(0.0, 3.5), rng.uniform(9, 14)
    if not female:
        style = rng.random()
        s["stubble"] = rng.uniform(0, 0.4) * (0.4 + 0.6 * (1 - hair.mean()))
        if style < 0.22:
            s["beard"], s["moustache"] = rng.uniform(0.5, 0.95), rng.uniform(0.4, 0.9)
        elif style < 0.32:
            s["moustache"] = rng.uniform(0.5, 0.95)
    s["beard_line"] = rng.uniform(-8, 8)
    for n in range(2):
        on = rng.random() < 0.35
        s["mole"][n] = (rng.uniform(-55, 55), rng.uniform(-40, 105), rng.uniform(0.9, 2.2), on * rng.uniform(0.4, 0.9))
    s["scar"] = (rng.uniform(-45, 45), rng.uniform(-45, 95), rng.uniform(0, math.pi), rng.uniform(5, 13), 0.0)
    s["scar"][4] = rng.uniform(0.4, 0.9) * (rng.random() < 0.1)
    s["glasses"] = rng.uniform(0.6, 1.0) * (rng.random() < 0.09)
    s["frame"] = _colour(rng, (0.0, 0.6), (0.05, 0.4))


def _hair(s: NDArray[np.void], rng: Generator, female: bool, old: float) -> None:
    s["hair"] = 1.0
    s["hairline"] = rng.uniform(-7, 9)
    s["recession"] = rng.uniform(0, 4) if female else rng.uniform(0, 10) + 16 * old * rng.random()
    s["top"], s["sides"] = rng.uniform(8, 24), rng.uniform(4, 11)
    s["part"] = rng.uniform(-0.75, 0.75)
    s["part_depth"] = rng.uniform(0, 1) * (rng.random() < 0.7)
    s["wave"], s["wave_size"] = rng.uniform(0, 1) ** 2 * 3.5, rng.uniform(0.6, 1.4)
    s["sweep"] = rng.uniform(-1, 1)
    kind = rng.random()
    if female:
        s["sides"] = rng.uniform(6, 18)
        if kind < 0.82:
            s["curtain"] = 1.0
            s["curtain_right"] = rng.uniform(0.95, 1.45)
            s["curtain_left"] = s["curtain_right"] + rng.uniform(-0.14, 0.14)
            s["length"] = rng.uniform(75, 115) if kind < 0.3 else 260.0
        if rng.random() < 0.3:
            s["fringe"] = rng.uniform(8, 34)
    else:
        if kind < 0.12:
            s["hair"] = 0.0
        elif kind < 0.30:
            s["top"], s["sides"] = rng.uniform(1.5, 4), rng.uniform(0.8, 2)
        elif kind > 0.92:
            s["curtain"], s["length"] = 1.0, rng.uniform(75, 150)
            s["curtain_right"] = rng.uniform(1.1, 1.5)
            s["curtain_left"] = s["curtain_right"] + rng.uniform(-0.12, 0.12)
        if rng.random() < 0.2:
            s["fringe"] = rng.uniform(5, 25)


def _picture(s: NDArray[np.void], rng: Generator, ranges: Ranges, photographs: int) -> None:
    e = s["coefficients"][EXPRESSION_MODES]
    smile = max(0.0, float(rng.normal(0.65, 0.5)))
    e[0] = min(1.3, max(-0.35, smile + float(rng.normal(0, 0.12))))
    e[1] = min(1.3, max(-0.35, smile + float(rng.normal(0, 0.12))))
    e[2] = rng.uniform(0.2, 1.0) if rng.random() < 0.15 + 0.6 * min(smile, 1) else rng.uniform(-0.02, 0.08)
    e[3] = rng.uniform(0.2, 1.3) if rng.random() < 0.12 else 0.0
    e[4] = rng.uniform(0, 1) if smile < 0.1 and rng.random() < 0.25 else 0.0
    brows = float(rng.normal(0, 0.45))
    e[5], e[6] = brows + float(rng.normal(0, 0.18)), brows + float(rng.normal(0, 0.18))
    e[7] = max(0.0, float(rng.normal(-0.15, 0.4)))
    e[8] = rng.uniform(-0.25, 0.45) + 0.2 * min(smile, 1)
    s["lid"] = 1.2 * max(0.0, float(e[8]))
    s["gaze"] = (_cut(rng, 1.3, 3.2), _cut(rng, 0.6, 1.5))
    s["catchlight"] = (rng.uniform(-2.4, 2.4), rng.uniform(-2.6, -0.6))

    yaw = rng.uniform(-ranges.yaw, ranges.yaw) if rng.random() < 0.25 else _cut(rng, ranges.yaw_spread, ranges.yaw)
    pitch, roll = _cut(rng, ranges.pitch_spread, ranges.pitch), _cut(rng, ranges.roll_spread, ranges.roll)
    x, y, z = math.radians(pitch), math.radians(yaw), math.radians(roll)
    s["head_size"], s["eye_line"] = rng.uniform(*ranges.size), rng.uniform(-0.037, -0.027)
    # The middle of the face lies about 0.05 before the centre of rotation; R = Rz Ry Rx carries it sideways.
    ahead = np.array([-0.05 * math.sin(y) * math.cos(x), 0.05 * math.sin(x)])
    ahead = np.array([[math.cos(z), -math.sin(z)], [math.sin(z), math.cos(z)]]) @ ahead
    wander = ranges.translation
    s["pose"] = (
        x, y, z,
        -ranges.centring * ahead[0] + rng.uniform(-wander, wander),
        -ranges.centring * ahead[1] + rng.uniform(-wander, wander),
        0.0,
    )  # fmt: skip
    lx, ly = rng.uniform(-ranges.light_x, ranges.light_x), rng.uniform(*ranges.light_y)
    length = math.sqrt(lx * lx + ly * ly + 1)
    s["light"] = (rng.uniform(*ranges.ambient), rng.uniform(*ranges.diffuse), lx / length, ly / length, 1 / length)
    s["clothes"] = (_colour(rng, (0, 0.9), (0.05, 0.95)), _colour(rng, (0, 0.9), (0.05, 0.95)))
    s["collar"] = rng.uniform(128, 150)
    s["collar_stripe"] = rng.uniform(3, 9) * (rng.random() < 0.3)
    _background(s, rng, photographs)


def _background(s: NDArray[np.void], rng: Generator, photographs: int) -> None:
    vivid = rng.random() < 0.75
    for n in range(4):
        s["ground"][n] = _colour(rng, (0.35, 1.0) if vivid else (0.0, 0.35), (0.1, 1.0))
    s["ground_kind"] = rng.integers(5)
    s["ground_angle"] = rng.uniform(0, math.pi)
    s["ground_scale"], s["ground_soft"] = 2 ** rng.uniform(0.3, 3.0), rng.uniform(0.02, 1.0)
    s["ground_noise"], s["ground_seed"] = rng.uniform(0, 0.5), rng.integers(1, 2**31)
    s["shapes"] = rng.integers(2, SHAPES + 1)
    for n in range(SHAPES):  # centre u, v in [−1, 1], half sides, angle, softness
        s["shape"][n] = (
            rng.uniform(-1.1, 1.1), rng.uniform(-1.1, 1.1), rng.uniform(0.08, 0.6), rng.uniform(0.08, 0.6),
            rng.uniform(0, math.pi), rng.uniform(0.02, 0.3),
        )  # fmt: skip
        s["shape_colour"][n] = _colour(rng, (0.2, 1.0) if vivid else (0.0, 0.5), (0.05, 1.0))
    s["photo"] = rng.integers(photographs) if photographs else -1
    side = rng.uniform(0.5, 1.0)
    s["photo_box"] = (rng.uniform(0, 1 - side), rng.uniform(0, 1 - side), side, side)


def _anatomy(s: NDArray[np.void], rng: Generator, share: float) -> None:
    if rng.random() >= share:
        return
    k = s["coefficients"]
    k[IDENTITY_MODES] *= _OWN_SHARE
    k[ANATOMY_MODES.start] = 1.0
    for n in range(ANATOMY_MODES.start + 1, ANATOMY_MODES.stop):
        k[n] = _cut(rng, 1.0, LIMIT)


def draw_scenes(
    indices: NDArray[np.integer],
    split: str,
    seed: int,
    ranges: Ranges,
    *,
    images_per_identity: int = 1,
    photographs: int = 0,
    patches: Patches | None = None,
    photographic: float = 0.0,
    anatomy: float = 0.0,
) -> NDArray[np.void]:
    """The scenes of the pictures ``indices`` (N,) of a split: (N,) records of :data:`SCENE`.

    Args:
        indices: positions in the split, 0 or more; picture n shows person n // images_per_identity.
        split: one of :data:`SPLITS`; each has people of its own.
        seed: 0 or more.
        photographs: how many background photographs there are; 0 draws procedural backgrounds.
        patches: what to paint onto each face; nothing if None. All else is drawn as without.
        photographic: how much of what separates photographs from renderings, 0 to 1.
        anatomy: share of people whose heads follow human anatomy (``anatomy.py``), 0 to 1.
    """
    scenes = np.zeros(len(indices), SCENE)
    part = SPLITS.index(split)
    for row, index in enumerate(indices):
        person, picture = divmod(int(index), images_per_identity)
        scene = scenes[row]
        _person(scene, Generator(Philox(SeedSequence((seed, part, person)))))
        _picture(scene, Generator(Philox(SeedSequence((seed, part, person, picture + 1)))), ranges, photographs)
        if patches is not None:
            # A stream of random numbers of their own, so that no other draw changes.
            rng = Generator(Philox(SeedSequence((seed, part, person, picture + 1), spawn_key=(1,))))
            draw_patches(scene, rng, patches)
        if photographic > 0:
            rng = Generator(Philox(SeedSequence((seed, part, person, picture + 1), spawn_key=(2,))))
            draw_photograph(scene, rng, photographic)
        if anatomy > 0:
            _anatomy(scene, Generator(Philox(SeedSequence((seed, part, person), spawn_key=(3,)))), anatomy)
    return scenes
