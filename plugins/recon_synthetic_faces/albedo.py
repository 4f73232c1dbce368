"""The colour of the head at a point of the template chart: skin, lips, eyes, brows, beard, ears, hair, clothes.

All functions are Numba kernels for one point; coordinates are millimetres on the undisplaced template (see
``surface.py``), so that colours move with the geometry. ``out`` is an RGB triple in [0, 1] that is blended in place.
"""

from __future__ import annotations

import math

from numba import njit

from recon_synthetic_faces.hair import hairline
from recon_synthetic_faces.modes import EXPRESSION, EXPRESSION_MODES
from recon_synthetic_faces.noise import bell, noise, step
from recon_synthetic_faces.surface import EYE_X, MOUTH_Y

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
