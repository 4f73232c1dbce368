"""Numba kernels for colour: trilinear lookup in every face's texture cube, and the gradients of textures and light."""

from __future__ import annotations

from numba import njit

from recon_neural_renderer.draw_kernels import face_weights
from recon_toolkit.kernels import parallel


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
