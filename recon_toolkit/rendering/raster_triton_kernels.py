"""The rasteriser's Triton kernels: a face's geometry, drawing, interpolation, and the backward pass."""

from __future__ import annotations

import triton
import triton.language as tl

from recon_toolkit.rendering.raster_reference import EDGE_ON

# mypy: allow-untyped-decorators


#: Parameters that no kernel is compiled anew for: a size of 1 would otherwise become a constant of another type.
SIZES = ["vertex_count", "face_count", "blocks", "height", "width", "channels", "samples", "total"]

_EDGE_ON = tl.constexpr(EDGE_ON)


@triton.jit
def divide(x, y):  # type: ignore[no-untyped-def]
    """x / y rounded to nearest: Triton's own division of float32 is not."""
    return x / y if y.dtype == tl.float64 else tl.div_rn(x, y)


@triton.jit
def corners_of(vertices, faces, f, mask, vertex_count):  # type: ignore[no-untyped-def]
    """The nine numbers of faces ``f`` of one mesh; NaN, which is never drawn, where a face names no vertex."""
    a = tl.load(faces + f.to(tl.int64) * 3, mask=mask, other=-1).to(tl.int64)
    b = tl.load(faces + f.to(tl.int64) * 3 + 1, mask=mask, other=-1).to(tl.int64)
    c = tl.load(faces + f.to(tl.int64) * 3 + 2, mask=mask, other=-1).to(tl.int64)
    known = (a >= 0) & (a < vertex_count) & (b >= 0) & (b < vertex_count) & (c >= 0) & (c < vertex_count)
    nan = float("nan")
    ax = tl.load(vertices + a * 3, mask=known, other=nan)
    ay = tl.load(vertices + a * 3 + 1, mask=known, other=nan)
    az = tl.load(vertices + a * 3 + 2, mask=known, other=nan)
    bx = tl.load(vertices + b * 3, mask=known, other=nan)
    by = tl.load(vertices + b * 3 + 1, mask=known, other=nan)
    bz = tl.load(vertices + b * 3 + 2, mask=known, other=nan)
    cx = tl.load(vertices + c * 3, mask=known, other=nan)
    cy = tl.load(vertices + c * 3 + 1, mask=known, other=nan)
    cz = tl.load(vertices + c * 3 + 2, mask=known, other=nan)
    return ax, ay, az, bx, by, bz, cx, cy, cz


@triton.jit
def _edge(ax, ay, bx, by, px, py):  # type: ignore[no-untyped-def]
    """The edge function a → b at a sample, with the end points in a fixed order (see edge_functions)."""
    swap = (bx < ax) | ((bx == ax) & (by < ay))
    ox = tl.where(swap, bx, ax)
    oy = tl.where(swap, by, ay)
    dx = tl.where(swap, ax, bx) - ox
    dy = tl.where(swap, ay, by) - oy
    value = dx * (py - oy) - dy * (px - ox)
    return tl.where(swap, -value, value)


@triton.jit
def edges_at(ax, ay, bx, by, cx, cy, px, py):  # type: ignore[no-untyped-def]
    """The three edge functions of a face at a sample; number k belongs to the edge opposite to corner k."""
    return _edge(bx, by, cx, cy, px, py), _edge(cx, cy, ax, ay, px, py), _edge(ax, ay, bx, by, px, py)


