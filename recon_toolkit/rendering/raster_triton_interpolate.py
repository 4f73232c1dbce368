"""Triton kernels that interpolate attributes to the samples, and back."""

# mypy: allow-untyped-decorators
from __future__ import annotations

import triton
import triton.language as tl

from recon_toolkit.rendering.raster_triton_geometry import SIZES


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
