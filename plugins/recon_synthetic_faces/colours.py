"""The colours of a scene: skin, hair, patches and background, from value noise. Numba kernels for scalars."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from numba import njit, uint32
from numpy.random import Generator
from numpy.typing import NDArray

from recon_synthetic_faces.head import EYE_X, MOUTH_Y, smooth_curve
from recon_synthetic_faces.modes import EXPRESSION, EXPRESSION_MODES


@njit(inline="always")
def hashed(ix, iy, seed):  # type: ignore[no-untyped-def]
    """A number in [0, 1) for integer coordinates and a seed (integer hash after Wellons, lowbias32)."""
    h = uint32(ix) * uint32(0x9E3779B1) + uint32(iy) * uint32(0x85EBCA77) + uint32(seed)
    h ^= h >> uint32(16)
    h = uint32(h * uint32(0x7FEB352D))
    h ^= h >> uint32(15)
    h = uint32(h * uint32(0x846CA68B))
    h ^= h >> uint32(16)
    return float(h) * (1.0 / 4294967296.0)


@njit(nogil=True)
def noise(x, y, seed):  # type: ignore[no-untyped-def]
    """Smooth noise in [−1, 1] with features of size 1."""
    fx, fy = int(x // 1), int(y // 1)
    tx, ty = x - fx, y - fy
    tx = tx * tx * (3 - 2 * tx)
    ty = ty * ty * (3 - 2 * ty)
    a, b = hashed(fx, fy, seed), hashed(fx + 1, fy, seed)
    c, d = hashed(fx, fy + 1, seed), hashed(fx + 1, fy + 1, seed)
    top = a + (b - a) * tx
    return 2 * (top + (c + (d - c) * tx - top) * ty) - 1


@njit(inline="always")
def step(low, high, value):  # type: ignore[no-untyped-def]
    """Cubic step from 0 at ``low`` to 1 at ``high``."""
    t = min(max((value - low) / (high - low), 0.0), 1.0)
    return t * t * (3 - 2 * t)


@njit(inline="always")
def bell(x, y, x0, y0, sx, sy):  # type: ignore[no-untyped-def]
    """A bell of height 1 at (x0, y0) with finite support (1 − r²/9)³ ≈ exp(−r²/3): no exponential needed."""
    r = 1 - (((x - x0) / sx) ** 2 + ((y - y0) / sy) ** 2) / 6.0
    return r * r * r if r > 0 else 0.0


#: Height of the hairline (mm) every 3 degrees around the head: forehead, temple, sideburn, over the ear, nape.
HAIRLINE = smooth_curve(
    np.array(
        [(0, -57), (20, -57), (36, -52), (46, -42), (54, -22), (60, 0), (66, 16), (74, 18), (79, 2), (84, -18),
         (100, -18), (107, 10), (118, 50), (135, 66), (180, 70)], dtype=np.float64,
    ),
    np.arange(0, 183, 3.0),
    2.5,
)  # fmt: skip


@njit(nogil=True)
def hairline(theta, p):  # type: ignore[no-untyped-def]
    """Height of the edge of the hair on the skin at an angle (radians), without fringe or hanging hair."""
    turn = abs(theta) * (180 / np.pi / 3)
    low = min(int(turn), 59)
    height = HAIRLINE[low] + (HAIRLINE[low + 1] - HAIRLINE[low]) * (turn - low)
    front = bell(theta, 0.0, 0.0, 0.0, 0.7, 1.0)
    temple = bell(abs(theta), 0.0, 0.55, 0.0, 0.22, 1.0)
    return height + p.hairline * front - p.recession * (0.35 * front + temple)


@njit(nogil=True)
def offset(theta, y, gap, p):  # type: ignore[no-untyped-def]
    """Offset (mm) along the outward direction, negative below the skin; ``gap`` leads out to the hanging outline."""
    turn = abs(theta)
    # The shell knows neither eye sockets nor chin, so it hides deeper there.
    hidden = 7.0 + 13.0 * step(-40.0, -15.0, y) * step(1.3, 0.9, turn) + 16.0 * step(60.0, 95.0, y)
    if p.hair == 0.0:
        return -hidden
    line = hairline(theta, p)
    if p.fringe > 0.0:
        side = min(max(theta / 0.8, -1.0), 1.0) * p.sweep
        line += p.fringe * (1 + 0.7 * side) * step(1.0, 0.7, turn)
    # Strands end unevenly.
    line += (2.0 + 0.22 * p.fringe) * noise(theta * 6.5, 0.3 * p.wave_size, p.seed + 11)
    cover = step(-3.0, 7.0, line - y)
    top = step(10.0, -75.0, y)
    thick = p.top * top + p.sides * (1 - top)
    # A parting: a groove, and more volume on one side of it.
    crown = step(-30.0, -60.0, y) * step(2.0, 1.2, turn)
    thick *= 1 - 0.6 * p.part_depth * bell(theta, 0.0, p.part, 0.0, 0.07, 1.0) * crown
    away = (theta - p.part) if p.part < 0 else (p.part - theta)
    thick *= 1 + 0.35 * p.part_depth * min(max(away, -0.6), 0.6) * crown
    thick += p.wave * noise(theta * 2.8 * p.wave_size, y * 0.024 * p.wave_size, p.seed) * (0.4 + 0.6 * cover)
    hang = 0.0
    if p.curtain > 0.0:
        edge = p.curtain_right if theta > 0 else p.curtain_left
        edge += 0.10 * noise(y * 0.02 * p.wave_size, 3.7 if theta > 0 else 9.1, p.seed) * min(p.wave, 1.5)
        hang = step(edge - 0.05, edge + 0.16, turn) * step(p.length + 12, p.length - 12, y) * step(-60.0, -25.0, y)
    out = thick * cover - hidden * (1 - cover)
    if hang > 0.0:
        out = max(out, (thick + gap + 2.0) * hang - hidden * (1 - hang))
    return out


#: Positions of modes among the coefficients that colours depend on.
_PART_LIPS = EXPRESSION_MODES.start + [name for name, _ in EXPRESSION].index("lips apart")
_JAW_DROP = EXPRESSION_MODES.start + [name for name, _ in EXPRESSION].index("jaw drop")


@njit(inline="always")
def blend(out, r, g, b, amount):  # type: ignore[no-untyped-def]
    """Mix a colour into ``out``."""
    out[0] += (r - out[0]) * amount
    out[1] += (g - out[1]) * amount
    out[2] += (b - out[2]) * amount


@njit(inline="always")
def scale(out, r, g, b):  # type: ignore[no-untyped-def]
    """Multiply ``out`` channel by channel."""
    out[0] *= r
    out[1] *= g
    out[2] *= b


@njit(nogil=True)
def hair_colour(theta, y, p, out):  # type: ignore[no-untyped-def]
    """Strands along the flow of the hair, darker roots."""
    flow = theta * 95.0 + p.wave * 2.5 * noise(theta * 2.0, y * 0.05 * p.wave_size, p.seed + 5)
    strands = 0.65 * noise(flow * 0.33, y * 0.012, p.seed) + 0.35 * noise(flow * 0.9, y * 0.03, p.seed + 1)
    tone = 1 + p.strands * strands - p.roots * step(-40.0, -75.0, y)
    for n in range(3):
        out[n] = min(max(p.hair_colour[n] * tone + 0.02 * strands, 0.0), 1.0)


@njit(nogil=True)
def _complexion(x, y, p, out):  # type: ignore[no-untyped-def]
    ax = abs(x)
    for n in range(3):
        out[n] = p.skin[n]
    mottle = 0.6 * noise(x * 0.06, y * 0.06, p.seed + 2) + 0.4 * noise(x * 0.2, y * 0.2, p.seed + 3)
    tone = 1 + 0.05 * p.mottle * mottle
    scale(out, tone, tone, tone)
    red = p.blush * (bell(ax, y, 40.0, 36.0, 14.0, 12.0) + 0.7 * bell(x, y, 0.0, 44.0, 9.0, 9.0)
                     + 0.5 * bell(x, y, 0.0, 105.0, 12.0, 8.0)) + 0.15  # fmt: skip
    scale(out, 1 + 0.03 * red, 1 - 0.10 * red, 1 - 0.09 * red)
    # Creases where light seldom reaches, which Lambert's law alone leaves too bright.
    dark = 0.30 * bell(ax, y, 20.0, -1.0, 7.0, 7.0) + p.shade_eyes * 0.42 * bell(ax, y, 31.0, 0.0, 17.0, 11.0)
    dark += 0.22 * bell(ax, y, 18.5, 50.0, 3.0, 5.5) + 0.22 * bell(x, y, 0.0, 56.0, 11.0, 2.6)
    dark += 0.20 * bell(x, y, 0.0, 89.0, 14.0, 3.6) + 0.25 * bell(ax, y, 28.0, 74.0, 3.0, 3.0)
    dark += 0.12 * p.folds * (bell(ax, y, 24.0, 56.0, 2.5, 6.0) + bell(ax, y, 29.0, 66.0, 2.5, 7.0))
    dark += 0.10 * p.folds * step(0.4, 0.9, noise(0.0, y * 0.16, p.seed + 4)) * bell(x, y, 0.0, -36.0, 32.0, 14.0)
    dark += 0.30 * step(112.0, 124.0, y)
    scale(out, 1 - 0.8 * dark, 1 - dark, 1 - dark)
    hole = bell(ax, y, 6.9, 52.6, 2.4, 1.4)
    blend(out, 0.16 * p.skin[0], 0.09 * p.skin[1], 0.08 * p.skin[2], min(1.3 * hole, 0.95))
    if p.freckles > 0.0:
        spots = p.freckles * step(0.35, 0.6, noise(x * 0.45, y * 0.45, p.seed + 6)) * bell(x, y, 0.0, 28.0, 34.0, 18.0)
        scale(out, 1 - 0.18 * spots, 1 - 0.3 * spots, 1 - 0.38 * spots)
    for n in range(2):
        if p.mole[n, 3] > 0.0:
            spot = p.mole[n, 3] * step(1.25, 0.75, math.hypot(x - p.mole[n, 0], y - p.mole[n, 1]) / p.mole[n, 2])
            blend(out, 0.35 * p.skin[0], 0.25 * p.skin[1], 0.2 * p.skin[2], spot)
    if p.scar[4] > 0.0:
        c, s = math.cos(p.scar[2]), math.sin(p.scar[2])
        along = (x - p.scar[0]) * c + (y - p.scar[1]) * s
        across = -(x - p.scar[0]) * s + (y - p.scar[1]) * c
        line = p.scar[4] * step(1.0, 0.8, abs(along) / p.scar[3]) * step(1.6, 0.6, abs(across))
        blend(out, 0.5 + 0.5 * p.skin[0], 0.4 + 0.5 * p.skin[1], 0.4 + 0.5 * p.skin[2], 0.6 * line)


@njit(nogil=True)
def _facial_hair(x, y, theta, p, out):  # type: ignore[no-untyped-def]
    """Beard, moustache and stubble; the lips come later and stay free."""
    if p.stubble == 0.0 and p.beard == 0.0 and p.moustache == 0.0:
        return
    ax = abs(x)
    turn = abs(theta)
    # Upper edge of the beard: from the sideburn down the cheek to the corner of the mouth.
    edge = 20.0 + p.beard_line + 46.0 * step(1.22, 0.62, turn)
    cheek = step(-6.0, 9.0, y - edge) * step(1.45, 1.2, turn) * step(136.0, 118.0, y)
    around = step(19.0, 25.0, math.hypot(ax * 0.80, y - 74.0) + 2.5)
    chin = cheek * max(around, step(84.0, 89.0, y))
    lip = bell(ax, y, 9.0, 61.5, 16.0, 5.2) * step(54.5, 58.5, y)
    lip = min(1.6 * lip, 1.0) * step(70.0, 66.0, y)
    amount = max(p.beard * chin, p.moustache * lip, p.stubble * max(chin, lip))
    if amount > 0.0:
        grain = 1 + 0.25 * noise(x * 0.7, y * 0.5, p.seed + 7)
        amount = min(amount * grain, 0.96)
        blend(out, 0.85 * p.hair_colour[0], 0.85 * p.hair_colour[1], 0.85 * p.hair_colour[2], amount)


@njit(nogil=True)
def _mouth(x, y, p, out):  # type: ignore[no-untyped-def]
    ax = abs(x)
    if ax > 31.0 or y < 60.0 or y > 90.0:
        return
    span = max(1 - (x / 27.0) ** 2, 0.0)
    line = MOUTH_Y + 0.002 * x * x
    top = line - 8.6 * span**0.8 + 1.9 * bell(x, 0.0, 0.0, 0.0, 3.0, 1.0)
    low = line + 11.6 * span**0.9
    inside = min(y - top, low - y)
    amount = p.lip_strength * step(-0.7, 0.9, inside) * step(0.0, 0.12, span)
    shade = 0.86 if y < line else 1.03
    blend(out, shade * p.lips[0], shade * p.lips[1], shade * p.lips[2], amount)
    # The mouth itself is the strip of the template that opens when the lips part.
    t = (y - line) / 1.35
    gap = step(1.15, 0.8, abs(t)) * step(27.5, 24.0, ax)
    if gap > 0.0:
        parted = step(0.05, 0.3, p.coefficients[_PART_LIPS] + 0.7 * p.coefficients[_JAW_DROP])
        bare = parted * step(0.45, 0.15, t) * step(-1.0, -0.6, t) * step(24.0, 17.0, ax)
        between = abs(ax / 7.0 - math.floor(ax / 7.0) - 0.5)
        tooth = p.teeth * (1 - 0.22 * step(4.0, 17.0, ax)) * (1 - 0.10 * step(0.35, 0.48, between))
        r, g, b = 0.20 + 0.10 * parted, 0.07, 0.07
        r, g, b = r + (tooth - r) * bare, g + (0.97 * tooth - g) * bare, b + (0.90 * tooth - b) * bare
        blend(out, r, g, b, gap * (0.75 + 0.25 * parted))


@njit(nogil=True)
def _opening(across, y, upper, lower):  # type: ignore[no-untyped-def]
    """Distance (mm) inside the slit between the lids, as ``surface.eye_opening``; ``across`` points outwards."""
    s = min(max(across / 16.5, -1.05), 1.05)
    lid_up = -1.2 * s + upper * max(1 - abs(s + 0.12) ** 2.3, -0.2)
    lid_low = -1.2 * s + lower * max(1 - abs(s - 0.1) ** 2.2, -0.2)
    return y - lid_up, lid_low - y


@njit(nogil=True)
def _eye(x, y, p, out):  # type: ignore[no-untyped-def]
    side = 1.0 if x > 0 else -1.0
    across = abs(x) - EYE_X
    if abs(across) > 22.0 or abs(y) > 16.0:
        return
    below_upper, above_lower = _opening(across, y, -6.3 + p.lid, 5.0)
    inside = min(below_upper, above_lower)
    if p.shadow_strength > 0.0:
        veil = step(-11.0, -3.0, below_upper) * step(2.0, 0.0, below_upper) * step(21.0, 14.0, abs(across))
        blend(out, p.shadow[0], p.shadow[1], p.shadow[2], p.shadow_strength * veil)
    crease = bell(0.0, below_upper, 0.0, -4.6, 1.0, 1.1) * step(18.0, 11.0, abs(across))
    scale(out, 1 - 0.30 * crease, 1 - 0.36 * crease, 1 - 0.38 * crease)
    reach = step(17.0, 14.0, abs(across + 0.5))
    lash = p.liner * reach * step(-2.5, -1.0, below_upper) * step(1.5, 0.2, below_upper) * step(-1.0, 0.6, above_lower)
    lower_lash = 0.5 * p.liner * reach * bell(0.0, above_lower, 0.0, -0.2, 1.0, 0.8) * step(-0.6, 0.6, below_upper)
    ball = step(-0.4, 0.5, inside)
    if ball > 0.0:
        gx, gy = across - side * p.gaze[0], y - p.gaze[1] + 0.3
        radius = math.hypot(gx, gy)
        shade = 1 - 0.45 * step(2.6, 0.0, below_upper) - 0.28 * step(8.0, 15.0, abs(across))
        r, g, b = 0.88 * shade, 0.84 * shade, 0.82 * shade
        iris = step(6.5, 5.7, radius)
        dim = (0.75 + 0.35 * step(2.0, 5.0, radius) - 0.55 * step(4.8, 6.0, radius)) * (0.6 + 0.4 * shade)
        r, g, b = r + (p.iris[0] * dim - r) * iris, g + (p.iris[1] * dim - g) * iris, b + (p.iris[2] * dim - b) * iris
        pupil = step(2.9, 2.2, radius)
        r, g, b = r * (1 - 0.93 * pupil), g * (1 - 0.93 * pupil), b * (1 - 0.93 * pupil)
        glint = 0.85 * step(1.4, 0.7, math.hypot(side * gx - p.catchlight[0], gy - p.catchlight[1]))
        r, g, b = r + (0.95 - r) * glint, g + (0.95 - g) * glint, b + (0.95 - b) * glint
        blend(out, r, g, b, ball)
        corner = ball * bell(across, y, -14.2, 0.8, 2.0, 2.2)
        blend(out, 0.75 * p.skin[0], 0.45 * p.skin[1], 0.42 * p.skin[2], 0.8 * corner)
    blend(out, 0.07, 0.045, 0.04, min(max(lash, lower_lash), 0.95))


@njit(nogil=True)
def _brow(x, y, p, out):  # type: ignore[no-untyped-def]
    ax = abs(x)
    if ax < 6.0 or ax > 58.0 or y < -34.0 or y > -6.0:
        return
    t = (ax - p.brow_inner) / (50.0 - p.brow_inner)
    height = -16.0 - (2.0 + p.brow_arch) * step(0.0, 0.62, t) + (3.0 + p.brow_arch) * step(0.55, 1.1, t)
    width = p.brow_width * (1 - 0.62 * step(0.35, 1.0, t)) * (0.75 + 0.25 * step(0.0, 0.2, t))
    grain = 0.35 * noise(ax * 0.9 + y * 0.5, y * 0.35 - ax * 0.2, p.seed + 8)
    amount = step(1.35, 0.45, abs(y - height) / width + grain) * step(-0.06, 0.10, t) * step(1.08, 0.92, t)
    blend(out, 0.75 * p.hair_colour[0] + 0.02, 0.72 * p.hair_colour[1] + 0.01, 0.70 * p.hair_colour[2], p.brow * amount)


@njit(nogil=True)
def _glasses(x, y, p, out):  # type: ignore[no-untyped-def]
    """Thin frames, painted on: at these sizes their relief is below a pixel."""
    ax = abs(x)
    ring = abs(math.hypot((ax - 33.0) / 1.18, y - 3.0) - 18.5)
    bridge = abs(y - 0.5 + 0.02 * x * x) if ax < 12.0 else 99.0
    temple = abs(y + 1.0) if ax > 54.0 else 99.0
    line = min(ring, bridge, temple)
    blend(out, p.frame[0], p.frame[1], p.frame[2], p.glasses * step(1.7, 0.9, line))


@njit(nogil=True)
def skin_albedo(x, y, theta, p, out):  # type: ignore[no-untyped-def]
    """Everything on the skin's surface: face, scalp, neck and the clothes that begin on it."""
    if y > 110.0:
        cloth = step(-0.8, 0.8, y - p.collar - 6.0 * math.cos(theta))
        if cloth == 1.0:
            _clothes(y, p, out)
            return
    else:
        cloth = 0.0
    _complexion(x, y, p, out)
    if abs(theta) < 1.5 and y < 140.0:
        _facial_hair(x, y, theta, p, out)
        if abs(theta) < 1.0:
            _mouth(x, y, p, out)
            _eye(x, y, p, out)
            _brow(x, y, p, out)
    if p.glasses > 0.0 and abs(y) < 30.0:
        _glasses(x, y, p, out)
    inside = hairline(theta, p) - y
    if inside > -6.0:
        grown = step(-3.5, 3.5, inside + 2.5 * noise(theta * 20.0, y * 0.2, p.seed + 9))
        amount = grown * (0.92 if p.hair > 0.0 else 0.6 * p.stubble)
        if amount > 0.0:
            r, g, b = out[0], out[1], out[2]
            hair_colour(theta, y, p, out)
            out[0], out[1], out[2] = r + (out[0] - r) * amount, g + (out[1] - g) * amount, b + (out[2] - b) * amount
    if cloth > 0.0:
        r, g, b = out[0], out[1], out[2]
        _clothes(y, p, out)
        out[0], out[1], out[2] = r + (out[0] - r) * cloth, g + (out[1] - g) * cloth, b + (out[2] - b) * cloth


