"""Numba kernels: which face each sample sees, Kato's approximate gradient, and texture cubes."""

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


@njit(inline="always")
def _place(points, a, b, c, px, py, last, eps):  # type: ignore[no-untyped-def]
    """Coordinates in the texture cube: w_k (t − 1) D / z_k, clamped to [0, t − 1 − eps]."""
    w0, w1, w2, _ = face_weights(points, a, b, c, px, py)
    q0, q1, q2 = w0 / points[a, 2], w1 / points[b, 2], w2 / points[c, 2]
    scale = last / (q0 + q1 + q2)
    limit = max(last - eps, last - last)
    return min(q0 * scale, limit), min(q1 * scale, limit), min(q2 * scale, limit)


@njit(inline="always")
def _corner(place, k, last, coords):  # type: ignore[no-untyped-def]
    """Index and weight of the lower (k = 0) or upper (k = 1) neighbour along one axis."""
    base = int(place)
    fraction = place - coords[base]
    if k == 0:
        return base, coords[1] - fraction
    return min(base + 1, last), fraction


@parallel(error_model="numpy")
def shade(  # type: ignore[no-untyped-def]
    lo, hi, points, faces, textures, light, background, coords, eps, samples, winner, colour, out,
):  # fmt: skip
    """Fill ``colour`` (B, rows, columns, 3) per sample and ``out`` (B, 3, H, W), its means per pixel."""
    _, _, height, width = out.shape
    zero, one = coords[0], coords[1]
    size = textures.shape[2]
    count = faces.shape[1]
    share = one / coords.dtype.type(samples * samples)
    for row in range(lo, hi):
        n, y = row // height, row % height
        own = faces[n] if faces.shape[0] > 1 else faces[0]
        for x in range(width):
            for c in range(3):
                out[n, c, y, x] = zero
            for j in range(samples * y, samples * (y + 1)):
                for i in range(samples * x, samples * (x + 1)):
                    index = winner[n, j, i]
                    r, g, b = background[n, 0], background[n, 1], background[n, 2]
                    if index >= 0:
                        f = index - count if index >= count else index
                        t0, t1, t2 = _place(
                            points[n], own[f, 0], own[f, 1], own[f, 2], coords[i], coords[j], coords[size - 1], eps
                        )
                        r, g, b = zero, zero, zero
                        for k in range(8):
                            i0, w0 = _corner(t0, k & 1, size - 1, coords)
                            i1, w1 = _corner(t1, (k >> 1) & 1, size - 1, coords)
                            i2, w2 = _corner(t2, k >> 2, size - 1, coords)
                            w = w0 * w1 * w2
                            r += w * textures[n, f, i0, i1, i2, 0]
                            g += w * textures[n, f, i0, i1, i2, 1]
                            b += w * textures[n, f, i0, i1, i2, 2]
                        r, g, b = r * light[n, index, 0], g * light[n, index, 1], b * light[n, index, 2]
                    colour[n, j, i, 0], colour[n, j, i, 1], colour[n, j, i, 2] = r, g, b
                    out[n, 0, y, x] += r * share
                    out[n, 1, y, x] += g * share
                    out[n, 2, y, x] += b * share


@parallel(error_model="numpy")
def shade_backward(  # type: ignore[no-untyped-def]
    lo, hi, points, faces, textures, light, coords, eps, samples, parts, winner, grad, grad_textures, grad_light,
):  # fmt: skip
    """Add the gradients of ``textures`` and ``light``. Every task owns the faces f ≡ part, so that no two share one."""
    _, _, height, width = grad.shape
    zero, one = coords[0], coords[1]
    size = textures.shape[2]
    count = faces.shape[1]
    share = one / coords.dtype.type(samples * samples)
    for task in range(lo, hi):
        n, part = task // parts, task % parts
        own = faces[n] if faces.shape[0] > 1 else faces[0]
        for j in range(samples * height):
            y = j // samples
            for i in range(samples * width):
                index = winner[n, j, i]
                if index < 0:
                    continue
                f = index - count if index >= count else index
                if f % parts != part:
                    continue
                x = i // samples
                gr, gg, gb = grad[n, 0, y, x] * share, grad[n, 1, y, x] * share, grad[n, 2, y, x] * share
                if gr == zero and gg == zero and gb == zero:
                    continue
                t0, t1, t2 = _place(
                    points[n], own[f, 0], own[f, 1], own[f, 2], coords[i], coords[j], coords[size - 1], eps
                )
                lr, lg, lb = gr * light[n, index, 0], gg * light[n, index, 1], gb * light[n, index, 2]
                r, g, b = zero, zero, zero
                for k in range(8):
                    i0, w0 = _corner(t0, k & 1, size - 1, coords)
                    i1, w1 = _corner(t1, (k >> 1) & 1, size - 1, coords)
                    i2, w2 = _corner(t2, k >> 2, size - 1, coords)
                    w = w0 * w1 * w2
                    r += w * textures[n, f, i0, i1, i2, 0]
                    g += w * textures[n, f, i0, i1, i2, 1]
                    b += w * textures[n, f, i0, i1, i2, 2]
                    grad_textures[n, f, i0, i1, i2, 0] += w * lr
                    grad_textures[n, f, i0, i1, i2, 1] += w * lg
                    grad_textures[n, f, i0, i1, i2, 2] += w * lb
                grad_light[n, index, 0] += gr * r
                grad_light[n, index, 1] += gg * g
                grad_light[n, index, 2] += gb * b
