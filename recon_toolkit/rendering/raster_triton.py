"""The rasteriser and the grid's geometry on CUDA: Triton kernels as autograd functions, launched without waiting."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakIdKeyDictionary

from recon_toolkit.rendering import raster_triton_kernels as backward_kernels
from recon_toolkit.rendering import raster_triton_kernels as interpolate_kernels
from recon_toolkit.rendering import raster_triton_kernels as kernels
from recon_toolkit.rendering.raster_triton_kernels import SIZES, divide

# mypy: allow-untyped-decorators


#: True if TRITON_INTERPRET was 1 when the kernels were made: they run on the CPU then, one program after another.
INTERPRETED: bool = not isinstance(kernels.draw_small, triton.runtime.jit.JITFunction)

#: Faces with more samples than this in their box are shared among programs.
SMALL = 64
#: Faces, vertices or samples per program; samples of a large face drawn or summed at a time.
BLOCK, TILE, WIDE_TILE = 128, 1024 if INTERPRETED else 256, 1024 if INTERPRETED else 512
#: Programs that share the large faces: some for each of a GPU's multiprocessors. (The interpreter likes few.)
PROGRAMS = 3 if INTERPRETED else 1024

#: How kernels are launched: with no fused multiply-add, which would move faces by an ulp against the reference.
OPTIONS: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": False}


def on_device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, which need not be the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


@triton.jit
def _increment(numbers, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.arange(0, BLOCK)
    tl.store(numbers + at, tl.load(numbers + at) + 1)


def try_kernel(device: torch.device) -> None:
    """Compile and launch a small kernel; whatever stands in Triton's way is raised."""
    numbers = torch.zeros(BLOCK, dtype=torch.int32, device=device)
    with on_device_of(numbers):
        _increment[(1,)](numbers, BLOCK=BLOCK, **OPTIONS)


class _Drawing:
    """The nearest faces of a batch of meshes: the samples' keys, and the list of large faces."""

    def __init__(self, vertices: Tensor, faces: Tensor, height: int, width: int, near: float, far: float) -> None:
        batch, vertex_count, _ = vertices.shape
        device, samples = vertices.device, batch * height * width
        if height * width >= 1 << 31:
            raise ValueError(f"backend 'triton' draws fewer than 2³¹ samples a mesh, not {width} × {height}")
        self.keys = torch.zeros(samples, dtype=torch.int64, device=device)
        double = vertices.dtype == torch.float64
        self.first_faces = torch.zeros(samples, dtype=torch.int32, device=device) if double else self.keys
        self.counter = torch.zeros(1, dtype=torch.int64, device=device)
        self.large = torch.empty(batch * len(faces), dtype=torch.int64, device=device)
        starts = torch.empty_like(self.large)
        if not samples or not len(faces):
            return
        blocks = triton.cdiv(len(faces), BLOCK)
        lists = (self.keys, self.first_faces, self.counter, self.large, starts, vertex_count, len(faces))
        limits = {"NEAR": float(near), "FAR": float(far), "TILE": TILE, **OPTIONS}
        for draw_round in (kernels.DEPTH, kernels.FACE) if double else (kernels.PACKED,):
            kernels.draw_small[(batch * blocks,)](
                vertices, faces, *lists, blocks, height, width, ROUND=draw_round, SMALL=SMALL, BLOCK=BLOCK, **limits
            )
            kernels.draw_large[(PROGRAMS,)](vertices, faces, *lists, height, width, ROUND=draw_round, **limits)


