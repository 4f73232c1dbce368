"""Numba kernels for geometry: which face each sample sees, depth and coverage of pixels, the gradient of depth.

Coordinates count samples: x to the right, y downwards, integers are samples. A front face then has negative area. With
``two_sided`` a face seen from behind has the index f + F, as if the faces had been appended with reversed winding.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from recon_toolkit.kernels import compiled, parallel


@njit(inline="always")
def _edge(ax, ay, bx, by):  # type: ignore[no-untyped-def]
    """Origin, direction and sign of an edge with its ends in a fixed order: the two faces that share it agree."""
    if bx < ax or (bx == ax and by < ay):
        return bx, by, ax - bx, ay - by, True
    return ax, ay, bx - ax, by - ay, False


@compiled(error_model="numpy")
def _draw(points, faces, coords, first_row, last_row, near, far, two_sided, nearest, winner):  # type: ignore[no-untyped-def]
    """Draw one mesh into rows first_row..last_row−1 of ``nearest`` (depth, ``far`` where empty) and ``winner``."""
    zero, one = coords[0], coords[1]
    top, bottom, right = coords[first_row], coords[last_row - 1], coords[nearest.shape[1] - 1]
    count = faces.shape[0]
    for f in range(count):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ay, by, cy = points[a, 1], points[b, 1], points[c, 1]
        low_y, high_y = min(ay, by, cy), max(ay, by, cy)
        # Written so that a NaN anywhere fails a test.
        if not (high_y >= top and low_y <= bottom):
            continue
        ax, bx, cx = points[a, 0], points[b, 0], points[c, 0]
        az, bz, cz = points[a, 2], points[b, 2], points[c, 2]
        low_x, high_x = min(ax, bx, cx), max(ax, bx, cx)
        if not (high_x >= zero and low_x <= right and az > zero and bz > zero and cz > zero):
            continue
        y0, y1 = int(max(low_y, top)), int(min(high_y, bottom))
        x0, x1 = int(max(low_x, zero)), int(min(high_x, right))
        if coords[y0] < low_y:
            y0 += 1
        if coords[x0] < low_x:
            x0 += 1
        if y0 > y1 or x0 > x1:
            continue
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area < zero:
            index = f
        elif two_sided and area > zero:
            index = f + count
        else:
            continue
        ox0, oy0, dx0, dy0, s0 = _edge(bx, by, cx, cy)
        ox1, oy1, dx1, dy1, s1 = _edge(cx, cy, ax, ay)
        ox2, oy2, dx2, dy2, s2 = _edge(ax, ay, bx, by)
        front = area < zero
        # Directions are turned so that inside is positive; the fixed order of the ends is kept.
        if s0 != front:
            dx0, dy0 = -dx0, -dy0
        if s1 != front:
            dx1, dy1 = -dx1, -dy1
        if s2 != front:
            dx2, dy2 = -dx2, -dy2
        ia, ib, ic = one / az, one / bz, one / cz
        for y in range(y0, y1 + 1):
            py = coords[y]
            r0, r1, r2 = dx0 * (py - oy0), dx1 * (py - oy1), dx2 * (py - oy2)
            for x in range(x0, x1 + 1):
                px = coords[x]
                e0, e1, e2 = r0 - dy0 * (px - ox0), r1 - dy1 * (px - ox1), r2 - dy2 * (px - ox2)
                if e0 >= zero and e1 >= zero and e2 >= zero:
                    # w_k = e_k / Σe lies in [0, 1] and sums to 1; depth is 1 / Σ (w_k / z_k).
                    depth = (e0 + e1 + e2) / (e0 * ia + e1 * ib + e2 * ic)
                    if depth > near and depth < far:
                        best = nearest[y, x]
                        if depth < best or (depth == best and index < winner[y, x]):
                            nearest[y, x] = depth
                            winner[y, x] = index


@parallel(error_model="numpy")
def draw(  # type: ignore[no-untyped-def]
    lo, hi, points, faces, coords, bands, near, far, two_sided, samples, winner, nearest, depth, alpha,
):  # fmt: skip
    """Draw meshes (B, V, 3), faces (B or 1, F, 3): ``winner`` and ``nearest`` per sample, ``depth`` and ``alpha`` per
    pixel as means over samples × samples, empty samples counting as ``far`` and 0."""
    _, height, width = depth.shape
    zero, one = coords[0], coords[1]
    share = one / coords.dtype.type(samples * samples)
    for task in range(lo, hi):
        n, band = task // bands, task % bands
        first, last = height * band // bands, height * (band + 1) // bands
        if first == last:
            continue
        low, high = samples * first, samples * last
        winner[n, low:high] = -1
        nearest[n, low:high] = far
        own = faces[n] if faces.shape[0] > 1 else faces[0]
        _draw(points[n], own, coords, low, high, near, far, two_sided, nearest[n], winner[n])
        for y in range(first, last):
            for x in range(width):
                total, hits = zero, zero
                for j in range(samples * y, samples * (y + 1)):
                    for i in range(samples * x, samples * (x + 1)):
                        total += nearest[n, j, i]
                        if winner[n, j, i] >= 0:
                            hits += one
                depth[n, y, x] = total * share
                alpha[n, y, x] = hits * share


@njit(inline="always")
def face_weights(points, a, b, c, px, py):  # type: ignore[no-untyped-def]
    """Barycentrics of a sample on the screen, clamped to [0, 1] and renormalised, and the face's signed area."""
    ax, ay = points[a, 0] - px, points[a, 1] - py
    bx, by = points[b, 0] - px, points[b, 1] - py
    cx, cy = points[c, 0] - px, points[c, 1] - py
    e0, e1, e2 = bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx
    area = e0 + e1 + e2
    zero = px - px
    if not abs(area) > zero:  # a sliver whose area is lost in rounding: any weights do, and no gradient across
        return zero, zero, zero + 1, area + np.inf
    w0, w1, w2 = max(e0 / area, zero), max(e1 / area, zero), max(e2 / area, zero)
    total = w0 + w1 + w2
    return w0 / total, w1 / total, w2 / total, area


