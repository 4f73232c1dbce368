"""The rasteriser op: which face each sample sees, and where on it; differentiable with respect to the vertices.

Public functions check their arguments, choose a backend and call it; the maths is in raster_reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from recon_toolkit.rendering import raster_reference
from recon_toolkit.rendering.backends import Backend as Backend
from recon_toolkit.rendering.backends import check_attributes, check_mesh, check_picture
from recon_toolkit.rendering.backends import choose_backend as choose_backend

#: Faces nearer or farther than this, in units of the object's distance, are not drawn.
NEAR, FAR = 1e-3, 100.0


@dataclass(frozen=True)
class Fragments:
    """What every sample of a picture sees.

    Attributes:
        face: (B, H, W) int32. Entry [n, y, x] is the index of the nearest face at pixel (x, y) of mesh n, −1 for none.
        barycentric: (B, H, W, 3). Entry [n, y, x, k] is the perspective-correct weight of the face's corner k, in
            [0, 1] and with sum 1; 0 where there is no face.
        depth: (B, H, W). The surface's z; 0 where there is no face.
    """

    face: Tensor
    barycentric: Tensor
    depth: Tensor


def rasterize(
    vertices: Tensor,  # [B, V, 3]
    faces: Tensor,  # [F, 3]
    height: int,
    width: int,
    *,
    near: float = NEAR,
    far: float = FAR,
    backend: Backend = "auto",
    check: bool = True,
) -> Fragments:
    """Draw a batch of meshes that share their faces.

    A sample lies at every integer pixel coordinate. The nearest surface with near < z < far wins, the first face on a
    tie. Edges are inclusive, both windings are drawn; faces with a corner at or behind the camera, edge-on faces and
    faces with non-finite corners are not. Gradients flow from barycentrics and depth to the vertices of the winning
    face; they are finite everywhere, and there is none through visibility.

    Args:
        vertices: (B, V, 3) float32 or float64: pixel coordinates u, v (integers are pixel centres) and depth z, as
            :meth:`Camera.project` returns them with the last axis last.
        faces: (F, 3) int32 or int64, shared by the batch.
        height, width: size of the picture in samples.
        near, far: range of depths drawn.
        backend: ``auto``, ``reference`` (PyTorch, any device), ``numba`` (CPU) or ``triton`` (CUDA).
        check: look at the values too: no faces, faces out of range, vertices that are not finite, and a mesh that lies
            wholly at or behind the camera are errors. A GPU must be waited for. Without, the faces must be in range,
            and what cannot be drawn is not.

    Raises:
        ValueError: a shape, type, size, device or, with ``check``, value is wrong.
    """
    check_mesh(vertices, faces, values=check)
    check_picture(height, width)
    chosen = choose_backend(vertices, backend)
    if chosen == "triton":
        from recon_toolkit.rendering.raster_triton import TritonRasterize

        face, barycentric, depth = TritonRasterize.apply(vertices, faces, height, width, near, far)
    elif chosen == "numba":
        face, barycentric, depth = _NumbaRasterize.apply(vertices, faces, height, width, near, far)
    else:
        face = raster_reference.nearest_faces(vertices, faces, height, width, near, far)
        barycentric, depth = raster_reference.barycentrics(vertices, faces, face)
    return Fragments(face, barycentric, depth)


def interpolate(
    attributes: Tensor,  # [B, V, C]
    faces: Tensor,  # [F, 3]
    fragments: Fragments,
    *,
    backend: Backend = "auto",
    check: bool = True,
) -> Tensor:  # [B, H, W, C]
    """Interpolate any attribute of the vertices to the samples: (B, H, W, C), 0 where there is no face.

    Differentiable with respect to the attributes and, through the barycentrics, the vertices.

    Args:
        attributes: (B, V, C) float32 or float64, any values.
        faces: (F, 3) as they were drawn.
        fragments: what :func:`rasterize` returned.
        backend, check: as for :func:`rasterize`.

    Raises:
        ValueError: a shape, type, device or, with ``check``, index is wrong.
    """
    check_attributes(attributes, faces, fragments.face, fragments.barycentric, values=check)
    chosen = choose_backend(attributes, backend)
    if chosen == "triton":
        from recon_toolkit.rendering.raster_triton import TritonInterpolate

        return TritonInterpolate.apply(attributes, faces, fragments.face, fragments.barycentric)  # type: ignore[no-any-return]
    if chosen == "numba":
        return _NumbaInterpolate.apply(attributes, faces, fragments.face, fragments.barycentric)  # type: ignore[no-any-return]
    if not len(faces):
        return attributes.new_zeros(*fragments.face.shape, attributes.shape[2])
    index = faces.long()[fragments.face.clamp(min=0).long()]
    rows = torch.arange(len(attributes), device=attributes.device)[:, None, None, None]
    corners = attributes[rows, index]  # (B, H, W, 3, C)
    # Barycentrics are 0 where there is no face, so the face taken in its place adds nothing.
    return (corners * fragments.barycentric[..., None]).sum(-2)


def rasterize_depth(
    vertices: Tensor,  # [B, V, 3]
    faces: Tensor,  # [F, 3]
    height: int,
    width: int,
    *,
    samples: int = 2,
    in_samples: bool = False,
    near: float = NEAR,
    far: float = FAR,
    backend: Backend = "auto",
    check: bool = True,
) -> tuple[Tensor, Tensor]:
    """Anti-aliased depth: the mean over ``samples`` × ``samples`` per pixel, fused forward and backward.

    The samples of a pixel are spread evenly over its square around the integer coordinate.

    Args:
        vertices, faces, near, far, backend, check: as for :func:`rasterize`.
        height, width: size of the picture in pixels.
        samples: samples along a pixel's side, 1 or more.
        in_samples: u and v of the vertices count samples already: (pixel + 1/2) · samples − 1/2.

    Returns:
        depth (B, H, W), 0 where not covered; covered (B, H, W) bool, true where all the pixel's samples saw a face.

    Raises:
        ValueError: as for :func:`rasterize`.
    """
    check_mesh(vertices, faces, values=check)
    check_picture(height, width, samples)
    if samples > 1 and not in_samples:  # pixel centres u become sample coordinates (u + 1/2) · samples − 1/2
        places = vertices[..., :2] * samples + (samples - 1) / 2
        vertices = torch.cat((places, vertices[..., 2:]), dim=-1)
    chosen = choose_backend(vertices, backend)
    if chosen == "triton":
        from recon_toolkit.rendering.raster_triton import TritonDepth

        return TritonDepth.apply(vertices, faces, height, width, samples, near, far)  # type: ignore[no-any-return]
    if chosen == "numba":
        return _NumbaDepth.apply(vertices, faces, height, width, samples, near, far)  # type: ignore[no-any-return]
    face = raster_reference.nearest_faces(vertices, faces, height * samples, width * samples, near, far)
    _, depth = raster_reference.barycentrics(vertices, faces, face)
    return pool_samples(depth, face >= 0, samples)


def pool_samples(depth: Tensor, seen: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Pixels from their samples.

    Args:
        depth: (B, H · samples, W · samples).
        seen: (B, H · samples, W · samples) bool: the sample saw a surface.
        samples: along a pixel's side.

    Returns:
        mean depth (B, H, W), 0 where not covered; covered (B, H, W) bool, true where all the pixel's samples saw one.
    """
    covered = F.max_pool2d((~seen).to(depth.dtype)[:, None], samples)[:, 0] == 0
    return torch.where(covered, F.avg_pool2d(depth[:, None], samples)[:, 0], 0), covered


