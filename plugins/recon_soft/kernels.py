"""The CPU soft rasteriser: Numba kernels, parallel over the batch and over bands of rows, equal to the reference.

Faces are drawn one after another; each pixel keeps running sums under the largest exponent so far. The backward pass
visits the same pairs again instead of storing them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from recon_soft.reference import LARGEST, Settings
from recon_toolkit.kernels import parallel
from recon_toolkit.rendering import FAR, NEAR
from recon_toolkit.rendering.raster_numba import row_bands, sample_coordinates
from recon_toolkit.rendering.raster_reference import EDGE_ON

__all__ = ["backward", "forward", "inputs", "row_bands"]


def inputs(vertices: Any, faces: Any, attributes: Any, height: int, width: int, settings: Settings) -> tuple[Any, ...]:
    """The first arguments of both kernels."""
    coordinates = sample_coordinates(height, width, vertices.dtype)
    bands = row_bands(len(vertices), height)
    return vertices, faces, attributes, coordinates, bands, constants(settings, vertices.dtype)


def constants(settings: Settings, dtype: Any) -> Any:
    """Numbers in the vertices' precision, so that kernels never mix precisions."""
    slope = 1 / (settings.far - settings.near) / settings.gamma
    values = (0, 1, 2, 1 / settings.sigma, settings.radius, settings.radius**2, slope, settings.middle)
    return np.array((*values, EDGE_ON, LARGEST, NEAR, FAR), dtype=dtype)


@njit(inline="always", error_model="numpy")
def _corners(vs, a, b, c):  # type: ignore[no-untyped-def]
    return vs[a, 0], vs[a, 1], vs[b, 0], vs[b, 1], vs[c, 0], vs[c, 1]


@njit(inline="always", error_model="numpy")
def _box(vs, a, b, c, k, first, last, coords, width):  # type: ignore[no-untyped-def]
    """Columns and rows x0..x1, y0..y1 that face a, b, c may touch; x1 < x0 for a face that is not drawn."""
    zero, radius = k[0], k[4]
    ax, ay, bx, by, cx, cy = _corners(vs, a, b, c)
    low_y, high_y = min(ay, by, cy), max(ay, by, cy)
    low_x, high_x = min(ax, bx, cx), max(ax, bx, cx)
    # Written so that a NaN anywhere fails the test.
    if not (high_y + radius >= coords[first] and low_y - radius <= coords[last - 1]):
        return 0, -1, 0, -1
    if not (high_x + radius >= zero and low_x - radius <= coords[width - 1]):
        return 0, -1, 0, -1
    low_z, high_z = min(vs[a, 2], vs[b, 2], vs[c, 2]), max(vs[a, 2], vs[b, 2], vs[c, 2])
    extent = max(high_x - low_x, high_y - low_y)
    area = abs((bx - ax) * (cy - ay) - (by - ay) * (cx - ax))
    if not (area > k[8] * extent * extent and extent < k[9] and low_z > k[10] and high_z < k[11]):
        return 0, -1, 0, -1
    y0, y1 = math.ceil(max(low_y - radius, coords[first])), math.floor(min(high_y + radius, coords[last - 1]))
    x0, x1 = math.ceil(max(low_x - radius, zero)), math.floor(min(high_x + radius, coords[width - 1]))
    # min and max of NaN depend on the order of their arguments; the area does not.
    return (x0, x1, y0, y1) if area == area and low_z == low_z else (0, -1, 0, -1)


@njit(inline="always", error_model="numpy")
def _clip(x, zero, one):  # type: ignore[no-untyped-def]
    """x in [0, 1]. Numba's min and max mind NaN and are slower; there is none here."""
    x = x if x > zero else zero
    return x if x < one else one


@njit(inline="always", error_model="numpy")
def _edge(ax, ay, bx, by, inverse, zero, one):  # type: ignore[no-untyped-def]
    """Squared distance of the origin to edge a → b, and where on it (0 to 1) the nearest point lies."""
    dx, dy = bx - ax, by - ay
    t = _clip(-(ax * dx + ay * dy) * inverse, zero, one)
    qx, qy = ax * (one - t) + bx * t, ay * (one - t) + by * t
    return qx * qx + qy * qy, t


