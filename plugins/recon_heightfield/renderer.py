"""The renderer: rays through samples of each pixel, cast against the canonical depth map."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from recon_heightfield.intersect import intersect
from recon_toolkit import Camera
from recon_toolkit.geometry import view_matrix
from recon_toolkit.rendering import DepthRenderer, check_depth_map


class HeightfieldRenderer(DepthRenderer):
    """The canonical depth map as a height field, met by rays of the input view.

    Between pixels the inverse depth is interpolated bilinearly, so planes are exact, and the surface bends within a
    cell where a mesh folds along a diagonal. A ray hits where it first passes from before the surface to behind it;
    one that only passes from behind to before, or leaves the map, hits nothing. So the back of a surface is not
    seen. Gradients are those of the implicit function theorem, with none through visibility; grazing hits are bounded
    as if the cosine between ray and normal were at least 0.02.

    Pixels of the map that are not between 0.001 and 100, or not a number, are holes. An image whose view is not
    finite is not covered.

    Args:
        supersampling: samples along a pixel's side or diagonal. A pixel is covered if all are, and its depth is their
            mean.
        pattern: ``diagonal`` has as many samples as ``supersampling`` says, evenly on the pixel's diagonal, where
            ``grid`` has their square. For turns about x and y, two on the diagonal spread the gradient over the
            vertices as evenly as 2 × 2 do, at half the cost.
        max_steps: bound of the march's steps through what bounds over windows have not excluded. Steps are at most
            one canonical pixel long, unless that needs more than these. A crest that a ray cuts by less than a step
            may be passed over.
        refinements: bound of the steps of Newton's iteration, within the bracket that the march finds. It ends when
            the numbers' precision is reached, for most rays after three.
        pixel_offset: shift of the sample positions in pixels, as for ``depth-mesh``.

    Raises:
        ValueError: an option is out of range; or, when called, an argument has a wrong shape or type. Values are not
            looked at, so that no device is waited for.
    """

    def __init__(
        self,
        *,
        camera: Camera,
        depth_range: tuple[float, float],
        supersampling: int = 2,
        pattern: Literal["diagonal", "grid"] = "diagonal",
        max_steps: int = 64,
        refinements: int = 32,
        pixel_offset: float = 0.0,
    ) -> None:
        super().__init__(camera=camera, depth_range=depth_range)
        for name, value in (("supersampling", supersampling), ("max_steps", max_steps), ("refinements", refinements)):
            if value < 1:
                raise ValueError(f"{name} is 1 or more, not {value}")
        if pattern not in ("diagonal", "grid"):
            raise ValueError(f"pattern is diagonal or grid, not {pattern!r}")
        if not math.isfinite(pixel_offset):
            raise ValueError(f"pixel_offset is a finite number of pixels, not {pixel_offset}")
        places = [(i + 0.5) / supersampling - 0.5 + pixel_offset for i in range(supersampling)]
        diagonal = [(place, place) for place in places]
        self.samples = diagonal if pattern == "diagonal" else [(x, y) for y in places for x in places]
        self.max_steps, self.refinements = max_steps, refinements

    def render_depth(self, canonical_depth: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        check_depth_map(canonical_depth, view)
        batch, height, width = canonical_depth.shape
        samples = len(self.samples)
        usable = view.isfinite().all(1)
        rotation, offset = view_matrix(torch.where(usable[:, None], view, 0))
        z, hit = intersect(
            canonical_depth,
            rotation,
            offset[:, :, 0],
            self._rays(canonical_depth),
            self.camera.focal_length(width),
            max_steps=self.max_steps,
            refinements=self.refinements,
        )
        covered = hit.reshape(batch, samples, height, width).all(1) & usable[:, None, None]
        depth = z.reshape(batch, samples, height, width).mean(1)
        return torch.where(covered, depth, 0), covered

    def _rays(self, like: Tensor) -> Tensor:
        """Directions (3, N) through the pixels' samples: those of all pixels' first sample, then of the second..."""
        height, width = like.shape[-2:]
        rays = self.camera.rays(height, width, device=like.device, dtype=like.dtype)
        shifts = rays.new_tensor([[x, y, 0] for x, y in self.samples]).T / self.camera.focal_length(width)
        return (rays[:, None] + shifts[:, :, None, None]).reshape(3, -1)