def as_array(tensor: Tensor) -> Any:
    """What kernels take: a contiguous NumPy array that shares the tensor's memory where it can."""
    return tensor.detach().contiguous().numpy()


def _limits(tensor: Tensor, near: float, far: float) -> tuple[Any, Any]:
    """The limits in the vertices' precision, so that kernels compare like with like."""
    kind = np.float32 if tensor.dtype == torch.float32 else np.float64
    return kind(near), kind(far)


class _NumbaRasterize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, vertices: Tensor, faces: Tensor, height: int, width: int, near: float, far: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        from recon_toolkit.rendering import raster_numba as kernels

        batch = len(vertices)
        face = torch.empty(batch, height, width, dtype=torch.int32)
        barycentric = vertices.new_empty(batch, height, width, 3)
        depth = vertices.new_empty(batch, height, width)
        points = as_array(vertices)
        coordinates = kernels.sample_coordinates(height, width, points.dtype)
        bands = kernels.row_bands(batch, height)
        limits = _limits(vertices, near, far)
        kernels.rasterize_forward(
            batch * bands, points, as_array(faces), coordinates, bands, limits[0], limits[1],
            face.numpy(), barycentric.numpy(), depth.numpy(),
        )  # fmt: skip
        ctx.save_for_backward(vertices, faces, face)
        ctx.mark_non_differentiable(face)
        return face, barycentric, depth

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _face: Tensor, grad_barycentric: Tensor, grad_depth: Tensor) -> tuple[Tensor | None, ...]:
        from recon_toolkit.rendering import raster_numba as kernels

        vertices, faces, face = ctx.saved_tensors
        points = as_array(vertices)
        bands = kernels.row_bands(len(points), face.shape[1])
        gradient = torch.zeros(len(points), bands, *vertices.shape[1:], dtype=vertices.dtype)
        kernels.rasterize_backward(
            len(points) * bands,
            points, as_array(faces), kernels.sample_coordinates(face.shape[1], face.shape[2], points.dtype), bands,
            face.numpy(), as_array(grad_barycentric), as_array(grad_depth), gradient.numpy(),
        )  # fmt: skip
        return gradient.sum(1), None, None, None, None, None


