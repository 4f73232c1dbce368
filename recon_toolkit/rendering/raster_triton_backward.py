"""Triton kernels of the backward pass: a face sums over the samples that show it, a vertex over its faces' corners.

Every sum runs in a fixed order, so equal inputs give equal gradients; nothing is added atomically. Gradients of
corners are laid out (B, 3 corners, C, F), so that neighbouring lanes write neighbouring numbers.
"""

# mypy: allow-untyped-decorators
from __future__ import annotations

import triton
import triton.language as tl

from recon_toolkit.rendering.raster_triton_draw import listed
from recon_toolkit.rendering.raster_triton_geometry import SIZES, box_of, corners_of, divide, edges_at, next_sample


@triton.jit
def _upstream(covered, grad_depth, grad_barycentric, n, x, y, shown, height, width, SAMPLES: tl.constexpr):  # type: ignore[no-untyped-def]
    """Gradients that arrive at samples (x, y): of their depth and, with SAMPLES 0, of their three barycentrics.

    With SAMPLES > 0 these are the samples of a mean depth: each gets an equal share of its covered pixel's gradient.
    """
    if SAMPLES == 0:
        at = (n * height + y) * width + x
        gd = tl.load(grad_depth + at, mask=shown, other=0.0)
        g0 = tl.load(grad_barycentric + at * 3, mask=shown, other=0.0)
        g1 = tl.load(grad_barycentric + at * 3 + 1, mask=shown, other=0.0)
        g2 = tl.load(grad_barycentric + at * 3 + 2, mask=shown, other=0.0)
    else:
        at = (n * (height // SAMPLES) + y // SAMPLES) * (width // SAMPLES) + x // SAMPLES
        shown = shown & (tl.load(covered + at, mask=shown, other=0) != 0)
        gd = tl.load(grad_depth + at, mask=shown, other=0.0) * (1.0 / (SAMPLES * SAMPLES))
        g0, g1, g2 = gd * 0, gd * 0, gd * 0
    return shown, gd, g0, g1, g2


@triton.jit
def _gradients(  # type: ignore[no-untyped-def]
    ax, ay, az, bx, by, bz, cx, cy, cz, px, py, shown, gd, g0, g1, g2, SAMPLES: tl.constexpr
):
    """What samples where the face is shown add to its nine numbers, given the upstream gradients."""
    e0, e1, e2 = edges_at(ax, ay, bx, by, cx, cy, px, py)
    i0, i1, i2 = divide(1.0, az), divide(1.0, bz), divide(1.0, cz)
    q0, q1, q2 = e0 * i0, e1 * i1, e2 * i2
    inverse = divide(1.0, tl.where(shown, q0 + q1 + q2, 1.0))
    gd = gd * inverse
    common = gd * (e0 + e1 + e2) * inverse
    if SAMPLES == 0:
        common += (g0 * q0 + g1 * q1 + g2 * q2) * inverse * inverse
        h0, h1, h2 = g0 * inverse - common, g1 * inverse - common, g2 * inverse - common
    else:
        h0, h1, h2 = -common, -common, -common
    # Gradients of the edge functions, directly through depth and through q; e_0 = b × c relative to the sample.
    d0, d1, d2 = h0 * i0 + gd, h1 * i1 + gd, h2 * i2 + gd
    ax, ay, bx, by, cx, cy = ax - px, ay - py, bx - px, by - py, cx - px, cy - py
    zero = gd * 0
    return (
        tl.where(shown, d2 * by - d1 * cy, zero),
        tl.where(shown, d1 * cx - d2 * bx, zero),
        tl.where(shown, -h0 * q0 * i0, zero),
        tl.where(shown, d0 * cy - d2 * ay, zero),
        tl.where(shown, d2 * ax - d0 * cx, zero),
        tl.where(shown, -h1 * q1 * i1, zero),
        tl.where(shown, d1 * ay - d0 * by, zero),
        tl.where(shown, d0 * bx - d1 * ax, zero),
        tl.where(shown, -h2 * q2 * i2, zero),
    )


@triton.jit(do_not_specialize=SIZES)
def sum_small(  # type: ignore[no-untyped-def]
    vertices, faces, winner, covered, grad_depth, grad_barycentric, out, vertex_count, face_count, blocks, height,
    width, SAMPLES: tl.constexpr, SMALL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients ``out`` (B, 3, 3, F) of the corners of faces with SMALL samples or fewer in their box, a lane each."""
    n = (tl.program_id(0) // blocks).to(tl.int64)
    f = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    mask = f < face_count
    ax, ay, az, bx, by, bz, cx, cy, cz = corners_of(
        vertices + n * vertex_count * 3, faces, f, mask, vertex_count
    )  # fmt: skip
    x0, y0, columns, rows = box_of(ax, ay, az, bx, by, bz, cx, cy, cz, height, width)
    count = columns * rows
    mask = mask & (count <= SMALL)
    count = tl.where(mask, count, 0)
    zero = tl.zeros((BLOCK,), ax.dtype)
    s0, s1, s2, s3, s4, s5, s6, s7, s8 = zero, zero, zero, zero, zero, zero, zero, zero, zero
    x, y = x0, y0
    for rank in range(tl.max(count, 0)):
        within = rank < count
        shown = within & (tl.load(winner + (n * height + y) * width + x, mask=within, other=-1) == f)
        shown, gd, g0, g1, g2 = _upstream(
            covered, grad_depth, grad_barycentric, n, x, y, shown, height, width, SAMPLES
        )  # fmt: skip
        a0, a1, a2, a3, a4, a5, a6, a7, a8 = _gradients(
            ax, ay, az, bx, by, bz, cx, cy, cz, x.to(ax.dtype), y.to(ax.dtype), shown, gd, g0, g1, g2, SAMPLES
        )  # fmt: skip
        s0, s1, s2, s3, s4 = s0 + a0, s1 + a1, s2 + a2, s3 + a3, s4 + a4
        s5, s6, s7, s8 = s5 + a5, s6 + a6, s7 + a7, s8 + a8
        x, y = next_sample(x, y, x0, columns)
    to = out + n * 9 * face_count + f
    stride = tl.cast(face_count, tl.int64)
    tl.store(to, s0, mask=mask)
    tl.store(to + stride, s1, mask=mask)
    tl.store(to + stride * 2, s2, mask=mask)
    tl.store(to + stride * 3, s3, mask=mask)
    tl.store(to + stride * 4, s4, mask=mask)
    tl.store(to + stride * 5, s5, mask=mask)
    tl.store(to + stride * 6, s6, mask=mask)
    tl.store(to + stride * 7, s7, mask=mask)
    tl.store(to + stride * 8, s8, mask=mask)


@triton.jit(do_not_specialize=SIZES)
def sum_large(  # type: ignore[no-untyped-def]
    vertices, faces, winner, covered, grad_depth, grad_barycentric, out, counter, large, vertex_count, face_count,
    height, width, SAMPLES: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """The same for the listed faces: a program sums over a face tile by tile."""
    listed_faces, _tiles = listed(counter)
    p = tl.program_id(0).to(tl.int64)
    programs = tl.num_programs(0).to(tl.int64)
    for turn in range(0, (listed_faces - p + programs - 1) // programs):
        index = tl.load(large + p + turn * programs)
        n = index // face_count
        f = (index % face_count).to(tl.int32)
        ax, ay, az, bx, by, bz, cx, cy, cz = corners_of(
            vertices + n * vertex_count * 3, faces, f, f >= 0, vertex_count
        )  # fmt: skip
        x0, y0, columns, rows = box_of(ax, ay, az, bx, by, bz, cx, cy, cz, height, width)
        zero = tl.zeros((TILE,), ax.dtype)
        s0, s1, s2, s3, s4, s5, s6, s7, s8 = zero, zero, zero, zero, zero, zero, zero, zero, zero
        for first in range(0, columns * rows, TILE):
            rank = first + tl.arange(0, TILE)
            within = rank < columns * rows
            x = x0 + rank % columns
            y = y0 + rank // columns
            shown = within & (tl.load(winner + (n * height + y) * width + x, mask=within, other=-1) == f)
            shown, gd, g0, g1, g2 = _upstream(
                covered, grad_depth, grad_barycentric, n, x, y, shown, height, width, SAMPLES
            )  # fmt: skip
            a0, a1, a2, a3, a4, a5, a6, a7, a8 = _gradients(
                ax, ay, az, bx, by, bz, cx, cy, cz, x.to(ax.dtype), y.to(ax.dtype), shown, gd, g0, g1, g2, SAMPLES
            )  # fmt: skip
            s0, s1, s2, s3, s4 = s0 + a0, s1 + a1, s2 + a2, s3 + a3, s4 + a4
            s5, s6, s7, s8 = s5 + a5, s6 + a6, s7 + a7, s8 + a8
        to = out + n * 9 * face_count + f
        stride = tl.cast(face_count, tl.int64)
        tl.store(to, tl.sum(s0, 0))
        tl.store(to + stride, tl.sum(s1, 0))
        tl.store(to + stride * 2, tl.sum(s2, 0))
        tl.store(to + stride * 3, tl.sum(s3, 0))
        tl.store(to + stride * 4, tl.sum(s4, 0))
        tl.store(to + stride * 5, tl.sum(s5, 0))
        tl.store(to + stride * 6, tl.sum(s6, 0))
        tl.store(to + stride * 7, tl.sum(s7, 0))
        tl.store(to + stride * 8, tl.sum(s8, 0))


@triton.jit(do_not_specialize=SIZES)
def gather(  # type: ignore[no-untyped-def]
    corners, order, offsets, out, vertex_count, face_count, channels, blocks, BLOCK: tl.constexpr
):
    """Gradient ``out`` (B, V, C) of the vertices from their corners' (B, 3, C, F), in the order of their faces."""
    n = (tl.program_id(0) // blocks).to(tl.int64)
    v = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    c = tl.program_id(1)
    mask = v < vertex_count
    begin = tl.load(offsets + v, mask=mask, other=0)
    count = tl.load(offsets + v + 1, mask=mask, other=0) - begin
    total = tl.zeros((BLOCK,), out.dtype.element_ty)
    for i in range(tl.max(count, 0)):
        within = i < count
        corner = tl.load(order + begin + i, mask=within, other=0)
        at = ((n * 3 + corner % 3) * channels + c) * face_count + corner // 3
        total += tl.load(corners + at, mask=within, other=0.0)
    tl.store(out + (n * vertex_count + v) * channels + c, total, mask=mask)