@parallel(error_model="numpy")
def depth_backward(  # type: ignore[no-untyped-def]
    lo, hi, points, faces, coords, bands, samples, winner, grad_depth, out,
):  # fmt: skip
    """Add the gradient of the mean depth to ``out`` (B, bands, V, 3), one slice per band of rows.

    With D = 1 / Σ (w_k / z_k): ∂D/∂z_k = w_k D² / z_k² and ∂D/∂x_k = w_k D² Σ_l (∂w_l/∂p_x) / z_l, likewise y.
    """
    _, height, width = grad_depth.shape
    one = coords[1]
    count = faces.shape[1]
    share = one / coords.dtype.type(samples * samples)
    for task in range(lo, hi):
        n, band = task // bands, task % bands
        own = faces[n] if faces.shape[0] > 1 else faces[0]
        p, grad = points[n], out[n, band]
        for y in range(height * band // bands, height * (band + 1) // bands):
            for x in range(width):
                g = grad_depth[n, y, x] * share
                if g == 0:
                    continue
                for j in range(samples * y, samples * (y + 1)):
                    for i in range(samples * x, samples * (x + 1)):
                        f = winner[n, j, i]
                        if f < 0:
                            continue
                        f = f - count if f >= count else f
                        a, b, c = own[f, 0], own[f, 1], own[f, 2]
                        w0, w1, w2, area = face_weights(p, a, b, c, coords[i], coords[j])
                        ia, ib, ic = one / p[a, 2], one / p[b, 2], one / p[c, 2]
                        d = one / (w0 * ia + w1 * ib + w2 * ic)
                        h = g * d * d
                        across = ((p[b, 1] - p[c, 1]) * ia + (p[c, 1] - p[a, 1]) * ib + (p[a, 1] - p[b, 1]) * ic) / area
                        along = ((p[c, 0] - p[b, 0]) * ia + (p[a, 0] - p[c, 0]) * ib + (p[b, 0] - p[a, 0]) * ic) / area
                        h0, h1, h2 = h * w0, h * w1, h * w2
                        grad[a, 0] += h0 * across
                        grad[a, 1] += h0 * along
                        grad[a, 2] += h0 * ia * ia
                        grad[b, 0] += h1 * across
                        grad[b, 1] += h1 * along
                        grad[b, 2] += h1 * ib * ib
                        grad[c, 0] += h2 * across
                        grad[c, 1] += h2 * along
                        grad[c, 2] += h2 * ic * ic