class _NumbaDepth(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, vertices: Tensor, faces: Tensor, height: int, width: int, samples: int, near: float, far: float
    ) -> tuple[Tensor, Tensor]:
        from recon_toolkit.rendering import raster_numba as kernels

        batch = len(vertices)
        face = torch.empty(batch, height * samples, width * samples, dtype=torch.int32)
        depth = vertices.new_empty(batch, height, width)
        covered = torch.empty(batch, height, width, dtype=torch.bool)
        points = as_array(vertices)
        coordinates = kernels.sample_coordinates(height * samples, width * samples, points.dtype)
        bands = kernels.row_bands(batch, height)
        limits = _limits(vertices, near, far)
        kernels.depth_forward(
            batch * bands, points, as_array(faces), coordinates, bands, limits[0], limits[1], samples,
            face.numpy(), depth.numpy(), covered.numpy(),
        )  # fmt: skip
        ctx.save_for_backward(vertices, faces, face, covered)
        ctx.samples = samples
        ctx.mark_non_differentiable(covered)
        return depth, covered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_depth: Tensor, _covered: Tensor) -> tuple[Tensor | None, ...]:
        from recon_toolkit.rendering import raster_numba as kernels

        vertices, faces, face, covered = ctx.saved_tensors
        points = as_array(vertices)
        bands = kernels.row_bands(len(points), covered.shape[1])
        gradient = torch.zeros(len(points), bands, *vertices.shape[1:], dtype=vertices.dtype)
        kernels.depth_backward(
            len(points) * bands,
            points, as_array(faces), kernels.sample_coordinates(face.shape[1], face.shape[2], points.dtype),
            bands, ctx.samples, face.numpy(), covered.numpy(), as_array(grad_depth), gradient.numpy(),
        )  # fmt: skip
        return gradient.sum(1), None, None, None, None, None, None


class _NumbaInterpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, attributes: Tensor, faces: Tensor, face: Tensor, barycentric: Tensor) -> Tensor:
        from recon_toolkit.rendering import raster_numba as kernels

        out = attributes.new_empty(*face.shape, attributes.shape[2])
        kernels.interpolate_forward(
            len(face) * face.shape[1],
            as_array(attributes),
            as_array(faces),
            as_array(face),
            as_array(barycentric),
            out.numpy(),
        )
        ctx.save_for_backward(attributes, faces, face, barycentric)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from recon_toolkit.rendering import raster_numba as kernels

        attributes, faces, face, barycentric = ctx.saved_tensors
        bands = kernels.row_bands(*face.shape[:2])
        grad_attributes = attributes.new_zeros(len(attributes), bands, *attributes.shape[1:])
        grad_barycentric = torch.empty_like(barycentric, memory_format=torch.contiguous_format)
        kernels.interpolate_backward(
            len(face) * bands,
            as_array(attributes), as_array(faces), as_array(face), as_array(barycentric), as_array(grad), bands,
            grad_attributes.numpy(), grad_barycentric.numpy(),
        )  # fmt: skip
        return grad_attributes.sum(1), None, None, grad_barycentric


def sum_by_index(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Sums (size, ...) of the values (N, ...) that share an index (N,), added in a fixed order on every device.

    Of PyTorch's two sums by index, ``index_add_`` has one on the CPU and uses atomics on CUDA, where ``index_put_``
    sorts. Not differentiable by itself: for backward passes.
    """
    out = values.new_zeros(size, *values.shape[1:])
    if values.device.type == "cpu":
        return out.index_add_(0, index, values)
    return out.index_put_((index,), values, accumulate=True)