@triton.jit
def box_of(ax, ay, az, bx, by, bz, cx, cy, cz, height, width):  # type: ignore[no-untyped-def]
    """First column and row of a face's box of samples, and how many of each: 0 where there is nothing to draw."""
    low_x = tl.minimum(tl.minimum(ax, bx), cx)
    high_x = tl.maximum(tl.maximum(ax, bx), cx)
    low_y = tl.minimum(tl.minimum(ay, by), cy)
    high_y = tl.maximum(tl.maximum(ay, by), cy)
    right = (width - 1).to(ax.dtype)
    bottom = (height - 1).to(ax.dtype)
    extent = tl.maximum(high_x - low_x, high_y - low_y)
    area = tl.abs(_edge(bx, by, cx, cy, ax, ay))
    seen = (high_x >= 0) & (low_x <= right) & (high_y >= 0) & (low_y <= bottom)
    infinity = float("inf")
    seen = seen & (az > 0) & (bz > 0) & (cz > 0) & (az < infinity) & (bz < infinity) & (cz < infinity)
    # The number stands second: before a tensor, an interpreter of some versions of Triton loses the product.
    seen = seen & (area > extent * _EDGE_ON * extent)  # false where u or v is not finite
    x0 = tl.ceil(tl.maximum(tl.where(seen, low_x, 0.0), 0.0)).to(tl.int32)
    y0 = tl.ceil(tl.maximum(tl.where(seen, low_y, 0.0), 0.0)).to(tl.int32)
    x1 = tl.floor(tl.minimum(tl.where(seen, high_x, -1.0), right)).to(tl.int32)
    y1 = tl.floor(tl.minimum(tl.where(seen, high_y, -1.0), bottom)).to(tl.int32)
    columns = tl.where(seen, tl.maximum(x1 - x0 + 1, 0), 0)
    rows = tl.where(seen, tl.maximum(y1 - y0 + 1, 0), 0)
    return x0, y0, columns, rows


@triton.jit
def depth_at(ax, ay, az, bx, by, bz, cx, cy, cz, px, py, NEAR: tl.constexpr, FAR: tl.constexpr):  # type: ignore[no-untyped-def]
    """Does the face cover the sample between near and far, and at which depth?"""
    e0, e1, e2 = edges_at(ax, ay, bx, by, cx, cy, px, py)
    inside = ((e0 >= 0) & (e1 >= 0) & (e2 >= 0)) | ((e0 <= 0) & (e1 <= 0) & (e2 <= 0))
    total = e0 * divide(1.0, az) + e1 * divide(1.0, bz) + e2 * divide(1.0, cz)
    depth = divide(e0 + e1 + e2, total)
    return inside & (depth > NEAR) & (depth < FAR), depth


@triton.jit
def next_sample(x, y, x0, columns):  # type: ignore[no-untyped-def]
    """The sample after (x, y) in a box, row by row."""
    x = x + 1
    wrapped = x >= x0 + columns
    return tl.where(wrapped, x0, x), tl.where(wrapped, y + 1, y)


# mypy: allow-untyped-decorators


#: Rounds of drawing: float32 in one, float64 depth, then face.
PACKED, DEPTH, FACE = 0, 1, 2
#: The counter of large faces holds their number above this bit and the number of their tiles below.
TILE_BITS = 36

_PACKED = tl.constexpr(PACKED)
_DEPTH = tl.constexpr(DEPTH)
_FACE = tl.constexpr(FACE)
_TILE_BITS = tl.constexpr(TILE_BITS)
_TILE_MASK = tl.constexpr((1 << TILE_BITS) - 1)
_TOP = tl.constexpr((1 << 63) - 1)  # a number ^ this is the larger, the smaller the number was
_TOP_FACE = tl.constexpr((1 << 31) - 1)


@triton.jit
def listed(counter):  # type: ignore[no-untyped-def]
    """How many large faces are listed, and how many tiles they have."""
    state = tl.load(counter)
    return state >> _TILE_BITS, state & _TILE_MASK


@triton.jit
def _raise(keys, first_faces, at, depth, f, hit, ROUND: tl.constexpr):  # type: ignore[no-untyped-def]
    """Let face ``f`` at ``depth`` compete for the samples ``at`` where it hits."""
    if ROUND == _PACKED:
        bits = depth.to(tl.float32).to(tl.int32, bitcast=True).to(tl.int64)
        tl.atomic_max(keys + at, ((bits << 32) | f.to(tl.int64)) ^ _TOP, mask=hit, sem="relaxed")
    else:
        key = depth.to(tl.float64).to(tl.int64, bitcast=True) ^ _TOP
        if ROUND == _DEPTH:
            tl.atomic_max(keys + at, key, mask=hit, sem="relaxed")
        else:
            nearest = hit & (tl.load(keys + at, mask=hit, other=0) == key)
            tl.atomic_max(first_faces + at, f.to(tl.int32) ^ _TOP_FACE, mask=nearest, sem="relaxed")