@njit(nogil=True)
def _clothes(y, p, out):  # type: ignore[no-untyped-def]
    which = 0
    if p.collar_stripe > 0.0 and (y / p.collar_stripe) % 2 < 1:
        which = 1
    for n in range(3):
        out[n] = p.clothes[which, n]


@njit(nogil=True)
def ear_albedo(x, y, p, out):  # type: ignore[no-untyped-def]
    """Skin, redder, and dark in the bowl; x is backwards and y downwards from the middle of the ear."""
    for n in range(3):
        out[n] = p.skin[n]
    scale(out, 1.0, 0.93 - 0.06 * p.blush, 0.92 - 0.06 * p.blush)
    dark = 0.5 * bell(x, y, -4.0, 4.0, 5.5, 8.5) + 0.25 * bell(x, y, 8.0, -8.0, 2.6, 12.0) + 0.2 * step(-9.0, -15.0, x)
    scale(out, 1 - 0.8 * dark, 1 - dark, 1 - dark)


@njit(nogil=True)
def background(u, v, p, photographs, out):  # type: ignore[no-untyped-def]
    """Colour at (u, v) in [−1, 1] of the picture.

    ``photographs`` (P, 3, S, S) uint8 is looked up where the scene names one of them.
    """
    if p.photo >= 0:
        _photograph(u, v, p, photographs[p.photo], out)
        return
    c, s = math.cos(p.ground_angle), math.sin(p.ground_angle)
    along, across = u * c + v * s, v * c - u * s
    n = noise(u * p.ground_scale * 0.7, v * p.ground_scale * 0.7, p.ground_seed)
    n += 0.5 * noise(u * p.ground_scale * 1.7, v * p.ground_scale * 1.7, p.ground_seed + 1)
    t = 0.5 + 0.5 * along + p.ground_noise * n
    kind = p.ground_kind
    if kind == 1:  # stripes
        wave = math.sin(math.pi * (across * p.ground_scale + 0.4 * p.ground_noise * n))
        t = 0.5 + 0.5 * min(max(wave / (0.1 + 0.9 * p.ground_soft), -1.0), 1.0)
    elif kind == 2:  # clouds
        t = 0.5 + 0.7 * n
    elif kind == 3:  # checks
        wave = math.sin(math.pi * across * p.ground_scale) * math.sin(math.pi * along * p.ground_scale)
        t = 0.5 + 0.5 * min(max(wave / (0.1 + 0.9 * p.ground_soft), -1.0), 1.0)
    t = step(0.0, 1.0, t)
    other = step(-0.8, 0.8, noise(u * p.ground_scale * 0.5 + 7.0, v * p.ground_scale * 0.5, p.ground_seed + 2))
    for k in range(3):
        first = p.ground[0, k] + (p.ground[1, k] - p.ground[0, k]) * t
        second = p.ground[2, k] + (p.ground[3, k] - p.ground[2, k]) * t
        out[k] = first + (second - first) * other * 0.8
    if kind != 4 and kind != 0:
        return
    for k in range(p.shapes):  # clutter: discs and boxes, sharp or out of focus
        c, s = math.cos(p.shape[k, 4]), math.sin(p.shape[k, 4])
        du, dv = u - p.shape[k, 0], v - p.shape[k, 1]
        a, b = (du * c + dv * s) / p.shape[k, 2], (dv * c - du * s) / p.shape[k, 3]
        distance = math.hypot(a, b) if k % 2 == 0 else max(abs(a), abs(b))
        amount = step(1 + p.shape[k, 5], 1 - p.shape[k, 5], distance) * (0.9 if kind == 4 else 0.5)
        for q in range(3):
            out[q] += (p.shape_colour[k, q] - out[q]) * amount