@njit(inline="always", error_model="numpy")
def _lengths(ax, ay, bx, by, cx, cy, one):  # type: ignore[no-untyped-def]
    """1 / length² of the edges a → b, b → c, c → a, and 1 / doubled signed area."""
    abx, aby, bcx, bcy, cax, cay = bx - ax, by - ay, cx - bx, cy - by, ax - cx, ay - cy
    area = aby * cax - abx * cay  # a − c is exactly −(c − a)
    return one / (abx * abx + aby * aby), one / (bcx * bcx + bcy * bcy), one / (cax * cax + cay * cay), one / area


@njit(inline="always", error_model="numpy")
def _inside(ax, ay, bx, by, cx, cy, zero):  # type: ignore[no-untyped-def]
    """Whether the origin is in the triangle or on it, and the edge functions of corners a, b and c."""
    e0, e1, e2 = bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx
    inside = (e0 >= zero and e1 >= zero and e2 >= zero) or (e0 <= zero and e1 <= zero and e2 <= zero)
    return inside, e1, e2


@njit(inline="always", error_model="numpy")
def _barycentrics(e1, e2, inverse_area, one):  # type: ignore[no-untyped-def]
    """Weights of the three corners, not yet clamped; see recon_soft.reference.clamped_barycentrics."""
    b1, b2 = e1 * inverse_area, e2 * inverse_area
    return one - b1 - b2, b1, b2


@parallel(error_model="numpy")
def forward(  # type: ignore[no-untyped-def]
    lo, hi, vertices, faces, attributes, coords, bands, k, clear, depth, means, log_weight, log_clear,
    covered,
):  # fmt: skip
    """Fill the sums of recon_soft.reference.Sums for vertices (B, V, 3), faces (F, 3), attributes (B, V, C).

    Depths are relative to the middle of the range, and so are the exponents in ``log_weight``. ``log_clear`` costs a
    logarithm a pair and is left at 0 unless ``clear`` is true.
    """
    _, height, width = depth.shape
    channels = attributes.shape[2]
    zero, one = k[0], k[1]
    for task in range(lo, hi):
        n, band = task // bands, task % bands
        first, last = height * band // bands, height * (band + 1) // bands
        if first == last:
            continue
        vs, values = vertices[n], attributes[n]
        peak = np.full((last - first, width), -np.inf, vertices.dtype)
        total = np.zeros((last - first, width), vertices.dtype)
        depth[n, first:last] = zero
        means[n, first:last] = zero
        log_clear[n, first:last] = zero
        covered[n, first:last] = False
        for f in range(faces.shape[0]):
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            x0, x1, y0, y1 = _box(vs, a, b, c, k, first, last, coords, width)
            if x1 < x0 or y1 < y0:
                continue
            au, av, bu, bv, cu, cv = _corners(vs, a, b, c)
            iab, ibc, ica, inverse_area = _lengths(au, av, bu, bv, cu, cv, one)
            iza, izb, izc = one / vs[a, 2], one / vs[b, 2], one / vs[c, 2]
            za, zb, zc = vs[a, 2] - k[7], vs[b, 2] - k[7], vs[c, 2] - k[7]
            for y in range(y0, y1 + 1):
                ay, by, cy = av - coords[y], bv - coords[y], cv - coords[y]
                row = y - first
                for x in range(x0, x1 + 1):
                    ax, bx, cx = au - coords[x], bu - coords[x], cu - coords[x]
                    d2, _ = _edge(ax, ay, bx, by, iab, zero, one)
                    other, _ = _edge(bx, by, cx, cy, ibc, zero, one)
                    d2 = other if other < d2 else d2
                    other, _ = _edge(cx, cy, ax, ay, ica, zero, one)
                    d2 = other if other < d2 else d2
                    inside, e1, e2 = _inside(ax, ay, bx, by, cx, cy, zero)
                    if inside:
                        covered[n, y, x] = True
                    elif d2 >= k[5]:
                        continue
                    # One exponential gives both D and log(1 − D) = −softplus(±d² / sigma).
                    small = math.exp(-d2 * k[3])
                    weight = (one if inside else small) / (one + small)
                    if clear:
                        log_clear[n, y, x] -= (d2 * k[3] if inside else zero) + math.log1p(small)
                    b0, b1, b2 = _barycentrics(e1, e2, inverse_area, one)
                    q0 = _clip(b0, zero, one) * iza
                    q1 = _clip(b1, zero, one) * izb
                    q2 = _clip(b2, zero, one) * izc
                    scale = one / (q0 + q1 + q2)
                    z = (q0 * za + q1 * zb + q2 * zc) * scale
                    nearness = -z * k[6]
                    if nearness > peak[row, x]:
                        fade = math.exp(peak[row, x] - nearness)
                        peak[row, x] = nearness
                        total[row, x] *= fade
                        depth[n, y, x] *= fade
                        for i in range(channels):
                            means[n, y, x, i] *= fade
                    else:
                        weight *= math.exp(nearness - peak[row, x])
                    total[row, x] += weight
                    depth[n, y, x] += weight * z
                    for i in range(channels):
                        value = (q0 * values[a, i] + q1 * values[b, i] + q2 * values[c, i]) * scale
                        means[n, y, x, i] += weight * value
        for y in range(first, last):
            for x in range(width):
                weight = total[y - first, x]
                if weight > zero:
                    log_weight[n, y, x] = math.log(weight) + peak[y - first, x]
                    depth[n, y, x] /= weight
                    for i in range(channels):
                        means[n, y, x, i] /= weight
                else:
                    log_weight[n, y, x] = -np.inf