@triton.jit(do_not_specialize=SIZES)
def draw_small(  # type: ignore[no-untyped-def]
    vertices, faces, keys, first_faces, counter, large, starts, vertex_count, face_count, blocks, height, width,
    NEAR: tl.constexpr, FAR: tl.constexpr, ROUND: tl.constexpr, SMALL: tl.constexpr, TILE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Draw the faces with SMALL samples or fewer in their box, a lane each; list the others."""
    n = (tl.program_id(0) // blocks).to(tl.int64)
    f = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    mask = f < face_count
    vertices += n * vertex_count * 3
    ax, ay, az, bx, by, bz, cx, cy, cz = corners_of(vertices, faces, f, mask, vertex_count)
    x0, y0, columns, rows = box_of(ax, ay, az, bx, by, bz, cx, cy, cz, height, width)
    count = columns * rows
    is_large = count > SMALL
    if ROUND != _FACE:
        one = tl.full((BLOCK,), 1, tl.int64)
        packed = tl.where(is_large, (one << _TILE_BITS) + (count.to(tl.int64) + (TILE - 1)) // TILE, 0)
        total = tl.sum(packed, 0)
        base = tl.atomic_add(counter, total, mask=total > 0, sem="relaxed")
        mine = base + tl.cumsum(packed, 0) - packed
        tl.store(large + (mine >> _TILE_BITS), n * face_count + f, mask=is_large)
        tl.store(starts + (mine >> _TILE_BITS), mine & _TILE_MASK, mask=is_large)
    count = tl.where(is_large, 0, count)
    origin = n * height * width
    x, y = x0, y0
    for rank in range(tl.max(count, 0)):
        hit, depth = depth_at(
            ax, ay, az, bx, by, bz, cx, cy, cz, x.to(ax.dtype), y.to(ax.dtype), NEAR, FAR
        )  # fmt: skip
        _raise(keys, first_faces, origin + y * width + x, depth, f, hit & (rank < count), ROUND)
        x, y = next_sample(x, y, x0, columns)


@triton.jit(do_not_specialize=SIZES)
def draw_large(  # type: ignore[no-untyped-def]
    vertices, faces, keys, first_faces, counter, large, starts, vertex_count, face_count, height, width,
    NEAR: tl.constexpr, FAR: tl.constexpr, ROUND: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Draw the listed faces: each program takes an equal share of all their tiles."""
    count, tiles = listed(counter)
    p = tl.program_id(0).to(tl.int64)
    first = tiles * p // tl.num_programs(0)
    last = tiles * (p + 1) // tl.num_programs(0)
    entry = count * 0  # the last entry that starts at ``first`` or before
    end = count
    while end - entry > 1:
        middle = (entry + end) // 2
        before = tl.load(starts + middle) <= first
        entry = tl.where(before, middle, entry)
        end = tl.where(before, end, middle)
    for item in range(first, last):
        following = tl.load(starts + entry + 1, mask=entry + 1 < count, other=1 << 62)
        entry = tl.where(item >= following, entry + 1, entry)
        index = tl.load(large + entry)
        n = index // face_count
        f = (index % face_count).to(tl.int32)
        ax, ay, az, bx, by, bz, cx, cy, cz = corners_of(
            vertices + n * vertex_count * 3, faces, f, f >= 0, vertex_count
        )  # fmt: skip
        x0, y0, columns, rows = box_of(ax, ay, az, bx, by, bz, cx, cy, cz, height, width)
        rank = (item - tl.load(starts + entry)).to(tl.int32) * TILE + tl.arange(0, TILE)
        x = x0 + rank % columns
        y = y0 + rank // columns
        hit, depth = depth_at(
            ax, ay, az, bx, by, bz, cx, cy, cz, x.to(ax.dtype), y.to(ax.dtype), NEAR, FAR
        )  # fmt: skip
        hit = hit & (rank < columns * rows)
        _raise(keys, first_faces, n * height * width + y * width + x, depth, f, hit, ROUND)


@triton.jit
def _winner(keys, first_faces, at, mask, DTYPE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Is there a face at the samples ``at``, which, and at which depth?"""
    key = tl.load(keys + at, mask=mask, other=0)
    hit = key > 0
    if tl.float64 == DTYPE:
        face = tl.load(first_faces + at, mask=mask & hit, other=0) ^ _TOP_FACE
        depth = (key ^ _TOP).to(tl.float64, bitcast=True)
    else:
        face = ((key ^ _TOP) & 0xFFFFFFFF).to(tl.int32)
        depth = ((key ^ _TOP) >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    return hit, tl.where(hit, face, -1), tl.where(hit, depth, 0.0)


@triton.jit(do_not_specialize=SIZES)
def show_fragments(  # type: ignore[no-untyped-def]
    vertices, faces, keys, first_faces, winner, barycentric, depth, vertex_count, samples, width, total,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Face, perspective-correct barycentrics and depth of every sample; ``samples`` is their number per mesh."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < total
    hit, face, z = _winner(keys, first_faces, at, mask, depth.dtype.element_ty)
    tl.store(winner + at, face, mask=mask)
    tl.store(depth + at, z, mask=mask)
    n = at // samples
    place = at - n * samples
    ax, ay, az, bx, by, bz, cx, cy, cz = corners_of(vertices + n * vertex_count * 3, faces, face, hit, vertex_count)
    e0, e1, e2 = edges_at(ax, ay, bx, by, cx, cy, (place % width).to(ax.dtype), (place // width).to(ax.dtype))
    q0 = e0 * divide(1.0, az)
    q1 = e1 * divide(1.0, bz)
    q2 = e2 * divide(1.0, cz)
    q = q0 + q1 + q2
    tl.store(barycentric + at * 3, tl.where(hit, divide(q0, q), 0.0), mask=mask)
    tl.store(barycentric + at * 3 + 1, tl.where(hit, divide(q1, q), 0.0), mask=mask)
    tl.store(barycentric + at * 3 + 2, tl.where(hit, divide(q2, q), 0.0), mask=mask)


@triton.jit(do_not_specialize=SIZES)
def show_depth(  # type: ignore[no-untyped-def]
    keys, first_faces, winner, depth, covered, width, total, SAMPLES: tl.constexpr, BLOCK: tl.constexpr
):
    """Mean depth of every pixel whose samples all see a face, 0 for others; and the faces for the backward pass.

    Pixels are numbered through the whole batch: row n·H + y of them has the rows (n·H + y)·SAMPLES + j of samples.
    """
    pixel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = pixel < total
    row = pixel // width
    corner = row * SAMPLES * (width * SAMPLES) + (pixel - row * width) * SAMPLES
    hits = tl.zeros((BLOCK,), tl.int32)
    sum_z = tl.zeros((BLOCK,), depth.dtype.element_ty)
    for j in range(SAMPLES):
        for i in range(SAMPLES):
            at = corner + j * (width * SAMPLES) + i
            hit, face, z = _winner(keys, first_faces, at, mask, depth.dtype.element_ty)
            tl.store(winner + at, face, mask=mask)
            hits += hit.to(tl.int32)
            sum_z += z
    full = hits == SAMPLES * SAMPLES
    tl.store(depth + pixel, tl.where(full, sum_z * (1.0 / (SAMPLES * SAMPLES)), 0.0), mask=mask)
    tl.store(covered + pixel, full.to(tl.uint8), mask=mask)


# mypy: allow-untyped-decorators


@triton.jit(do_not_specialize=SIZES)
def interpolate_forward(  # type: ignore[no-untyped-def]
    attributes, faces, winner, barycentric, out, vertex_count, channels, samples, total, BLOCK: tl.constexpr
):
    """out (B, H, W, C) = Σ_k barycentric_k · attribute of corner k, 0 where there is no face; a lane a number."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < total
    sample = at // channels
    c = at - sample * channels
    f = tl.load(winner + sample, mask=mask, other=-1)
    hit = f >= 0
    base = attributes + (sample // samples) * vertex_count * channels + c
    value = tl.zeros((BLOCK,), out.dtype.element_ty)
    for k in range(3):
        corner = tl.load(faces + f.to(tl.int64) * 3 + k, mask=hit, other=0).to(tl.int64)
        weight = tl.load(barycentric + sample * 3 + k, mask=hit, other=0.0)
        value += weight * tl.load(base + corner * channels, mask=hit, other=0.0)
    tl.store(out + at, value, mask=mask)


@triton.jit(do_not_specialize=SIZES)
def interpolate_backward(  # type: ignore[no-untyped-def]
    attributes, faces, winner, grad, grad_barycentric, boxes, vertex_count, face_count, channels, height, width, total,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradient of the barycentrics (B, H, W, 3), and ``boxes`` (B, F, 4) of the samples that show a face.

    A box holds width − first column, last column + 1, height − first row, last row + 1; all 0 for no sample.
    """
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < total
    f = tl.load(winner + at, mask=mask, other=-1)
    hit = f >= 0
    n = at // (height * width)
    place = (at - n * (height * width)).to(tl.int32)
    x = place % width
    y = place // width
    box = boxes + (n * face_count + f) * 4
    tl.atomic_max(box, width - x, mask=hit, sem="relaxed")
    tl.atomic_max(box + 1, x + 1, mask=hit, sem="relaxed")
    tl.atomic_max(box + 2, height - y, mask=hit, sem="relaxed")
    tl.atomic_max(box + 3, y + 1, mask=hit, sem="relaxed")
    base = attributes + n * vertex_count * channels
    for k in range(3):
        corner = tl.load(faces + f.to(tl.int64) * 3 + k, mask=hit, other=0).to(tl.int64)
        value = tl.zeros((BLOCK,), grad.dtype.element_ty)
        for c in range(channels):
            g = tl.load(grad + at * channels + c, mask=hit, other=0.0)
            value += g * tl.load(base + corner * channels + c, mask=hit, other=0.0)
        tl.store(grad_barycentric + at * 3 + k, value, mask=mask)


@triton.jit(do_not_specialize=SIZES)
def sum_attributes(  # type: ignore[no-untyped-def]
    winner, barycentric, grad, boxes, out, face_count, channels, height, width, TILE: tl.constexpr
):
    """Gradients ``out`` (B, 3, C, F) of a face's corners: a program sums over the box of the samples that show it."""
    index = tl.program_id(0).to(tl.int64)
    n = index // face_count
    f = (index - n * face_count).to(tl.int32)
    x0 = width - tl.load(boxes + index * 4)
    columns = tl.load(boxes + index * 4 + 1) - x0
    y0 = height - tl.load(boxes + index * 4 + 2)
    count = tl.maximum(columns, 0) * tl.maximum(tl.load(boxes + index * 4 + 3) - y0, 0)
    columns = tl.maximum(columns, 1)
    for c in range(channels):
        s0 = tl.zeros((TILE,), grad.dtype.element_ty)
        s1 = tl.zeros((TILE,), grad.dtype.element_ty)
        s2 = tl.zeros((TILE,), grad.dtype.element_ty)
        for first in range(0, count, TILE):
            rank = first + tl.arange(0, TILE)
            within = rank < count
            at = (n * height + y0 + rank // columns) * width + x0 + rank % columns
            shown = within & (tl.load(winner + at, mask=within, other=-1) == f)
            g = tl.load(grad + at * channels + c, mask=shown, other=0.0)
            s0 += g * tl.load(barycentric + at * 3, mask=shown, other=0.0)
            s1 += g * tl.load(barycentric + at * 3 + 1, mask=shown, other=0.0)
            s2 += g * tl.load(barycentric + at * 3 + 2, mask=shown, other=0.0)
        to = out + (n * 3 * channels + c) * face_count + f
        stride = tl.cast(channels, tl.int64) * face_count
        tl.store(to, tl.sum(s0, 0))
        tl.store(to + stride, tl.sum(s1, 0))
        tl.store(to + stride * 2, tl.sum(s2, 0))


# mypy: allow-untyped-decorators


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
