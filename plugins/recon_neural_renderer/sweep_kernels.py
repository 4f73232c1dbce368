"""Numba kernels for Kato's approximate gradient of silhouettes and colours: an outer and an inner sweep per edge.

Where an edge a → b of a face crosses a line of samples at d*, moving the edge outward past a sample q would change it
from I_q to the inside colour; moving it inward past q, from I_q to the outside colour. What the loss would lose,
δ = Σ_c (I_q − I_other)_c g_qc where positive, divided by the distance that the vertex would have to move, is its
gradient. Only samples that can contribute are looked at: each line lists them once, and every sweep runs over a part
of that list. Faces that win no sample have no gradient and are left out. Nothing is truncated.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from recon_toolkit.kernels import compiled, parallel


@parallel(error_model="numpy")
def spread(lo, hi, winner, colour, grad_alpha, grad_rgb, samples, share, image, grad):  # type: ignore[no-untyped-def]
    """Fill ``image`` and ``grad`` (rows, columns, C) of one mesh: coverage, then colours if C = 4."""
    _, columns, channels = image.shape
    one = share / share
    zero = one - one
    for j in range(lo, hi):
        for i in range(columns):
            image[j, i, 0] = one if winner[j, i] >= 0 else zero
            grad[j, i, 0] = grad_alpha[j // samples, i // samples] * share
            for c in range(1, channels):
                image[j, i, c] = colour[j, i, c - 1]
                grad[j, i, c] = grad_rgb[c - 1, j // samples, i // samples] * share


@compiled()
def winners(winner, faces):  # type: ignore[no-untyped-def]
    """The faces, backs included, that win a sample, in ascending order."""
    seen = np.zeros(faces, np.bool_)
    for j in range(winner.shape[0]):
        for i in range(winner.shape[1]):
            if winner[j, i] >= 0:
                seen[winner[j, i]] = True
    return np.flatnonzero(seen)


@compiled()
def limits(winner, image):  # type: ignore[no-untyped-def]
    """The least and the greatest value of every channel over the samples that see a face: (C, 2)."""
    channels = image.shape[2]
    out = np.empty((channels, 2), image.dtype)
    out[:, 0], out[:, 1] = np.inf, -np.inf
    for j in range(winner.shape[0]):
        for i in range(winner.shape[1]):
            if winner[j, i] >= 0:
                for c in range(channels):
                    out[c, 0] = min(out[c, 0], image[j, i, c])
                    out[c, 1] = max(out[c, 1], image[j, i, c])
    return out


@parallel(error_model="numpy")
def list_samples(lo, hi, image, grad, bounds, coords, start, listed):  # type: ignore[no-untyped-def]
    """For every line (first axis), the samples along it for which any inside colour gives δ > 0.

    ``start`` (lines, M + 1) counts the listed samples before each place; ``listed`` (lines, 1 + 2C, M) holds their
    place, image and gradient. The bound is exact: rounding is monotonic, so it is never below δ.
    """
    _, length, channels = image.shape
    zero = coords[0]
    for line in range(lo, hi):
        count = 0
        for q in range(length):
            start[line, q] = count
            bound = zero
            for c in range(channels):
                g, value = grad[line, q, c], image[line, q, c]
                bound += max((value - bounds[c, 0]) * g, (value - bounds[c, 1]) * g)
            if bound > zero:
                listed[line, 0, count] = coords[q]
                for c in range(channels):
                    listed[line, 1 + c, count] = image[line, q, c]
                    listed[line, 1 + channels + c, count] = grad[line, q, c]
                count += 1
        start[line, length] = count


@compiled(error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _outer(listed, begin, end, inside, cross, scale_a, scale_b, eps):  # type: ignore[no-untyped-def]
    """Sums of δ / distance for both ends of the edge over listed samples begin..end−1."""
    zero = cross - cross
    sum_a, sum_b = zero, zero
    place = listed[0]
    if inside.shape[0] == 1:
        value, g, own = listed[1], listed[2], inside[0]
        for k in range(begin, end):
            delta = max((value[k] - own) * g[k], zero)
            distance = abs(place[k] - cross)
            sum_a += delta / (scale_a * distance + eps)
            sum_b += delta / (scale_b * distance + eps)
        return sum_a, sum_b
    v0, v1, v2, v3 = listed[1], listed[2], listed[3], listed[4]
    g0, g1, g2, g3 = listed[5], listed[6], listed[7], listed[8]
    o0, o1, o2, o3 = inside[0], inside[1], inside[2], inside[3]
    for k in range(begin, end):
        delta = (v0[k] - o0) * g0[k] + (v1[k] - o1) * g1[k] + (v2[k] - o2) * g2[k] + (v3[k] - o3) * g3[k]
        delta = max(delta, zero)
        distance = abs(place[k] - cross)
        sum_a += delta / (scale_a * distance + eps)
        sum_b += delta / (scale_b * distance + eps)
    return sum_a, sum_b


@compiled(error_model="numpy")
def _inner(image, grad, winner, index, line, first, last, outside, cross, scale_a, scale_b, eps, at_zero, coords):  # type: ignore[no-untyped-def]
    """Signed sums of δ / distance over samples first..last of a line that this face wins."""
    zero = coords[0]
    sum_a, sum_b = zero, zero
    for q in range(first, last + 1):
        if winner[line, q] != index:
            continue
        delta = zero
        for c in range(image.shape[2]):
            delta += (image[line, q, c] - outside[c]) * grad[line, q, c]
        if delta > zero:
            away = coords[q] - cross
            push = eps if (away > zero or (away == zero and at_zero)) else -eps
            if scale_a < np.inf:
                sum_a += delta / (scale_a * away + push)
            if scale_b < np.inf:
                sum_b += delta / (scale_b * away + push)
    return sum_a, sum_b


@njit(inline="always")
def _opposite(a0, a1, b0, b1, c0, c1, d0):  # type: ignore[no-untyped-def]
    """Where a line d0 leaves the face on the far side of the edge a → b: on a–c or on b–c."""
    if (d0 - a0) * (d0 - c0) < 0:
        return (c1 - a1) / (c0 - a0) * (d0 - a0) + a1
    return (b1 - c1) / (b0 - c0) * (d0 - c0) + c1


@compiled(error_model="numpy")
def _edge_gradient(a0, a1, b0, b1, c0, c1, outward, at_zero, index, image, grad, winner, start, listed, eps, coords):  # type: ignore[no-untyped-def]
    """Gradient of a1 and b1 from all lines d0 between a0 and b0. Lines are the first axis of every array."""
    lines, length = winner.shape
    zero = coords[0]
    one = coords[1]
    scale = (one + one) / coords.dtype.type(length)
    grad_a, grad_b = zero, zero
    low, high = min(a0, b0), max(a0, b0)
    if not (low < high and high >= zero and low <= coords[lines - 1]):
        return grad_a, grad_b
    first = int(np.ceil(max(low, zero)))
    last = int(np.floor(min(high, coords[lines - 1])))
    slope = (b1 - a1) / (b0 - a0)
    for line in range(first, last + 1):
        d0 = coords[line]
        cross = slope * (d0 - a0) + a1
        edge = np.floor(cross) if outward > 0 else np.ceil(cross)
        if not (edge >= zero and edge <= coords[length - 1]):
            continue
        inside = int(edge)
        outside = inside + outward
        if outside < 0 or outside >= length:
            continue
        # λ of either end: how much farther the end must move than the crossing. A line through the other end has none.
        scale_a = (b0 - a0) / (b0 - d0) * scale if b0 != d0 else np.inf
        scale_b = (b0 - a0) / (d0 - a0) * scale if a0 != d0 else np.inf
        if winner[line, inside] == index:
            if outward > 0:
                begin, end = start[line, outside], start[line, length]
            else:
                begin, end = 0, start[line, outside + 1]
            if begin < end:
                out_a, out_b = _outer(listed[line], begin, end, image[line, inside], cross, scale_a, scale_b, eps)
                sign = one if outward > 0 else -one
                grad_a -= sign * out_a
                grad_b -= sign * out_b
        far = _opposite(a0, a1, b0, b1, c0, c1, d0)
        border = zero if outward > 0 else coords[length - 1]
        far = min(max(far, zero), coords[length - 1]) if np.isfinite(far) else border
        limit = int(np.ceil(far)) if outward > 0 else int(np.floor(far))
        in_a, in_b = _inner(
            image, grad, winner, index, line, min(inside, limit), max(inside, limit), image[line, outside],
            cross, scale_a, scale_b, eps, at_zero, coords,
        )  # fmt: skip
        grad_a -= in_a
        grad_b -= in_b
    return grad_a * scale, grad_b * scale


@parallel(error_model="numpy")
def sweep(  # type: ignore[no-untyped-def]
    lo, hi, points, faces, seen, tasks, coords, eps, image, grad, winner, start, listed, image_t, grad_t,
    winner_t, start_t, listed_t, out,
):  # fmt: skip
    """Gradient of x and y of the three corners of every seen face: ``out`` (len(seen), 3, 2).

    Arrays that end in ``_t`` have columns first, for the sweeps along y. Every task owns the faces n ≡ task.
    """
    count = faces.shape[0]
    for task in range(lo, hi):
        for n in range(task, len(seen), tasks):
            index = seen[n]
            back = index >= count
            f = index - count if back else index
            for edge in range(3):
                # A back is the face with its corners in reverse.
                ka = 2 - edge if back else edge
                kb = 2 - (edge + 1) % 3 if back else (edge + 1) % 3
                kc = 2 - (edge + 2) % 3 if back else (edge + 2) % 3
                a, b, c = faces[f, ka], faces[f, kb], faces[f, kc]
                ax, ay, bx, by = points[a, 0], points[a, 1], points[b, 0], points[b, 1]
                cx, cy = points[c, 0], points[c, 1]
                along_a, along_b = _edge_gradient(
                    ax, ay, bx, by, cx, cy, 1 if ax < bx else -1, True, index,
                    image_t, grad_t, winner_t, start_t, listed_t, eps, coords,
                )  # fmt: skip
                across_a, across_b = _edge_gradient(
                    ay, ax, by, bx, cy, cx, -1 if ay < by else 1, False, index,
                    image, grad, winner, start, listed, eps, coords,
                )  # fmt: skip
                out[n, ka, 0] += across_a
                out[n, kb, 0] += across_b
                out[n, ka, 1] += along_a
                out[n, kb, 1] += along_b


@compiled()
def gather(faces, seen, parts, out):  # type: ignore[no-untyped-def]
    """Add the faces' gradients (len(seen), 3, 2) to the vertices' ``out`` (V, 3)."""
    count = faces.shape[0]
    for n in range(len(seen)):
        f = seen[n] - count if seen[n] >= count else seen[n]
        for k in range(3):
            out[faces[f, k], 0] += parts[n, k, 0]
            out[faces[f, k], 1] += parts[n, k, 1]