@njit(nogil=True)
def _photograph(u, v, p, photograph, out):  # type: ignore[no-untyped-def]
    size = photograph.shape[1]
    x = (p.photo_box[0] + (u * 0.5 + 0.5) * p.photo_box[2]) * (size - 1)
    y = (p.photo_box[1] + (v * 0.5 + 0.5) * p.photo_box[3]) * (size - 1)
    x, y = min(max(x, 0.0), size - 1.001), min(max(y, 0.0), size - 1.001)
    i, j = int(x), int(y)
    a, b = x - i, y - j
    for k in range(3):
        top = photograph[k, j, i] * (1 - a) + photograph[k, j, i + 1] * a
        low = photograph[k, j + 1, i] * (1 - a) + photograph[k, j + 1, i + 1] * a
        out[k] = (top * (1 - b) + low * b) / 255.0


#: Width of the face, and arc around the head per radian (its mean radius in front), millimetres on the template.
_FACE_WIDTH, _ARC = 140.0, 85.0
#: Where the middles of the patches lie: within ± this along the arc, and between these heights (brow to chin), mm.
_ACROSS, _DOWN = 60.0, (-45.0, 95.0)


@dataclass(frozen=True)
class Patches:
    """How many patches a face has, and the ranges of their sides (shares of its width) and blending weights."""

    count: int
    size: tuple[float, float]
    opacity: tuple[float, float]