@njit(inline="always", error_model="numpy")
def _clamped(b, g, zero, one):  # type: ignore[no-untyped-def]
    """The gradient g of a clamped weight b passes within [0, 1]."""
    return g if b >= zero and b <= one else zero


@parallel(error_model="numpy")
def backward(  # type: ignore[no-untyped-def]
    lo, hi, vertices, faces, attributes, coords, bands, k, depth, means, log_weight, grad_depth, grad_means,
    grad_weight, grad_clear, out, out_attributes,
):  # fmt: skip
    """Add gradients to ``out`` (B, bands, V, 3) and ``out_attributes`` (B, bands, V, C), a slice per band of rows."""
    _, height, width = depth.shape
    channels = attributes.shape[2]
    zero, one, two = k[0], k[1], k[2]
    for task in range(lo, hi):
        n, band = task // bands, task % bands
        first, last = height * band // bands, height * (band + 1) // bands
        if first == last:
            continue
        vs, values, grad, grad_values = vertices[n], attributes[n], out[n, band], out_attributes[n, band]
        for f in range(faces.shape[0]):
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            x0, x1, y0, y1 = _box(vs, a, b, c, k, first, last, coords, width)
            if x1 < x0 or y1 < y0:
                continue
            au, av, bu, bv, cu, cv = _corners(vs, a, b, c)
            iab, ibc, ica, inverse_area = _lengths(au, av, bu, bv, cu, cv, one)
            iza, izb, izc = one / vs[a, 2], one / vs[b, 2], one / vs[c, 2]
            za, zb, zc = vs[a, 2] - k[7], vs[b, 2] - k[7], vs[c, 2] - k[7]
            # The face's gradient is kept in registers and added once.
            gau, gav, gbu, gbv, gcu, gcv, gaz, gbz, gcz = zero, zero, zero, zero, zero, zero, zero, zero, zero
            for y in range(y0, y1 + 1):
                ay, by, cy = av - coords[y], bv - coords[y], cv - coords[y]
                for x in range(x0, x1 + 1):
                    ax, bx, cx = au - coords[x], bu - coords[x], cu - coords[x]
                    d2, t0 = _edge(ax, ay, bx, by, iab, zero, one)
                    d2b, t1 = _edge(bx, by, cx, cy, ibc, zero, one)
                    d2c, t2 = _edge(cx, cy, ax, ay, ica, zero, one)
                    # Shares of the corners in the nearest point of the nearest edge.
                    ta, tb, tc = one - t0, t0, zero
                    if d2b < d2:
                        d2, ta, tb, tc = d2b, zero, one - t1, t1
                    if d2c < d2:
                        d2, ta, tb, tc = d2c, t2, zero, one - t2
                    inside, e1, e2 = _inside(ax, ay, bx, by, cx, cy, zero)
                    if not inside and d2 >= k[5]:
                        continue
                    small = math.exp(-d2 * k[3])
                    rest = one / (one + small)
                    probability = rest if inside else small * rest
                    b0, b1, b2 = _barycentrics(e1, e2, inverse_area, one)
                    q0 = _clip(b0, zero, one) * iza
                    q1 = _clip(b1, zero, one) * izb
                    q2 = _clip(b2, zero, one) * izc
                    scale = one / (q0 + q1 + q2)
                    z = (q0 * za + q1 * zb + q2 * zc) * scale
                    weight = probability * math.exp(-z * k[6] - log_weight[n, y, x])

                    # Gradients of log weight (h), of depth (gz) and of q_k (r_k), from means Σ q_k value_k / Σ q_k.
                    h = grad_weight[n, y, x] + grad_depth[n, y, x] * (z - depth[n, y, x])
                    r0, r1, r2 = zero, zero, zero
                    for i in range(channels):
                        g = grad_means[n, y, x, i]
                        va, vb, vc = values[a, i], values[b, i], values[c, i]
                        value = (q0 * va + q1 * vb + q2 * vc) * scale
                        h += g * (value - means[n, y, x, i])
                        g *= weight * scale
                        r0 += g * (va - value)
                        r1 += g * (vb - value)
                        r2 += g * (vc - value)
                        grad_values[a, i] += g * q0
                        grad_values[b, i] += g * q1
                        grad_values[c, i] += g * q2
                    h *= weight
                    gz = (grad_depth[n, y, x] * weight - h * k[6]) * scale
                    r0, r1, r2 = (r0 + gz * (za - z)) * iza, (r1 + gz * (zb - z)) * izb, (r2 + gz * (zc - z)) * izc
                    gaz += (gz - r0) * q0
                    gbz += (gz - r1) * q1
                    gcz += (gz - r2) * q2

                    # Through the clamped weights, whose sum cancels, to the edge functions e_0 = b × c and so on.
                    g0 = _clamped(b0, r0, zero, one)
                    g1 = _clamped(b1, r1, zero, one) - g0
                    g2 = _clamped(b2, r2, zero, one) - g0
                    mean = g1 * b1 + g2 * b2
                    g0, g1, g2 = -mean * inverse_area, (g1 - mean) * inverse_area, (g2 - mean) * inverse_area

                    # Through D to the corners of the nearest edge.
                    g = (h * (one - probability) - grad_clear[n, y, x] * probability) * k[3] * two
                    if not inside:
                        g = -g
                    gx, gy = g * (ta * ax + tb * bx + tc * cx), g * (ta * ay + tb * by + tc * cy)
                    gau += g2 * by - g1 * cy + gx * ta
                    gav += g1 * cx - g2 * bx + gy * ta
                    gbu += g0 * cy - g2 * ay + gx * tb
                    gbv += g2 * ax - g0 * cx + gy * tb
                    gcu += g1 * ay - g0 * by + gx * tc
                    gcv += g0 * bx - g1 * ax + gy * tc
            grad[a, 0] += gau
            grad[a, 1] += gav
            grad[a, 2] += gaz
            grad[b, 0] += gbu
            grad[b, 1] += gbv
            grad[b, 2] += gbz
            grad[c, 0] += gcu
            grad[c, 1] += gcv
            grad[c, 2] += gcz
