"""The pseudo-renderer on the CPU: Numba kernels that agree with ``reference.py`` to the last bit.

Where the nearest point stays, no upsampled picture is needed: the nearest of a pixel's cells is the nearest of the
pixel. Only equal depths ask for the cell, since pooling takes the first.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from recon_toolkit.kernels import compiled, parallel

__all__ = ["backward", "forward"]


@njit(inline="always")
def _cell(p, r, k, size, upsampling):  # type: ignore[no-untyped-def]
    """Column and row of the cell that a point lands in, −1 outside of the picture, and its depth."""
    half, middle, one, near, zero = k
    z = r[2, 0] * p[0] + r[2, 1] * p[1] + r[2, 2] * p[2] + one
    if not z > near:
        return -1, -1, z
    x = (r[0, 0] * p[0] + r[0, 1] * p[1] + r[0, 2] * p[2]) * size + middle
    y = (r[1, 0] * p[0] + r[1, 1] * p[1] + r[1, 2] * p[2]) * size + middle
    u, v = np.floor((x + half) * upsampling), np.floor((y + half) * upsampling)
    # Written so that a NaN anywhere fails the test.
    if not (u >= zero and u < size * upsampling and v >= zero and v < size * upsampling):
        return -1, -1, z
    return int(u), int(v), z


@compiled()
def _nearest(points, logits, r, k, sizes, inverse, at, winner, total, amount):  # type: ignore[no-untyped-def]
    size, upsampling, n_size, n_up = sizes
    fine = n_size * n_up
    zero, one = k[4], k[2]
    for n in range(len(points)):
        u, v, z = _cell(points[n], r, k, size, upsampling)
        if u < 0:
            continue
        i, j = v // n_up, u // n_up
        if logits[n] > zero:
            closeness = one / z
            if closeness > inverse[i, j]:
                inverse[i, j], at[i, j], winner[i, j] = closeness, v * fine + u, n
            elif closeness == inverse[i, j] and v * fine + u < at[i, j]:
                at[i, j], winner[i, j] = v * fine + u, n
        else:
            total[i, j] += logits[n]
            amount[i, j] += 1


@compiled()
def _last(points, logits, r, k, sizes, cells, inverse, winner, total, amount):  # type: ignore[no-untyped-def]
    size, upsampling, n_size, n_up = sizes
    zero, one = k[4], k[2]
    for n in range(len(points)):
        u, v, _ = _cell(points[n], r, k, size, upsampling)
        if u < 0:
            continue
        if logits[n] > zero:
            cells[v, u] = n
        else:
            total[v // n_up, u // n_up] += logits[n]
            amount[v // n_up, u // n_up] += 1
    for v in range(n_size * n_up):
        for u in range(n_size * n_up):
            n = cells[v, u]
            if n >= 0:
                p = points[n]
                closeness = one / (r[2, 0] * p[0] + r[2, 1] * p[1] + r[2, 2] * p[2] + one)
                if closeness > inverse[v // n_up, u // n_up]:
                    inverse[v // n_up, u // n_up], winner[v // n_up, u // n_up] = closeness, n


@parallel()
def forward(  # type: ignore[no-untyped-def]
    lo, hi, points, logits, rotation, constants, upsampling, overwrite, depth, mask, winner, amount,
):  # fmt: skip
    """Fill depth, mask logits (B, V, S, S), winner and amount (B, V, S, S) int32, of points (B, N, 3)."""
    views, n_size = depth.shape[1], depth.shape[2]
    kind = points.dtype.type
    k = (constants[0], constants[1], constants[2], constants[3], constants[4])
    sizes = (constants[5], constants[6], n_size, upsampling)
    fine = n_size * upsampling
    for image in range(lo, hi):
        b, w = image // views, image % views
        r = rotation[b, w]
        inverse, total = np.zeros((n_size, n_size), points.dtype), np.zeros((n_size, n_size), points.dtype)
        winner[b, w], amount[b, w] = -1, 0
        if overwrite:
            cells = np.full((fine, fine), -1, np.int32)
            _last(points[b], logits[b], r, k, sizes, cells, inverse, winner[b, w], total, amount[b, w])
        else:
            at = np.zeros((n_size, n_size), np.int64)
            _nearest(points[b], logits[b], r, k, sizes, inverse, at, winner[b, w], total, amount[b, w])
        for i in range(n_size):
            for j in range(n_size):
                n = winner[b, w, i, j]
                if n >= 0:
                    p = points[b, n]
                    depth[b, w, i, j] = r[2, 0] * p[0] + r[2, 1] * p[1] + r[2, 2] * p[2] + k[2]
                    mask[b, w, i, j] = logits[b, n]
                else:
                    depth[b, w, i, j] = k[4]
                    some = amount[b, w, i, j] > 0
                    mask[b, w, i, j] = total[i, j] / kind(amount[b, w, i, j]) if some else constants[7]


@parallel()
def backward(  # type: ignore[no-untyped-def]
    lo, hi, points, logits, rotation, constants, upsampling, winner, amount, by_depth, by_mask, to_points,
    to_logits,
):  # fmt: skip
    """Add the gradients of depth and mask logits (B, V, S, S) to those of points (B, N, 3) and logits (B, N)."""
    n_size = winner.shape[2]
    kind = points.dtype.type
    k = (constants[0], constants[1], constants[2], constants[3], constants[4])
    for b in range(lo, hi):
        for w in range(winner.shape[1]):
            r = rotation[b, w]
            for i in range(n_size):
                for j in range(n_size):
                    n = winner[b, w, i, j]
                    if n >= 0:
                        for c in range(3):
                            to_points[b, n, c] += by_depth[b, w, i, j] * r[2, c]
                        to_logits[b, n] += by_mask[b, w, i, j]
            for n in range(points.shape[1]):
                if logits[b, n] > k[4]:
                    continue
                u, v, _ = _cell(points[b, n], r, k, constants[5], constants[6])
                if u < 0:
                    continue
                i, j = v // upsampling, u // upsampling
                if winner[b, w, i, j] < 0:
                    to_logits[b, n] += by_mask[b, w, i, j] / kind(amount[b, w, i, j])
