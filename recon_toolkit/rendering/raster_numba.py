"""The CPU rasteriser: Numba kernels, parallel over the batch and over bands of rows, equal to the reference.

The arithmetic follows raster_reference operation by operation in the vertices' own precision (no fused
multiply-add), so faces and depths agree to the last bit; only sums of gradients may differ in their order.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from recon_toolkit.kernels import compiled, parallel
from recon_toolkit.rendering.raster_reference import EDGE_ON


def row_bands(batch: int, height: int) -> int:
    """Bands of rows per image that give every thread work: one when the batch alone does."""
    return max(1, min(height, -(-torch.get_num_threads() // max(batch, 1))))


@njit(inline="always")
def _edge(ax, ay, bx, by):  # type: ignore[no-untyped-def]
    """Origin, direction and sign of an edge a → b with its end points in a fixed order (see edge_functions)."""
    if bx < ax or (bx == ax and by < ay):
        return bx, by, ax - bx, ay - by, True
    return ax, ay, bx - ax, by - ay, False


@compiled()
def _draw(vertices, faces, coords, first_row, last_row, near, far, nearest, winner):  # type: ignore[no-untyped-def]
    """Draw one mesh into rows first_row..last_row−1 of ``nearest`` (depth) and ``winner`` (face)."""
    width = nearest.shape[1]
    one = coords[1]
    zero = coords[0]
    edge_on = vertices.dtype.type(EDGE_ON)
    top = vertices.dtype.type(first_row)
    bottom = vertices.dtype.type(last_row - 1)
    right = vertices.dtype.type(width - 1)
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, az = vertices[a, 0], vertices[a, 1], vertices[a, 2]
        bx, by, bz = vertices[b, 0], vertices[b, 1], vertices[b, 2]
        cx, cy, cz = vertices[c, 0], vertices[c, 1], vertices[c, 2]
        low_y, high_y = min(ay, by, cy), max(ay, by, cy)
        # Written so that a NaN anywhere fails the test.
        if not (high_y >= top and low_y <= bottom):
            continue
        y0, y1 = int(np.ceil(max(low_y, top))), int(np.floor(min(high_y, bottom)))
        if y0 > y1:
            continue
        low_x, high_x = min(ax, bx, cx), max(ax, bx, cx)
        if not (high_x >= zero and low_x <= right and az > zero and bz > zero and cz > zero):
            continue
        if max(az, bz, cz) == np.inf:
            continue
        x0, x1 = int(np.ceil(max(low_x, zero))), int(np.floor(min(high_x, right)))
        if x0 > x1:
            continue
        ox0, oy0, dx0, dy0, s0 = _edge(bx, by, cx, cy)
        ox1, oy1, dx1, dy1, s1 = _edge(cx, cy, ax, ay)
        ox2, oy2, dx2, dy2, s2 = _edge(ax, ay, bx, by)
        extent = max(high_x - low_x, high_y - low_y)
        if not (abs(dx0 * (ay - oy0) - dy0 * (ax - ox0)) > edge_on * extent * extent):
            continue
        ia, ib, ic = one / az, one / bz, one / cz
        for y in range(y0, y1 + 1):
            py = coords[y]
            r0, r1, r2 = dx0 * (py - oy0), dx1 * (py - oy1), dx2 * (py - oy2)
            for x in range(x0, x1 + 1):
                px = coords[x]
                e0, e1, e2 = r0 - dy0 * (px - ox0), r1 - dy1 * (px - ox1), r2 - dy2 * (px - ox2)
                if s0:
                    e0 = -e0
                if s1:
                    e1 = -e1
                if s2:
                    e2 = -e2
                if (e0 >= zero and e1 >= zero and e2 >= zero) or (e0 <= zero and e1 <= zero and e2 <= zero):
                    depth = (e0 + e1 + e2) / (e0 * ia + e1 * ib + e2 * ic)
                    if depth > near and depth < far and depth < nearest[y, x]:
                        nearest[y, x] = depth
                        winner[y, x] = f


@njit(inline="always")
def _signed_edges(vertices, faces, f, px, py):  # type: ignore[no-untyped-def]
    """The three edge functions of face f at a sample and the face's reciprocal depths."""
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    ax, ay = vertices[a, 0], vertices[a, 1]
    bx, by = vertices[b, 0], vertices[b, 1]
    cx, cy = vertices[c, 0], vertices[c, 1]
    ox0, oy0, dx0, dy0, s0 = _edge(bx, by, cx, cy)
    ox1, oy1, dx1, dy1, s1 = _edge(cx, cy, ax, ay)
    ox2, oy2, dx2, dy2, s2 = _edge(ax, ay, bx, by)
    e0 = dx0 * (py - oy0) - dy0 * (px - ox0)
    e1 = dx1 * (py - oy1) - dy1 * (px - ox1)
    e2 = dx2 * (py - oy2) - dy2 * (px - ox2)
    if s0:
        e0 = -e0
    if s1:
        e1 = -e1
    if s2:
        e2 = -e2
    return e0, e1, e2