def draw_patches(scene: NDArray[np.void], rng: Generator, patches: Patches) -> None:
    """Fill the fields ``patch*`` of a scene with random patches."""
    scene["patches"] = patches.count
    for n in range(patches.count):
        scene["patch"][n] = (
            rng.uniform(-_ACROSS, _ACROSS), rng.uniform(*_DOWN),
            rng.uniform(*patches.size) * _FACE_WIDTH / 2, rng.uniform(*patches.size) * _FACE_WIDTH / 2,
            rng.uniform(0, math.pi),
        )  # fmt: skip
        scene["patch_colour"][n] = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.2, 1.0), rng.uniform(0.1, 1.0))
        scene["patch_opacity"][n] = rng.uniform(*patches.opacity)


@njit(nogil=True)
def paint_patches(theta, y, p, out):  # type: ignore[no-untyped-def]
    """Blend the scene's patches over the albedo ``out`` (RGB) at an angle around the head and a height."""
    for n in range(p.patches):
        across, down = _ARC * theta - p.patch[n, 0], y - p.patch[n, 1]
        c, s = math.cos(p.patch[n, 4]), math.sin(p.patch[n, 4])
        inside = min(p.patch[n, 2] - abs(across * c + down * s), p.patch[n, 3] - abs(down * c - across * s))
        amount = p.patch_opacity[n] * step(-0.8, 0.8, inside)
        if amount > 0.0:
            for k in range(3):
                out[k] += (p.patch_colour[n, k] - out[k]) * amount
