"""The shape of hair: how far each vertex of the hair shell stands out of the skull, or hides below it."""

from __future__ import annotations

import numpy as np
from numba import njit

from recon_synthetic_faces.noise import bell, noise, step
from recon_synthetic_faces.surface import smooth_curve

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
