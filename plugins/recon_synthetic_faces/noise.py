"""Value noise in two dimensions, seeded, for textures. All functions are Numba kernels for scalars."""

from __future__ import annotations

from numba import njit, uint32


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
