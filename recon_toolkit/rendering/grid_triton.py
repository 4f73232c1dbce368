"""Triton kernels behind grid_vertices and canonical_grid: a depth map's points moved and projected, and back."""

# mypy: allow-untyped-decorators
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from recon_toolkit.rendering.raster_triton import OPTIONS, on_device_of
from recon_toolkit.rendering.raster_triton_geometry import SIZES, divide

_BLOCK = 256


@triton.jit
def _ray(at, height, width, zero, FOCAL: tl.constexpr):  # type: ignore[no-untyped-def]
    """K⁻¹ (u, v, 1) of a pixel, its first two components, in the precision of ``zero``."""
    dtype = zero.dtype
    centre_x = (width - 1).to(dtype) * 0.5
    centre_y = (height - 1).to(dtype) * 0.5
    focal = zero + FOCAL
    return divide((at % width).to(dtype) - centre_x, focal), divide((at // width).to(dtype) - centre_y, focal)


@triton.jit(do_not_specialize=SIZES)
def place_forward(  # type: ignore[no-untyped-def]
    map_depth, rotation, offset, out, blocks, height, width, RAY: tl.constexpr, FU: tl.constexpr, FV: tl.constexpr,
    CU: tl.constexpr, CV: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out (B, H·W, 3): u = FU · x / z + CU, v = FV · y / z + CV and z of the points R · depth · ray + offset."""
    n = (tl.program_id(0) // blocks).to(tl.int64)
    at = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    mask = at < height * width
    d = tl.load(map_depth + n * height * width + at, mask=mask, other=1.0)
    a, b = _ray(at, height, width, d * 0, RAY)
    r, o = rotation + n * 9, offset + n * 3
    px = d * (tl.load(r) * a + tl.load(r + 1) * b + tl.load(r + 2)) + tl.load(o)
    py = d * (tl.load(r + 3) * a + tl.load(r + 4) * b + tl.load(r + 5)) + tl.load(o + 1)
    pz = d * (tl.load(r + 6) * a + tl.load(r + 7) * b + tl.load(r + 8)) + tl.load(o + 2)
    # A point at or behind the camera is never drawn: any finite place will do.
    inverse = divide(1.0, tl.where(pz > 0, pz, 1.0))
    to = out + (n * height * width + at) * 3
    tl.store(to, px * (inverse * FU) + CU, mask=mask)
    tl.store(to + 1, py * (inverse * FV) + CV, mask=mask)
    tl.store(to + 2, pz, mask=mask)


@triton.jit(do_not_specialize=SIZES)
def place_backward(  # type: ignore[no-untyped-def]
    map_depth, rotation, offset, grad, grad_map, sums, blocks, height, width, RAY: tl.constexpr, FU: tl.constexpr,
    FV: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradient of the depth map, and of rotation and offset as ``sums`` (B, blocks, 12): a row's three, its offset."""
    n = (tl.program_id(0) // blocks).to(tl.int64)
    at = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    mask = at < height * width
    d = tl.load(map_depth + n * height * width + at, mask=mask, other=1.0)
    a, b = _ray(at, height, width, d * 0, RAY)
    r, o = rotation + n * 9, offset + n * 3
    qx = tl.load(r) * a + tl.load(r + 1) * b + tl.load(r + 2)
    qy = tl.load(r + 3) * a + tl.load(r + 4) * b + tl.load(r + 5)
    qz = tl.load(r + 6) * a + tl.load(r + 7) * b + tl.load(r + 8)
    pz = d * qz + tl.load(o + 2)
    ahead = pz > 0
    inverse = divide(1.0, tl.where(ahead, pz, 1.0))
    given = grad + (n * height * width + at) * 3
    gx = tl.load(given, mask=mask & ahead, other=0.0) * FU * inverse
    gy = tl.load(given + 1, mask=mask & ahead, other=0.0) * FV * inverse
    gz = tl.load(given + 2, mask=mask, other=0.0)
    gz = gz - (gx * (d * qx + tl.load(o)) + gy * (d * qy + tl.load(o + 1))) * inverse
    tl.store(grad_map + n * height * width + at, gx * qx + gy * qy + gz * qz, mask=mask)
    to = sums + tl.program_id(0).to(tl.int64) * 12
    da, db = d * a, d * b
    tl.store(to, tl.sum(tl.where(mask, gx * da, 0.0), 0))
    tl.store(to + 1, tl.sum(tl.where(mask, gx * db, 0.0), 0))
    tl.store(to + 2, tl.sum(tl.where(mask, gx * d, 0.0), 0))
    tl.store(to + 3, tl.sum(tl.where(mask, gx, 0.0), 0))
    tl.store(to + 4, tl.sum(tl.where(mask, gy * da, 0.0), 0))
    tl.store(to + 5, tl.sum(tl.where(mask, gy * db, 0.0), 0))
    tl.store(to + 6, tl.sum(tl.where(mask, gy * d, 0.0), 0))
    tl.store(to + 7, tl.sum(tl.where(mask, gy, 0.0), 0))
    tl.store(to + 8, tl.sum(tl.where(mask, gz * da, 0.0), 0))
    tl.store(to + 9, tl.sum(tl.where(mask, gz * db, 0.0), 0))
    tl.store(to + 10, tl.sum(tl.where(mask, gz * d, 0.0), 0))
    tl.store(to + 11, tl.sum(tl.where(mask, gz, 0.0), 0))


class TritonVertices(torch.autograd.Function):
    """(depth, rotation, offset (B, 3), focal of the rays, fu, fv, cu, cv) → (B, H·W, 3), as the Numba kernel."""

    @staticmethod
    def forward(
        ctx: Any,
        depth: Tensor,
        rotation: Tensor,
        offset: Tensor,
        ray: float,
        fu: float,
        fv: float,
        cu: float,
        cv: float,
    ) -> Tensor:
        tensors = depth.contiguous(), rotation.contiguous(), offset.contiguous()
        batch, height, width = depth.shape
        out = depth.new_empty(batch, height * width, 3)
        blocks = triton.cdiv(height * width, _BLOCK)
        if out.numel():
            with on_device_of(depth):
                place_forward[(batch * blocks,)](
                    *tensors, out, blocks, height, width, RAY=ray, FU=fu, FV=fv, CU=cu, CV=cv, BLOCK=_BLOCK, **OPTIONS
                )
        ctx.save_for_backward(*tensors)
        ctx.camera = ray, fu, fv
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        depth, rotation, offset = ctx.saved_tensors
        batch, height, width = depth.shape
        ray, fu, fv = ctx.camera
        blocks = triton.cdiv(height * width, _BLOCK)
        grad_map = torch.empty_like(depth)
        sums = depth.new_empty(batch, blocks, 3, 4)
        if depth.numel():
            with on_device_of(depth):
                place_backward[(batch * blocks,)](
                    depth, rotation, offset, grad.contiguous(), grad_map, sums, blocks, height, width,
                    RAY=ray, FU=fu, FV=fv, BLOCK=_BLOCK, **OPTIONS,
                )  # fmt: skip
        total = sums.sum(1)
        return grad_map, total[:, :, :3], total[:, :, 3], *[None] * 5
