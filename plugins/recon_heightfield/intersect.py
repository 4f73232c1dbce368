"""Depth along rays to the surface, differentiable by the implicit function theorem."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recon_heightfield.search import first_crossings
from recon_heightfield.segments import cut_rays, slab
from recon_heightfield.surface import Samples, Surface
from recon_toolkit.rendering import sum_by_index

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