class TritonRasterize(torch.autograd.Function):
    """(vertices, faces, height, width, near, far) → face, barycentric, depth, as rasterize."""

    @staticmethod
    def forward(
        ctx: Any, vertices: Tensor, faces: Tensor, height: int, width: int, near: float, far: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        points, batch = vertices.contiguous(), len(vertices)
        face = torch.empty(batch, height, width, dtype=torch.int32, device=vertices.device)
        barycentric = vertices.new_empty(batch, height, width, 3)
        depth = vertices.new_empty(batch, height, width)
        corners = faces.contiguous()
        with on_device_of(vertices):
            drawing = _Drawing(points, corners, height, width, near, far)
            if face.numel():
                kernels.show_fragments[(triton.cdiv(face.numel(), BLOCK),)](
                    points, corners, drawing.keys, drawing.first_faces, face, barycentric, depth,
                    points.shape[1], height * width, width, face.numel(), BLOCK=BLOCK, **OPTIONS,
                )  # fmt: skip
        _remember(ctx, points, corners, faces, face, drawing)
        ctx.mark_non_differentiable(face)
        return face, barycentric, depth

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _face: Tensor, grad_barycentric: Tensor, grad_depth: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(ctx, grad_depth.contiguous(), grad_barycentric.contiguous(), 0), *[None] * 5


class TritonDepth(torch.autograd.Function):
    """(vertices in samples, faces, height, width, samples, near, far) → depth, covered, as rasterize_depth."""

    @staticmethod
    def forward(
        ctx: Any, vertices: Tensor, faces: Tensor, height: int, width: int, samples: int, near: float, far: float
    ) -> tuple[Tensor, Tensor]:
        points, batch, device = vertices.contiguous(), len(vertices), vertices.device
        face = torch.empty(batch, height * samples, width * samples, dtype=torch.int32, device=device)
        depth = vertices.new_empty(batch, height, width)
        covered = torch.empty(batch, height, width, dtype=torch.uint8, device=device)
        corners = faces.contiguous()
        with on_device_of(vertices):
            drawing = _Drawing(points, corners, height * samples, width * samples, near, far)
            if depth.numel():
                kernels.show_depth[(triton.cdiv(depth.numel(), BLOCK),)](
                    drawing.keys, drawing.first_faces, face, depth, covered, width, depth.numel(),
                    SAMPLES=samples, BLOCK=BLOCK, **OPTIONS,
                )  # fmt: skip
        _remember(ctx, points, corners, faces, face, drawing, covered)
        ctx.samples = samples
        result = covered.view(torch.bool)
        ctx.mark_non_differentiable(result)
        return depth, result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_depth: Tensor, _covered: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(ctx, grad_depth.contiguous(), None, ctx.samples), *[None] * 6


def _remember(
    ctx: Any, points: Tensor, corners: Tensor, faces: Tensor, face: Tensor, drawing: _Drawing, *others: Tensor
) -> None:
    """Save what the backward pass needs, if there will be one."""
    if ctx.needs_input_grad[0]:
        around = incidence(faces, points.shape[1])
        ctx.save_for_backward(points, corners, face, drawing.counter, drawing.large, *around, *others)


def _backward(ctx: Any, grad_depth: Tensor, grad_barycentric: Tensor | None, samples: int) -> Tensor:
    # Read once: checkpointing unpacks saved tensors a single time.
    points, faces, face, counter, large, order, offsets, *others = ctx.saved_tensors
    covered = others[0] if others else None
    batch, vertex_count, _ = points.shape
    height, width = face.shape[1:]
    if not face.numel() or not len(faces):
        return torch.zeros_like(points)
    corners = points.new_empty(batch, 3, 3, len(faces))
    # A pointer that a variant does not read may be any tensor.
    barycentric = grad_depth if grad_barycentric is None else grad_barycentric
    inputs = (points, faces, face, face if covered is None else covered, grad_depth, barycentric, corners)
    blocks = triton.cdiv(len(faces), BLOCK)
    with on_device_of(points):
        backward_kernels.sum_small[(batch * blocks,)](
            *inputs, vertex_count, len(faces), blocks, height, width,
            SAMPLES=samples, SMALL=SMALL, BLOCK=BLOCK, **OPTIONS,
        )  # fmt: skip
        backward_kernels.sum_large[(PROGRAMS,)](
            *inputs, counter, large, vertex_count, len(faces), height, width, SAMPLES=samples, TILE=WIDE_TILE, **OPTIONS
        )
        return _gather(corners, order, offsets)


def _gather(corners: Tensor, order: Tensor, offsets: Tensor) -> Tensor:
    """Gradient (B, V, C) of the vertices from that of the faces' corners (B, 3, C, F)."""
    batch, _, channels, face_count = corners.shape
    vertex_count = len(offsets) - 1
    blocks = triton.cdiv(vertex_count, BLOCK)
    out = corners.new_empty(batch, vertex_count, channels)
    backward_kernels.gather[(batch * blocks, channels)](
        corners, order, offsets, out, vertex_count, face_count, channels, blocks, BLOCK=BLOCK, **OPTIONS
    )
    return out


_incidence: WeakIdKeyDictionary = WeakIdKeyDictionary()


def incidence(faces: Tensor, vertex_count: int) -> tuple[Tensor, Tensor]:
    """The corners at each vertex, in rising order: corner f·3 + k (3F), and where each vertex's begin (V + 1).

    Kept for as long as the tensor of faces lives unchanged, so that a grid's is made once.
    """
    version = None if faces.is_inference() else faces._version
    known = _incidence.get(faces)  # type: ignore[no-untyped-call]
    if known is not None and version is not None and known[0] == (version, vertex_count):
        return known[1], known[2]
    with torch.inference_mode(False):  # kept for later calls, which may take gradients
        vertex, order = torch.sort(faces.detach().flatten(), stable=True)
        offsets = torch.searchsorted(vertex, torch.arange(vertex_count + 1, dtype=vertex.dtype, device=faces.device))
    _incidence[faces] = ((version, vertex_count), order, offsets)
    return order, offsets


class TritonInterpolate(torch.autograd.Function):
    """(attributes, faces, face, barycentric) → attributes at the samples, as interpolate."""

    @staticmethod
    def forward(ctx: Any, attributes: Tensor, faces: Tensor, face: Tensor, barycentric: Tensor) -> Tensor:
        values, corners, shown, weights = (t.contiguous() for t in (attributes, faces, face, barycentric))
        out = values.new_empty(*face.shape, values.shape[2])
        if not len(faces):
            out.zero_()
        elif out.numel():
            with on_device_of(attributes):
                interpolate_kernels.interpolate_forward[(triton.cdiv(out.numel(), BLOCK),)](
                    values, corners, shown, weights, out, values.shape[1], values.shape[2], shown[0].numel(),
                    out.numel(), BLOCK=BLOCK, **OPTIONS,
                )  # fmt: skip
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(values, corners, shown, weights, *incidence(faces, values.shape[1]))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, faces, face, barycentric, order, offsets = ctx.saved_tensors
        batch, vertex_count, channels = values.shape
        height, width = face.shape[1:]
        if not grad.numel() or not len(faces):
            return torch.zeros_like(values), None, None, torch.zeros_like(barycentric)
        grad = grad.contiguous()
        grad_barycentric = torch.empty_like(barycentric)
        boxes = torch.zeros(batch, len(faces), 4, dtype=torch.int32, device=grad.device)
        corners = values.new_empty(batch, 3, channels, len(faces))
        with on_device_of(grad):
            interpolate_kernels.interpolate_backward[(triton.cdiv(face.numel(), BLOCK),)](
                values, faces, face, grad, grad_barycentric, boxes, vertex_count, len(faces), channels, height, width,
                face.numel(), BLOCK=BLOCK, **OPTIONS,
            )  # fmt: skip
            interpolate_kernels.sum_attributes[(batch * len(faces),)](
                face, barycentric, grad, boxes, corners, len(faces), channels, height, width, TILE=TILE, **OPTIONS
            )
            return _gather(corners, order, offsets), None, None, grad_barycentric


# mypy: allow-untyped-decorators


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
