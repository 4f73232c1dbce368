"""Rendering a canonical depth map in another view: as a grid mesh for depth, by an inverse warp for colour."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from recon_toolkit.geometry import Camera, grid_faces
from recon_toolkit.rendering.backends import Backend
from recon_toolkit.rendering.checks import check_object
from recon_toolkit.rendering.grid_vertices import canonical_grid, grid_vertices
from recon_toolkit.rendering.rasterize import rasterize_depth
from recon_toolkit.structures import Rendering


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
