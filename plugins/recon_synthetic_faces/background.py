"""Procedural backgrounds: gradients, soft blobs, stripes, noise and clutter; or a photograph."""

from __future__ import annotations

import math

from numba import njit

from recon_synthetic_faces.noise import noise, step


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
