"""Triton kernels that draw: the nearest face at every sample, then what the picture shows there.

Every sample keeps one 64-bit number, the larger the nearer, raised by atomic maxima; so the order in which faces
arrive does not matter. In float32 it holds depth and face. In float64 it holds the depth, and a second round finds
the first face at that depth.

A lane draws a small face alone. Large faces are listed, cut into tiles, and the tiles shared evenly by a fixed number
of programs: how many there are is known on the device only, and nothing waits for it.
"""

# mypy: allow-untyped-decorators
from __future__ import annotations

import triton
import triton.language as tl

from recon_toolkit.rendering.raster_triton_geometry import (
    SIZES,
    box_of,
    corners_of,
    depth_at,
    divide,
    edges_at,
    next_sample,
)

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
