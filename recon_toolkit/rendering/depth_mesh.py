"""Rendering a canonical depth map in another view: as a grid mesh for depth, by an inverse warp for colour."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from recon_toolkit.geometry import Camera, grid_faces
from recon_toolkit.rendering.grid_vertices import canonical_grid, grid_vertices
from recon_toolkit.rendering.rasterize import Backend, rasterize_depth
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


def check_object(canonical_depth: Tensor, canonical_image: Tensor, view: Tensor) -> None:
    """Raise ValueError unless these are (B, H, W), (B, C, H, W) and (B, 6) of one precision on one device."""
    if canonical_depth.ndim != 3 or min(canonical_depth.shape[1:]) < 2:
        raise ValueError(
            f"canonical_depth must be (B, H, W) with two pixels or more a side, not {tuple(canonical_depth.shape)}"
        )
    if canonical_depth.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"canonical_depth must be float32 or float64, not {canonical_depth.dtype}")
    batch, height, width = canonical_depth.shape
    if canonical_image.ndim != 4 or canonical_image.shape[0] != batch or canonical_image.shape[2:] != (height, width):
        expected = f"({batch}, C, {height}, {width}) as canonical_depth is"
        raise ValueError(f"canonical_image must be {expected}, not {tuple(canonical_image.shape)}")
    if view.shape != (batch, 6):
        raise ValueError(f"view must be ({batch}, 6) as canonical_depth is, not {tuple(view.shape)}")
    for name, tensor in (("canonical_image", canonical_image), ("view", view)):
        if tensor.device != canonical_depth.device or tensor.dtype != canonical_depth.dtype:
            raise ValueError(
                f"{name} is {tensor.dtype} on {tensor.device}, "
                f"but canonical_depth is {canonical_depth.dtype} on {canonical_depth.device}"
            )


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
            return self._render(canonical_depth, canonical_image, view)

    def _render(self, canonical_depth: Tensor, canonical_image: Tensor, view: Tensor) -> Rendering:
        depth, covered = self.render_depth(canonical_depth, view)
        mask = covered & (depth < self.background)
        depth = torch.where(mask, depth.clamp(self.nearest, self.background), self.background)
        # Zero padding means mid-grey, as for the published images in [−1, 1]: feature losses see beyond the mask.
        image = warp_to_view(canonical_image - 0.5, depth, view, self.camera, backend=self.backend) + 0.5
        return Rendering(image=image, depth=depth, mask=mask)


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
