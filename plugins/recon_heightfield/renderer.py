"""The renderer: rays through samples of each pixel, cast against the canonical depth map, with implicit gradients."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recon_heightfield.surface import Samples, Surface, cut_rays, first_crossings, slab
from recon_toolkit import Camera
from recon_toolkit.geometry import view_matrix
from recon_toolkit.rendering import DepthRenderer, check_depth_map, sum_by_index

#: Smallest cosine between ray and surface normal that gradients are divided by: at grazing hits, where the depth
#: jumps as the ray tips over an edge, the derivative grows without bound and tells nothing about a finite step.
GRAZING = 0.02


def intersect(
    depth: Tensor,
    rotation: Tensor,
    offset: Tensor,
    rays: Tensor,
    focal: float,
    *,
    max_steps: int,
    refinements: int,
) -> tuple[Tensor, Tensor]:
    """Depth in the input view at which rays first pass behind the canonical surface.

    On the surface G(z) = W(u, v) · Z − 1 = 0, with the canonical point P(z) = Rᵀ (z r − t), its depth Z, its pixel
    (u, v) and the map's inverse depth W. With n = ∂G/∂P, the normal, and q = Rᵀ r, the hit moves by
    dz = −dG / (n · q) when map or view change by dG at a fixed z.

    Args:
        depth: canonical depth (B, H, W).
        rotation: R (B, 3, 3), canonical to input view.
        offset: t (B, 3): a canonical point P lies at R P + t in the input view.
        rays: r (3, N), third component 1.
        focal: focal length of the canonical picture in pixels.
        max_steps, refinements: see the renderer.

    Returns:
        z (B, N), 0 for rays that hit nothing, and whether a ray hit (B, N).
    """
    result: tuple[Tensor, Tensor] = _Intersect.apply(depth, rotation, offset, rays, focal, max_steps, refinements)
    return result


class _Intersect(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        depth: Tensor,
        rotation: Tensor,
        offset: Tensor,
        rays: Tensor,
        focal: float,
        max_steps: int,
        refinements: int,
    ) -> tuple[Tensor, Tensor]:
        batch, height, width = depth.shape
        back = rotation.transpose(1, 2)
        directions, origin = back @ rays, -(back @ offset[:, :, None])[:, :, 0]
        surface = Surface(depth)
        segments, kept = cut_rays(directions, origin, slab(surface), focal, height, width)
        found, s = first_crossings(segments, surface, max_steps=max_steps, refinements=refinements)
        # A crossing beside a hole may have the hole in its bracket.
        found, s = found[s.isfinite()], s[s.isfinite()]
        segments, hits = segments.select(found), kept[found]
        z = segments.depth(s)
        out = depth.new_zeros(batch * rays.shape[1]).index_copy_(0, hits, z)
        hit = torch.zeros_like(out, dtype=torch.bool).index_fill_(0, hits, True)
        if any(ctx.needs_input_grad[:3]):
            u, v = torch.addcmul(segments.u, s, segments.du), torch.addcmul(segments.v, s, segments.dv)
            inverse = torch.addcmul(segments.inverse, s, segments.d_inverse)
            ctx.save_for_backward(rotation, offset, rays, hits, segments.image, u, v, inverse, z)
            ctx.surface, ctx.focal = surface, focal
        shape = (batch, rays.shape[1])
        hit = hit.reshape(shape)
        ctx.mark_non_differentiable(hit)
        return out.reshape(shape), hit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _hit: Tensor) -> tuple[Tensor | None, ...]:
        rotation, offset, rays, hits, image, u, v, inverse, z = ctx.saved_tensors
        surface, focal = ctx.surface, ctx.focal
        here = surface.samples(u, v, image)
        cx, cy = (surface.width - 1) / 2, (surface.height - 1) / 2
        third = here.value - (u - cx) * here.slope_u - (v - cy) * here.slope_v
        normal = torch.stack((here.slope_u * focal, here.slope_v * focal, third))  # [3, M]
        ray = rays.index_select(1, hits - image * rays.shape[1])  # [3, M]
        direction = torch.einsum("mji,jm->im", rotation.index_select(0, image), ray)
        bound = GRAZING * (normal.square().sum(0) * ray.square().sum(0)).sqrt()
        along = torch.maximum((normal * direction).sum(0), bound)
        pull = -grad.reshape(-1).index_select(0, hits) / along  # dL/dG
        grad_depth = _spread(pull / inverse, here, surface) if ctx.needs_input_grad[0] else None
        force = _per_image(normal * pull, hits, rotation.shape[0], rays.shape[1])  # dL/dP, [B, 3, N]
        reached = _per_image(ray * z, hits, rotation.shape[0], rays.shape[1])
        total = force.sum(2)  # [B, 3]
        # P = Rᵀ y with y = z r − t.
        grad_rotation = reached @ force.transpose(1, 2) - offset[:, :, None] * total[:, None]
        grad_offset = -(rotation @ total[:, :, None])[:, :, 0]
        return grad_depth, grad_rotation, grad_offset, None, None, None, None


def _per_image(values: Tensor, hits: Tensor, batch: int, count: int) -> Tensor:
    """Values (3, M) of the hits among all rays: (B, 3, N), 0 for the others."""
    out = values.new_zeros(3, batch * count).index_copy_(1, hits, values)
    return out.reshape(3, batch, count).transpose(0, 1)


def _spread(weight: Tensor, here: Samples, surface: Surface) -> Tensor:
    """Gradient of the depth map (B, H, W) from those of the inverse depth at samples (M)."""
    batch, height, width = surface.batch, surface.height, surface.width
    right = weight * here.right
    terms = (weight, right, weight * here.down, right * here.down)
    base, along, across, twist = (sum_by_index(term, here.cell, len(surface.cells)) for term in terms)
    maps = (base - along - across + twist, along - twist, across - twist, twist)
    a, b, c, d = (m.reshape(batch, height - 1, width - 1) for m in maps)
    out = weight.new_zeros(batch, height, width)
    out[:, :-1, :-1] += a
    out[:, :-1, 1:] += b
    out[:, 1:, :-1] += c
    out[:, 1:, 1:] += d
    return torch.where(surface.inverse.isnan(), 0, out * -surface.inverse.square())


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
