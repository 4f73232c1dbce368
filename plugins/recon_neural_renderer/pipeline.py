"""The renderer of a pipeline: the depth map's grid mesh, drawn as Neural Renderer draws."""

from __future__ import annotations

from torch import Tensor

from recon_neural_renderer.raster import Backend, Drawing, draw
from recon_toolkit import Camera
from recon_toolkit.geometry import grid_faces
from recon_toolkit.rendering import DepthRenderer, grid_vertices


class NeuralRenderer(DepthRenderer):
    """Neural Renderer (Kato, Ushiku and Harada 2018), which Unsup3D trains with, over the grid mesh of a depth map.

    Depth has its exact gradient; the silhouette plays no part. Colour follows by the inverse warp. An empty sample
    counts as ``far`` in a pixel's mean, so a pixel is covered if all of its samples are.

    Args:
        anti_aliasing: 2 × 2 samples per pixel; without it depth fills with stripes in training.
        original_offset: show the surface at u = i + 0.5 in pixel i, as the original does; for imported weights.
        fill_back: draw both sides of faces.
        near, far: range of depths drawn.
        raster_backend: ``auto`` (Numba on the CPU, PyTorch elsewhere), ``numba`` or ``torch``.

    Raises:
        ValueError: near and far are not 0 < near < far, or far does not lie behind the object.
    """

    def __init__(
        self,
        *,
        camera: Camera,
        depth_range: tuple[float, float],
        anti_aliasing: bool = True,
        original_offset: bool = False,
        fill_back: bool = True,
        near: float = 0.1,
        far: float = 100.0,
        raster_backend: Backend = "auto",
    ) -> None:
        super().__init__(camera=camera, depth_range=depth_range)
        if not 0 < near < far:
            raise ValueError(f"near and far must be 0 < near < far, not {near} and {far}")
        if far <= depth_range[1]:
            raise ValueError(f"far must lie behind the object, which ends at {depth_range[1]}, not at {far}")
        self.samples, self.original_offset = 2 if anti_aliasing else 1, original_offset
        self.fill_back, self.near, self.far = fill_back, near, far
        self.raster_backend: Backend = raster_backend

    def render_depth(self, canonical_depth: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        """Depth and coverage; see :class:`DepthRenderer`."""
        height, width = canonical_depth.shape[-2:]
        points = grid_vertices(
            canonical_depth,
            view,
            self.camera,
            samples=self.samples,
            pixel_offset=0.5 if self.original_offset else 0.0,
        )
        faces = grid_faces(height, width, points.device)
        drawing = Drawing(
            height, width, self.samples, self.near, self.far, 0.0, self.fill_back, depth=True, alpha=True, rgb=False
        )
        maps = draw(points, faces[None], None, None, None, drawing, self.raster_backend)
        assert maps.depth is not None and maps.alpha is not None
        return maps.depth, maps.alpha.detach() == 1  # detached: no gradient through the silhouette