@njit(inline="always")
def _add_edge_gradient(vertices, faces, f, px, py, g0, g1, g2, out):  # type: ignore[no-untyped-def]
    """Chain gradients of the edge functions e_0, e_1, e_2 to the corners' pixel coordinates."""
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    ax, ay = vertices[a, 0] - px, vertices[a, 1] - py
    bx, by = vertices[b, 0] - px, vertices[b, 1] - py
    cx, cy = vertices[c, 0] - px, vertices[c, 1] - py
    # e_0 = b × c relative to the sample, and cyclically.
    out[a, 0] += g2 * by - g1 * cy
    out[a, 1] += g1 * cx - g2 * bx
    out[b, 0] += g0 * cy - g2 * ay
    out[b, 1] += g2 * ax - g0 * cx
    out[c, 0] += g1 * ay - g0 * by
    out[c, 1] += g0 * bx - g1 * ax


@parallel()
def rasterize_forward(lo, hi, vertices, faces, coords, bands, near, far, winner, barycentric, depth):  # type: ignore[no-untyped-def]
    """Fill ``winner`` (B, H, W) int32, ``barycentric`` (B, H, W, 3) and ``depth`` (B, H, W) for vertices (B, V, 3)."""
    _, height, width = winner.shape
    one = coords[1]
    for task in range(lo, hi):
        n, band = task // bands, task % bands
        first, last = height * band // bands, height * (band + 1) // bands
        for y in range(first, last):
            for x in range(width):
                depth[n, y, x] = np.inf
                winner[n, y, x] = -1
        if first < last:
            _draw(vertices[n], faces, coords, first, last, near, far, depth[n], winner[n])
        for y in range(first, last):
            for x in range(width):
                f = winner[n, y, x]
                if f < 0:
                    depth[n, y, x] = 0
                    barycentric[n, y, x, 0] = 0
                    barycentric[n, y, x, 1] = 0
                    barycentric[n, y, x, 2] = 0
                else:
                    e0, e1, e2 = _signed_edges(vertices[n], faces, f, coords[x], coords[y])
                    q0 = e0 * (one / vertices[n, faces[f, 0], 2])
                    q1 = e1 * (one / vertices[n, faces[f, 1], 2])
                    q2 = e2 * (one / vertices[n, faces[f, 2], 2])
                    total = q0 + q1 + q2
                    barycentric[n, y, x, 0] = q0 / total
                    barycentric[n, y, x, 1] = q1 / total
                    barycentric[n, y, x, 2] = q2 / total


