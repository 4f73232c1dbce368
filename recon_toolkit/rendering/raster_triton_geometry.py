"""What all Triton kernels share: a face's corners, its box of samples, its edge functions and depth.

The arithmetic follows raster_reference operation by operation in the vertices' own precision. Kernels are launched
without fused multiply-add, and divisions round as IEEE 754 says, so that faces agree with the reference's.
"""

# mypy: allow-untyped-decorators
from __future__ import annotations

import triton
import triton.language as tl

from recon_toolkit.rendering.raster_reference import EDGE_ON

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
