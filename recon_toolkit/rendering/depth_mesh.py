"""Where the points of a depth map lie in another view: as vertices for the rasteriser, or to sample colours at.

On the CPU and on CUDA one kernel does what takes PyTorch a dozen passes over memory; the readable form is the
reference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from recon_toolkit.geometry import Camera, backproject, grid_faces, inverse_transform, transform, view_matrix
from recon_toolkit.kernels import parallel
from recon_toolkit.rendering.backends import Backend, check_object, choose_backend
from recon_toolkit.rendering.rasterize import as_array, rasterize_depth
from recon_toolkit.structures import Rendering


def grid_vertices(
    depth: Tensor,  # [B, H, W]
    view: Tensor,  # [B, 6]
    camera: Camera,
    *,
    samples: int = 1,
    pixel_offset: float = 0.0,
    backend: Backend = "auto",
) -> Tensor:  # [B, H·W, 3]
    """Back-project a depth map, move its points by a view, project them: (u, v, z) per pixel, in row order.

    Args:
        depth: canonical depth (B, H, W).
        view: (B, 6) rotation x, y, z in radians, translation x, y, z.
        camera: the camera of both views.
        samples: u and v count samples, this many along a pixel's side: (pixel + 1/2) · samples − 1/2.
        pixel_offset: subtracted from u and v in pixels.
        backend: ``auto``, ``reference``, ``numba`` or ``triton``.

    Raises:
        ValueError: depth and view do not fit each other.
    """
    _check(depth, view)
    height, width = depth.shape[-2:]
    shift = (0.5 - pixel_offset) * samples - 0.5
    chosen = choose_backend(depth, backend)
    if chosen != "reference":
        rotation, offset = view_matrix(view)
        focal = camera.focal_length(width) * samples
        centre = ((width - 1) / 2 * samples + shift, (height - 1) / 2 * samples + shift)
        return _place(chosen, depth, rotation, offset[:, :, 0], camera, (focal, focal, *centre))
    points = transform(backproject(depth, camera).flatten(2), view)
    vertices = camera.project(points, height, width).transpose(1, 2)
    return vertices * vertices.new_tensor([samples, samples, 1]) + vertices.new_tensor([shift, shift, 0])


def canonical_grid(
    depth: Tensor,  # [B, H, W]
    view: Tensor,  # [B, 6]
    camera: Camera,
    *,
    backend: Backend = "auto",
) -> Tensor:  # [B, H, W, 2]
    """Where the surface that each pixel of the input view sees lies in the canonical picture.

    Args:
        depth: depth in the input view (B, H, W).
        view: (B, 6) rotation x, y, z in radians, translation x, y, z.
        camera: the camera of both views.
        backend: ``auto``, ``reference``, ``numba`` or ``triton``.

    Returns:
        x and y for ``grid_sample`` with ``align_corners=True``: −1 and 1 are the centres of the outermost pixels.

    Raises:
        ValueError: depth and view do not fit each other.
    """
    _check(depth, view)
    height, width = depth.shape[-2:]
    focal = camera.focal_length(width)
    scale = (2 * focal / (width - 1), 2 * focal / (height - 1))
    chosen = choose_backend(depth, backend)
    if chosen != "reference":
        rotation, offset = view_matrix(view)
        back = rotation.transpose(1, 2)
        places = _place(chosen, depth, back, -(rotation * offset).sum(1), camera, (*scale, 0.0, 0.0))
        return places[..., :2].reshape(-1, height, width, 2)
    points = inverse_transform(backproject(depth, camera).flatten(2), view)
    z = points[:, 2:]
    grid = points[:, :2] / torch.where(z > 0, z, 1) * points.new_tensor(scale)[:, None]
    return grid.transpose(1, 2).reshape(-1, height, width, 2)


def _check(depth: Tensor, view: Tensor) -> None:
    if depth.ndim != 3 or view.shape != (len(depth), 6):
        raise ValueError(f"depth must be (B, H, W) and view (B, 6), not {tuple(depth.shape)} and {tuple(view.shape)}")
    if view.device != depth.device:
        raise ValueError(f"view is on {view.device}, but depth on {depth.device}")


def _place(
    backend: str,
    depth: Tensor,
    rotation: Tensor,
    offset: Tensor,
    camera: Camera,
    lens: tuple[float, float, float, float],
) -> Tensor:
    """(B, H·W, 3): u, v and z of the points R · depth · ray + offset through a lens of fu, fv, cu, cv."""
    height, width = depth.shape[-2:]
    if backend == "triton":
        from recon_toolkit.rendering.raster_triton import TritonVertices

        return TritonVertices.apply(depth, rotation, offset, camera.focal_length(width), *lens)  # type: ignore[no-any-return]
    rays = camera.rays(height, width, dtype=depth.dtype)
    return _NumbaVertices.apply(depth, rotation, offset, rays, *lens)  # type: ignore[no-any-return]


@parallel()
def _forward(lo, hi, depth, rotation, offset, rays, constants, out):  # type: ignore[no-untyped-def]
    _, height, width = depth.shape
    fu, fv, cu, cv, zero, one = constants
    for row in range(lo, hi):
        n, y = row // height, row % height
        r, o = rotation[n], offset[n]
        for x in range(width):
            d, a, b = depth[n, y, x], rays[0, y, x], rays[1, y, x]
            pz = d * (r[2, 0] * a + r[2, 1] * b + r[2, 2]) + o[2]
            # A point at or behind the camera is never drawn: any finite place will do.
            inverse = one / (pz if pz > zero else one)
            out[n, y * width + x, 0] = (d * (r[0, 0] * a + r[0, 1] * b + r[0, 2]) + o[0]) * (fu * inverse) + cu
            out[n, y * width + x, 1] = (d * (r[1, 0] * a + r[1, 1] * b + r[1, 2]) + o[1]) * (fv * inverse) + cv
            out[n, y * width + x, 2] = pz


@parallel()
def _backward(  # type: ignore[no-untyped-def]
    lo, hi, depth, rotation, offset, rays, constants, grad, grad_depth, grad_rotation, grad_offset,
):  # fmt: skip
    """Gradients; those of rotation (B, H, 3, 3) and offset (B, H, 3) are per row, to be summed."""
    _, height, width = depth.shape
    fu, fv, zero, one = constants[0], constants[1], constants[4], constants[5]
    for row in range(lo, hi):
        n, y = row // height, row % height
        r, o, gr, go = rotation[n], offset[n], grad_rotation[n, y], grad_offset[n, y]
        for x in range(width):
            d, a, b = depth[n, y, x], rays[0, y, x], rays[1, y, x]
            qx = r[0, 0] * a + r[0, 1] * b + r[0, 2]
            qy = r[1, 0] * a + r[1, 1] * b + r[1, 2]
            qz = r[2, 0] * a + r[2, 1] * b + r[2, 2]
            pz = d * qz + o[2]
            gz = grad[n, y * width + x, 2]
            gx, gy = zero, zero
            if pz > zero:
                inverse = one / pz
                gx = grad[n, y * width + x, 0] * fu * inverse
                gy = grad[n, y * width + x, 1] * fv * inverse
                gz -= (gx * (d * qx + o[0]) + gy * (d * qy + o[1])) * inverse
            grad_depth[n, y, x] = gx * qx + gy * qy + gz * qz
            for i in range(3):
                g = gx if i == 0 else (gy if i == 1 else gz)
                go[i] += g
                gr[i, 0] += g * d * a
                gr[i, 1] += g * d * b
                gr[i, 2] += g * d


class _NumbaVertices(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, depth: Tensor, rotation: Tensor, offset: Tensor, rays: Tensor, *camera: float) -> Tensor:
        batch, height, width = depth.shape
        out = depth.new_empty(batch, height * width, 3)
        constants = torch.tensor([*camera, 0.0, 1.0], dtype=depth.dtype)  # fu, fv, cu, cv, and numbers of its type
        _forward(
            batch * height,
            as_array(depth),
            as_array(rotation),
            as_array(offset),
            as_array(rays),
            constants.numpy(),
            out.numpy(),
        )
        ctx.save_for_backward(depth, rotation, offset, rays, constants)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        depth, rotation, offset, rays, constants = ctx.saved_tensors
        batch, height, _ = depth.shape
        grad_depth = torch.empty_like(depth, memory_format=torch.contiguous_format)
        grad_rotation = depth.new_zeros(batch, height, 3, 3)
        grad_offset = depth.new_zeros(batch, height, 3)
        _backward(
            batch * height,
            *map(as_array, (depth, rotation, offset, rays, constants, grad)),
            grad_depth.numpy(),
            grad_rotation.numpy(),
            grad_offset.numpy(),
        )
        return grad_depth, grad_rotation.sum(1), grad_offset.sum(1), None, None, None, None, None


def warp_to_view(
    canonical: Tensor, depth: Tensor, view: Tensor, camera: Camera, *, backend: Backend = "auto"
) -> Tensor:
    """Colours of the canonical image at the surface points that the input view sees (Wu et al. 2020, code).

    Each pixel is back-projected with its depth, moved to the canonical frame, projected and sampled bilinearly
    (``align_corners=True``, zero outside).

    Args:
        canonical: (B, C, H, W) any canonical map.
        depth: (B, H, W) depth in the input view.
        view: (B, 6) rotation x, y, z in radians, translation x, y, z.
        camera: the camera of both views.
        backend: ``auto``, ``reference``, ``numba`` or ``triton``.

    Returns:
        (B, C, H, W) in the input view; meaningless where ``depth`` is background.
    """
    grid = canonical_grid(depth, view, camera, backend=backend)
    return F.grid_sample(canonical, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


class DepthRenderer(ABC):
    """Base of renderers that see the canonical depth map in the input view; colour follows by the inverse warp.

    A renderer of your own needs only :meth:`render_depth`.

    Args:
        camera: the camera of both views.
        depth_range: nearest and farthest canonical depth. Rendered depth is clamped to half the range beyond either
            side; the far clamp is the background's value.
    """

    #: Backend of the colour warp; a renderer may make it an option.
    backend: Backend = "auto"

    def __init__(self, *, camera: Camera, depth_range: tuple[float, float]) -> None:
        if not 0 < depth_range[0] < depth_range[1]:
            raise ValueError(f"depth_range must be two rising depths above 0, not {depth_range}")
        self.camera = camera
        margin = (depth_range[1] - depth_range[0]) / 2
        self.nearest, self.background = depth_range[0] - margin, depth_range[1] + margin

    @abstractmethod
    def render_depth(self, canonical_depth: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        """Depth (B, H, W) of the canonical depth map (B, H, W) seen in ``view`` (B, 6), and coverage (B, H, W) bool."""

    def __call__(self, canonical_depth: Tensor, canonical_image: Tensor, view: Tensor) -> Rendering:
        """Render depth and colour in the input view.

        Args:
            canonical_depth: (B, H, W).
            canonical_image: (B, C, H, W), the lit canonical image.
            view: (B, 6).

        Raises:
            ValueError: a shape, type or device is wrong. Values are not looked at, so that no device is waited for:
                what is not finite is not covered.
        """
        check_object(canonical_depth, canonical_image, view)
        # In bfloat16 a step of depth is 4 % of the depth range: geometry is never autocast.
        with torch.autocast(canonical_depth.device.type, enabled=False):
            return self.render(canonical_depth, canonical_image, view)

    def render(self, canonical_depth: Tensor, canonical_image: Tensor, view: Tensor) -> Rendering:
        """What a call does after its checks, without autocast; override it to draw colour otherwise than by warping."""
        depth, mask = self.limited(*self.render_depth(canonical_depth, view))
        # Zero padding means mid-grey, as for the published images in [−1, 1]: feature losses see beyond the mask.
        image = warp_to_view(canonical_image - 0.5, depth, view, self.camera, backend=self.backend) + 0.5
        return Rendering(image=image, depth=depth, mask=mask)

    def limited(self, depth: Tensor, covered: Tensor) -> tuple[Tensor, Tensor]:
        """Depth (B, H, W) clamped to what is rendered, the background's value elsewhere, and the mask (B, H, W)."""
        mask = covered & (depth < self.background)
        return torch.where(mask, depth.clamp(self.nearest, self.background), self.background), mask


