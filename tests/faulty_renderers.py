"""Renderers as third parties write them: one that is right, and one for each classic fault.

Tests load it by its path: ``recon check-renderer half-pixel --plugin tests/faulty_renderers.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recon_toolkit import Camera, Rendering, renderer
from recon_toolkit.geometry import grid_faces, inverse_transform
from recon_toolkit.rendering import DepthMeshRenderer, DepthRenderer, grid_vertices, rasterize


@renderer("marched")
class Marched(DepthRenderer):
    """A right one that shares no rasteriser with the core: rays marched to the bilinear surface, n × n a pixel."""

    def __init__(self, *, camera: Camera, depth_range: tuple[float, float], samples: int = 2, steps: int = 8) -> None:
        super().__init__(camera=camera, depth_range=depth_range)
        self.samples, self.steps = samples, steps

    def render_depth(self, canonical_depth: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        height, width = canonical_depth.shape[1:]
        depth = torch.where((canonical_depth > 0.05) & (canonical_depth < 50), canonical_depth, 50.0)
        rays = self._rays(height, width, depth)
        with torch.no_grad():
            s, hit = self._search(depth, view, rays)
            s = s - (self._above(depth, view, rays, s) / self._slope(depth, view, rays, s)).nan_to_num(0, 0, 0)
        # One Newton step with its slope held fixed: the value stays, and the gradient is the implicit function's.
        slope = self._slope(depth, view, rays, s).detach()
        hit = hit & (slope.abs() > 1e-3)
        s = s - torch.where(hit, self._above(depth, view, rays, s) / torch.where(hit, slope, 1.0), 0.0)
        n = self.samples
        whole = F.max_pool2d((~hit).to(s.dtype)[:, None], n)[:, 0] == 0
        return torch.where(whole, F.avg_pool2d(torch.where(hit, s, 0.0)[:, None], n)[:, 0], 0.0), whole

    def _rays(self, height: int, width: int, like: Tensor) -> Tensor:
        """(3, n·H, n·W) rays through the samples."""
        n, focal = self.samples, self.camera.focal_length(width)
        u = (torch.arange(width * n, device=like.device, dtype=like.dtype) + 0.5) / n - 0.5
        v = (torch.arange(height * n, device=like.device, dtype=like.dtype) + 0.5) / n - 0.5
        x, y = (u - (width - 1) / 2) / focal, (v - (height - 1) / 2) / focal
        return torch.stack((x.expand(len(y), -1), y[:, None].expand(-1, len(x)), torch.ones_like(y[:, None] * x)))

    def _above(self, depth: Tensor, view: Tensor, rays: Tensor, s: Tensor) -> Tensor:
        """How far the points at depth s (B, h, w) lie before the surface, which goes on beside the picture."""
        z, place = self._place(depth, view, rays, s)
        safe = place.nan_to_num(nan=2.0)  # grid_sample with border padding crashes on NaN
        surface = F.grid_sample(depth[:, None], safe[:, None], align_corners=True, padding_mode="border")[:, 0, 0]
        return (surface - z).reshape(s.shape)

    def _place(self, depth: Tensor, view: Tensor, rays: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Canonical z (B, N) of the points at depth s, and their places (B, N, 2) in the canonical picture."""
        height, width = depth.shape[1:]
        points = inverse_transform((s[:, None] * rays).flatten(2), view)
        focal = self.camera.focal_length(width)
        z = points[:, 2].clamp(min=1e-3)
        x, y = points[:, 0] / z * 2 * focal / (width - 1), points[:, 1] / z * 2 * focal / (height - 1)
        return points[:, 2], torch.stack((x, y), -1)

    def _slope(self, depth: Tensor, view: Tensor, rays: Tensor, s: Tensor) -> Tensor:
        return (self._above(depth, view, rays, s + 1e-4) - self._above(depth, view, rays, s - 1e-4)) / 2e-4

    def _search(self, depth: Tensor, view: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
        """Depth of the first crossing by steps and bisection, and whether there is one."""
        near, far = 0.75, 1.35
        size = (len(depth), *rays.shape[1:])
        low = depth.new_full(size, near)
        found = torch.zeros(size, dtype=torch.bool, device=depth.device)
        before, step = self._above(depth, view, rays, low), (far - near) / self.steps
        crossing = low
        for k in range(1, self.steps + 1):
            here = self._above(depth, view, rays, low + k * step)
            new = ~found & ((before > 0) != (here > 0)) & before.isfinite() & here.isfinite()
            crossing = torch.where(new, low + (k - 1) * step, crossing)
            found, before = found | new, here
        start = self._above(depth, view, rays, crossing) > 0
        for _ in range(6):
            step /= 2
            same = (self._above(depth, view, rays, crossing + step) > 0) == start
            crossing = torch.where(same, crossing + step, crossing)
        inside = self._place(depth, view, rays, crossing)[1].abs().amax(-1) <= 1
        return crossing, found & inside.reshape(size)


class _Mesh(DepthRenderer):
    """The canonical mesh, sampled 2 × 2: what the faulty ones share."""

    samples = 2

    def inside(self, barycentric: Tensor) -> Tensor:
        return torch.ones_like(barycentric[..., 0], dtype=torch.bool)

    def render_depth(self, canonical_depth: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        height, width = canonical_depth.shape[1:]
        n = self.samples
        vertices = grid_vertices(canonical_depth, view, self.camera, samples=n)
        found = rasterize(vertices, grid_faces(height, width, vertices.device), n * height, n * width)
        hole = ((found.face < 0) | ~self.inside(found.barycentric)).to(found.depth.dtype)
        covered = F.max_pool2d(hole[:, None], n)[:, 0] == 0
        return torch.where(covered, F.avg_pool2d(found.depth[:, None], n)[:, 0], 0.0), covered


@renderer("strict-edges")
class StrictEdges(_Mesh):
    """A sample on an edge belongs to neither face."""

    def inside(self, barycentric: Tensor) -> Tensor:
        return (barycentric > 1e-4).all(-1)  # rounding must not save a sample


@renderer("single-sample")
class SingleSample(_Mesh):
    """One sample a pixel."""

    samples = 1


@renderer("background-minus-one")
class BackgroundMinusOne(_Mesh):
    """Background depth −1, clamped to the nearest depth, and the mask made from the depth."""

    def __call__(self, canonical_depth: Tensor, canonical_image: Tensor, view: Tensor) -> Rendering:
        depth, covered = self.render_depth(canonical_depth, view)
        right = super().__call__(canonical_depth, canonical_image, view)
        clamped = torch.where(covered, depth, -1.0).clamp(self.nearest, self.background)
        return Rendering(image=right.image, depth=clamped, mask=clamped < self.background)


@renderer("half-pixel")
class HalfPixel(DepthMeshRenderer):
    """Samples lie at i + 0.5, although whole numbers are pixel centres."""

    def __init__(self, *, camera: Camera, depth_range: tuple[float, float]) -> None:
        super().__init__(camera=camera, depth_range=depth_range, pixel_offset=0.5)


@renderer("pixel-edges")
class PixelEdges(DepthMeshRenderer):
    """The field of view spans the edges of the outermost pixels, not their centres."""

    def render_depth(self, canonical_depth: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        depth, covered = super().render_depth(canonical_depth, view)
        size = canonical_depth.shape[-1]
        axis = torch.linspace(-1, 1, size, dtype=depth.dtype, device=depth.device) * (size - 1) / size
        grid = torch.stack((axis.expand(size, -1), axis[:, None].expand(-1, size)), -1).expand(len(depth), -1, -1, -1)
        both = torch.stack((depth, covered.to(depth.dtype)), 1)
        drawn = F.grid_sample(both, grid, align_corners=True)
        return drawn[:, 0], drawn[:, 1] > 0.999


@renderer("plus-x-left")
class PlusXLeft(_Mesh):
    """+x points left, and nobody turned the picture."""

    def __call__(self, canonical_depth: Tensor, canonical_image: Tensor, view: Tensor) -> Rendering:
        found = super().__call__(canonical_depth, canonical_image, view)
        return Rendering(image=found.image.flip(-1), depth=found.depth.flip(-1), mask=found.mask.flip(-1))


@renderer("turns-back")
class TurnsBack(_Mesh):
    """It turns the wrong way about y."""

    def __call__(self, canonical_depth: Tensor, canonical_image: Tensor, view: Tensor) -> Rendering:
        wrong = view * view.new_tensor([1, -1, 1, 1, 1, 1])
        return super().__call__(canonical_depth, canonical_image, wrong)


@renderer("old-grid-sample")
class OldGridSample(_Mesh):
    """Colours sampled as if −1 and 1 were the picture's edges."""

    def __call__(self, canonical_depth: Tensor, canonical_image: Tensor, view: Tensor) -> Rendering:
        size = canonical_image.shape[-1]
        axis = torch.linspace(-1, 1, size, dtype=canonical_image.dtype, device=canonical_image.device)
        axis = axis * size / (size - 1)  # what align_corners=False makes of a grid that means the centres
        grid = torch.stack((axis.expand(size, -1), axis[:, None].expand(-1, size)), -1)
        grid = grid.expand(len(canonical_image), -1, -1, -1)
        scaled = F.grid_sample(canonical_image, grid, align_corners=True, padding_mode="border")
        return super().__call__(canonical_depth, scaled, view)


@renderer("noisy")
class Noisy(_Mesh):
    """Samples jittered by random numbers."""

    def render_depth(self, canonical_depth: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        depth, covered = super().render_depth(canonical_depth, view)
        return depth + 1e-6 * torch.randn_like(depth), covered


@renderer("shares-its-batch")
class SharesItsBatch(_Mesh):
    """Depth normalised by a statistic of the whole batch."""

    def render_depth(self, canonical_depth: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        depth, covered = super().render_depth(canonical_depth, view)
        return depth + 1e-3 * (canonical_depth.mean() - 1), covered


class _SumBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, depth: Tensor) -> Tensor:
        return depth.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return 4 * grads[0]


@renderer("sum-backward")
class SumBackward(_Mesh):
    """The forward pass takes the mean of four samples, the backward pass their sum."""

    def __call__(self, canonical_depth: Tensor, canonical_image: Tensor, view: Tensor) -> Rendering:
        return super().__call__(_SumBackward.apply(canonical_depth), canonical_image, view)


@renderer("detached")
class Detached(_Mesh):
    """z/w of a rasteriser that gives it no gradient."""

    def render_depth(self, canonical_depth: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        depth, covered = super().render_depth(canonical_depth, view)
        return depth.detach(), covered


@renderer("fixed-size")
class FixedSize(_Mesh):
    """It knows pictures of 64 pixels only."""

    def render_depth(self, canonical_depth: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        if canonical_depth.shape[-1] != 64:
            raise RuntimeError(f"shape '[-1, 64, 64]' is invalid for input of size {canonical_depth.numel()}")
        return super().render_depth(canonical_depth, view)


@renderer("writes-to-its-input")
class WritesToItsInput(_Mesh):
    """It clamps the canonical depth in place."""

    def render_depth(self, canonical_depth: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            canonical_depth.clamp_(max=0.96)
        return super().render_depth(canonical_depth, view)


@renderer("nan-at-silhouettes")
class NanAtSilhouettes(_Mesh):
    """The background is NaN."""

    def __call__(self, canonical_depth: Tensor, canonical_image: Tensor, view: Tensor) -> Rendering:
        found = super().__call__(canonical_depth, canonical_image, view)
        return Rendering(found.image, torch.where(found.mask, found.depth, torch.nan), found.mask)


@renderer("no-rendering")
class NoRendering(_Mesh):
    """It returns its depth alone."""

    def __call__(self, canonical_depth: Tensor, canonical_image: Tensor, view: Tensor) -> Any:
        return super().__call__(canonical_depth, canonical_image, view).depth
