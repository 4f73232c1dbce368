"""The rasteriser op: which face each sample sees, and where on it; differentiable with respect to the vertices.

Public functions check their arguments, choose a backend and call it; the maths is in raster_reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from recon_toolkit.rendering import raster_reference

Backend = Literal["auto", "reference", "numba"]

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


def choose_backend(tensor: Tensor, backend: Backend = "auto") -> Literal["reference", "numba"]:
    """The backend that serves a tensor: Numba on the CPU, the PyTorch reference elsewhere, unless one is forced."""
    if backend == "numba" and tensor.device.type != "cpu":
        raise ValueError(f"the numba backend draws on the CPU, but the vertices are on {tensor.device}")
    if backend != "auto":
        return backend
    return "numba" if tensor.device.type == "cpu" else "reference"


def _check(vertices: Tensor, faces: Tensor, height: int, width: int) -> None:
    if vertices.ndim != 3 or vertices.shape[2] != 3:
        raise ValueError(f"vertices must be (B, V, 3), not {tuple(vertices.shape)}")
    if vertices.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"vertices must be float32 or float64, not {vertices.dtype}")
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"faces must be (F, 3) of int32 or int64, not {tuple(faces.shape)} of {faces.dtype}")
    if height < 1 or width < 1:
        raise ValueError(f"a picture needs at least one pixel, not {width} × {height}")
    if faces.numel() and not 0 <= int(faces.min()) <= int(faces.max()) < vertices.shape[1]:
        raise ValueError(f"faces name vertices outside 0..{vertices.shape[1] - 1}")


def rasterize(
    vertices: Tensor,  # [B, V, 3]
    faces: Tensor,  # [F, 3]
    height: int,
    width: int,
    *,
    near: float = NEAR,
    far: float = FAR,
    backend: Backend = "auto",
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
        backend: ``auto``, ``reference`` (PyTorch, any device) or ``numba`` (CPU).

    Raises:
        ValueError: a shape, type, size or index is wrong.
    """
    _check(vertices, faces, height, width)
    if choose_backend(vertices, backend) == "numba":
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
) -> Tensor:  # [B, H, W, C]
    """Interpolate any attribute of the vertices to the samples: (B, H, W, C), 0 where there is no face.

    Differentiable with respect to the attributes and, through the barycentrics, the vertices.
    """
    if choose_backend(attributes, backend) == "numba":
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
) -> tuple[Tensor, Tensor]:
    """Anti-aliased depth: the mean over ``samples`` × ``samples`` per pixel, fused forward and backward.

    The samples of a pixel are spread evenly over its square around the integer coordinate.

    Args:
        vertices, faces, near, far, backend: as for :func:`rasterize`.
        height, width: size of the picture in pixels.
        samples: samples along a pixel's side, 1 or more.
        in_samples: u and v of the vertices count samples already: (pixel + 1/2) · samples − 1/2.

    Returns:
        depth (B, H, W), 0 where not covered; covered (B, H, W) bool, true where all the pixel's samples saw a face.
    """
    _check(vertices, faces, height, width)
    if samples < 1:
        raise ValueError(f"a pixel needs at least one sample, not {samples}")
    if samples > 1 and not in_samples:  # pixel centres u become sample coordinates (u + 1/2) · samples − 1/2
        scale = vertices.new_tensor([samples, samples, 1])
        shift = vertices.new_tensor([(samples - 1) / 2, (samples - 1) / 2, 0])
        vertices = vertices * scale + shift
    if choose_backend(vertices, backend) == "numba":
        return _NumbaDepth.apply(vertices, faces, height, width, samples, near, far)  # type: ignore[no-any-return]
    face = raster_reference.nearest_faces(vertices, faces, height * samples, width * samples, near, far)
    _, depth = raster_reference.barycentrics(vertices, faces, face)
    covered = F.max_pool2d((face < 0).to(depth.dtype)[:, None], samples)[:, 0] == 0
    mean = F.avg_pool2d(depth[:, None], samples)[:, 0]
    return torch.where(covered, mean, 0), covered


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
        with kernels.guard():
            kernels.rasterize_forward(
                points, as_array(faces), coordinates, bands, limits[0], limits[1],
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
        with kernels.guard():
            kernels.rasterize_backward(
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
        with kernels.guard():
            kernels.depth_forward(
                points, as_array(faces), coordinates, bands, limits[0], limits[1], samples,
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
        with kernels.guard():
            kernels.depth_backward(
                points, as_array(faces), kernels.sample_coordinates(face.shape[1], face.shape[2], points.dtype),
                bands, ctx.samples, face.numpy(), covered.numpy(), as_array(grad_depth), gradient.numpy(),
            )  # fmt: skip
        return gradient.sum(1), None, None, None, None, None, None


class _NumbaInterpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, attributes: Tensor, faces: Tensor, face: Tensor, barycentric: Tensor) -> Tensor:
        from recon_toolkit.rendering import raster_numba as kernels

        out = attributes.new_empty(*face.shape, attributes.shape[2])
        with kernels.guard():
            kernels.interpolate_forward(
                as_array(attributes), as_array(faces), as_array(face), as_array(barycentric), out.numpy()
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
        with kernels.guard():
            kernels.interpolate_backward(
                as_array(attributes), as_array(faces), as_array(face), as_array(barycentric), as_array(grad), bands,
                grad_attributes.numpy(), grad_barycentric.numpy(),
            )  # fmt: skip
        return grad_attributes.sum(1), None, None, grad_barycentric