class DepthMeshRenderer(DepthRenderer):
    """The exact renderer: the depth map as a grid mesh, drawn with supersampling.

    Args:
        supersampling: samples along a pixel's side. With 1 the gradients are so uneven that training fills the
            depth map with stripes; 2 is what the method needs.
        pixel_offset: shift of the sample positions in pixels. 0.5 reproduces the original's renderer, whose
            pixel i shows the surface at u = i + 0.5.
        backend: rasteriser backend.
    """

    def __init__(
        self,
        *,
        camera: Camera,
        depth_range: tuple[float, float],
        supersampling: int = 2,
        pixel_offset: float = 0.0,
        backend: Backend = "auto",
    ) -> None:
        super().__init__(camera=camera, depth_range=depth_range)
        if supersampling < 1:
            raise ValueError(f"supersampling is 1 or more, not {supersampling}")
        self.supersampling, self.pixel_offset, self.backend = supersampling, pixel_offset, backend

    def render_depth(self, canonical_depth: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        height, width = canonical_depth.shape[-2:]
        vertices = grid_vertices(
            canonical_depth,
            view,
            self.camera,
            samples=self.supersampling,
            pixel_offset=self.pixel_offset,
            backend=self.backend,
        )
        return rasterize_depth(
            vertices,
            grid_faces(height, width, vertices.device),
            height,
            width,
            samples=self.supersampling,
            in_samples=True,
            check=False,  # the grid's faces are right, and depths that are not finite are for training to judge
            backend=self.backend,
        )


RenderFactors = Callable[[Tensor, Tensor, Tensor, Tensor], Rendering]


def render_object(
    renderer: Callable[[Tensor, Tensor, Tensor], Rendering],
    depth: Tensor,
    image: Tensor,
    albedo: Tensor,
    light: Tensor | None,
    view: Tensor,
) -> Rendering:
    """The canonical object in the input view, by whichever of its two methods the renderer has.

    A renderer with the method ``render_factors(canonical_depth, canonical_albedo, light, view)`` shades by itself and
    is given that; any other is called with the lit image. Without a light (a model without shading) there is nothing
    to shade, and both are called with the image.

    Args:
        renderer: callable (canonical depth, canonical image, view) → Rendering.
        depth: canonical depth (B, H, W).
        image: the lit canonical image (B, 3, H, W).
        albedo: canonical albedo (B, 3, H, W) in [0, 1].
        light: (B, 5) ambient, diffuse, unit direction; or None.
        view: (B, 6) rotation x, y, z in radians, translation x, y, z.
    """
    render_factors: RenderFactors | None = getattr(renderer, "render_factors", None)
    if light is None or render_factors is None:
        found = renderer(depth, image, view)
    else:
        found = render_factors(depth, albedo, light, view)
    return found