@parallel()
def rasterize_backward(lo, hi, vertices, faces, coords, bands, winner, grad_barycentric, grad_depth, out):  # type: ignore[no-untyped-def]
    """Add the gradient of barycentrics and depth to ``out`` (B, bands, V, 3), one slice per band of rows."""
    _, height, width = winner.shape
    one = coords[1]
    for task in range(lo, hi):
        n, band = task // bands, task % bands
        vs, grad = vertices[n], out[n, band]
        for y in range(height * band // bands, height * (band + 1) // bands):
            for x in range(width):
                f = winner[n, y, x]
                if f < 0:
                    continue
                px, py = coords[x], coords[y]
                e0, e1, e2 = _signed_edges(vs, faces, f, px, py)
                a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
                i0, i1, i2 = one / vs[a, 2], one / vs[b, 2], one / vs[c, 2]
                q0, q1, q2 = e0 * i0, e1 * i1, e2 * i2
                inverse = one / (q0 + q1 + q2)
                b0, b1, b2 = q0 * inverse, q1 * inverse, q2 * inverse
                g0, g1, g2 = grad_barycentric[n, y, x, 0], grad_barycentric[n, y, x, 1], grad_barycentric[n, y, x, 2]
                gd = grad_depth[n, y, x] * inverse
                depth = (e0 + e1 + e2) * inverse
                mean = g0 * b0 + g1 * b1 + g2 * b2
                # Gradients of q_k (through b_k, and through depth = Σe / Σq) and of e_k (directly through depth).
                h0 = (g0 - mean) * inverse - gd * depth
                h1 = (g1 - mean) * inverse - gd * depth
                h2 = (g2 - mean) * inverse - gd * depth
                grad[a, 2] -= h0 * q0 * i0
                grad[b, 2] -= h1 * q1 * i1
                grad[c, 2] -= h2 * q2 * i2
                _add_edge_gradient(vs, faces, f, px, py, h0 * i0 + gd, h1 * i1 + gd, h2 * i2 + gd, grad)


@parallel()
def depth_forward(lo, hi, vertices, faces, coords, bands, near, far, samples, winner, depth, covered):  # type: ignore[no-untyped-def]
    """Mean depth (B, H, W) over samples × samples, and which pixels have all their samples covered.

    ``winner`` (B, samples·H, samples·W) keeps the faces for the backward pass; vertices are in sample coordinates.
    """
    _, height, width = depth.shape
    inverse = coords[1] / coords.dtype.type(samples * samples)
    for task in range(lo, hi):
        n, band = task // bands, task % bands
        first, last = height * band // bands, height * (band + 1) // bands
        if first == last:
            continue
        nearest = np.full((samples * height, samples * width), np.inf, vertices.dtype)
        winner[n, samples * first : samples * last] = -1
        _draw(vertices[n], faces, coords, samples * first, samples * last, near, far, nearest, winner[n])
        for y in range(first, last):
            for x in range(width):
                total = coords[0]
                hits = 0
                for j in range(samples * y, samples * (y + 1)):
                    for i in range(samples * x, samples * (x + 1)):
                        if winner[n, j, i] >= 0:
                            hits += 1
                            total += nearest[j, i]
                full = hits == samples * samples
                covered[n, y, x] = full
                depth[n, y, x] = total * inverse if full else coords[0]


@parallel()
def depth_backward(lo, hi, vertices, faces, coords, bands, samples, winner, covered, grad_depth, out):  # type: ignore[no-untyped-def]
    """Add the gradient of the mean depth to ``out`` (B, bands, V, 3)."""
    _, height, width = covered.shape
    one = coords[1]
    share = one / coords.dtype.type(samples * samples)
    for task in range(lo, hi):
        n, band = task // bands, task % bands
        vs, grad = vertices[n], out[n, band]
        for y in range(height * band // bands, height * (band + 1) // bands):
            for x in range(width):
                g = grad_depth[n, y, x] * share
                if not covered[n, y, x] or g == 0:
                    continue
                for j in range(samples * y, samples * (y + 1)):
                    py = coords[j]
                    for i in range(samples * x, samples * (x + 1)):
                        f = winner[n, j, i]
                        px = coords[i]
                        e0, e1, e2 = _signed_edges(vs, faces, f, px, py)
                        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
                        i0, i1, i2 = one / vs[a, 2], one / vs[b, 2], one / vs[c, 2]
                        q0, q1, q2 = e0 * i0, e1 * i1, e2 * i2
                        inverse = one / (q0 + q1 + q2)
                        gd = g * inverse
                        h = gd * (e0 + e1 + e2) * inverse
                        grad[a, 2] += h * q0 * i0
                        grad[b, 2] += h * q1 * i1
                        grad[c, 2] += h * q2 * i2
                        _add_edge_gradient(vs, faces, f, px, py, gd - h * i0, gd - h * i1, gd - h * i2, grad)


@parallel()
def interpolate_forward(lo, hi, attributes, faces, winner, barycentric, out):  # type: ignore[no-untyped-def]
    """out (B, H, W, C) = Σ_k barycentric_k · attribute of corner k; 0 where there is no face."""
    _, height, width = winner.shape
    for row in range(lo, hi):
        n, y = row // height, row % height
        for x in range(width):
            f = winner[n, y, x]
            for c in range(attributes.shape[2]):
                if f < 0:
                    out[n, y, x, c] = 0
                else:
                    out[n, y, x, c] = (
                        barycentric[n, y, x, 0] * attributes[n, faces[f, 0], c]
                        + barycentric[n, y, x, 1] * attributes[n, faces[f, 1], c]
                        + barycentric[n, y, x, 2] * attributes[n, faces[f, 2], c]
                    )


@parallel()
def interpolate_backward(  # type: ignore[no-untyped-def]
    lo, hi, attributes, faces, winner, barycentric, grad, bands, grad_attributes, grad_barycentric,
):  # fmt: skip
    """Gradients to the attributes (B, bands, V, C) and to the barycentrics (B, H, W, 3)."""
    _, height, width = winner.shape
    for task in range(lo, hi):
        n, band = task // bands, task % bands
        for y in range(height * band // bands, height * (band + 1) // bands):
            for x in range(width):
                f = winner[n, y, x]
                for k in range(3):
                    if f < 0:
                        grad_barycentric[n, y, x, k] = 0
                        continue
                    vertex = faces[f, k]
                    weight = barycentric[n, y, x, k]
                    total = weight * 0
                    for c in range(attributes.shape[2]):
                        g = grad[n, y, x, c]
                        total += g * attributes[n, vertex, c]
                        grad_attributes[n, band, vertex, c] += weight * g
                    grad_barycentric[n, y, x, k] = total


@compiled(fastmath={"reassoc"})
def measure(numbers, flags):  # type: ignore[no-untyped-def]
    """Per mesh of numbers (B, V · 3), into flags (B, 2): are all of them finite, and has one of them z > 0?

    One thread: sums that may be taken in any order are vectorised, and take less time than to wake another.
    """
    zero = numbers.dtype.type(0)
    for n in range(len(numbers)):
        total = zero
        for i in range(numbers.shape[1]):
            total += numbers[n, i] * zero  # 0 unless the number is NaN or infinite
        flags[n, 0] = total == zero
        flags[n, 1] = False
        for i in range(2, numbers.shape[1], 3):
            if numbers[n, i] > zero:
                flags[n, 1] = True
                break


def sample_coordinates(height: int, width: int, dtype: np.dtype) -> NDArray:  # type: ignore[type-arg]
    """0, 1, 2, … in the vertices' precision: kernels must not mix precisions through integer arithmetic."""
    return np.arange(max(height, width, 2), dtype=dtype)
