"""The pseudo-renderer in plain PyTorch: what the fast one is measured against, and what runs on a GPU.

Nothing here is clever: every point lands in a cell of the upsampled picture, the nearest of each cell stays, and the
cells of each pixel are pooled.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recon_toolkit.geometry.orthographic import to_picture

#: Points nearer than this to the camera, or behind it, are not drawn.
NEAR = 1e-3
#: Logit of a pixel that no point landed in: not part of the object (Lin et al., code).
EMPTY = -1.0


def splat(
    points: Tensor, logits: Tensor, quaternion: Tensor, size: int, *, upsampling: int = 5, overwrite: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Depth, mask logits and which point each pixel shows; see :func:`recon_point_cloud.splat.pseudo_render`.

    Returns:
        depth (B, V, H, W), 0 where no visible point landed; logits (B, V, H, W); winner (B, V, H, W) int64, −1 where
        none is.
    """
    batch, count = logits.shape
    views, fine = quaternion.shape[1], size * upsampling
    seen = to_picture(points, quaternion, size)
    column, row, depth = (t.detach() for t in seen.unbind(-1))
    # A pixel's square goes from −1/2 to 1/2 about its centre, and has upsampling² cells.
    u, v = (((t + 0.5) * upsampling).floor() for t in (column, row))
    inside = (u >= 0) & (u < fine) & (v >= 0) & (v < fine) & (depth > NEAR)
    positive = (logits > 0)[:, None].expand_as(inside)
    cells = torch.where(inside, v * fine + u, 0).long()
    number = torch.arange(count, device=points.device).expand_as(cells)
    visible = inside & positive
    first = _winners(cells, number, depth, visible, fine * fine, overwrite)  # (B, V, fine²), −1 for none
    cell_inverse = torch.where(first >= 0, 1 / depth.gather(2, first.clamp(min=0)), 0).view(batch, views, fine, fine)
    _, at = F.max_pool2d(cell_inverse, upsampling, return_indices=True)
    winner = first.gather(2, at.flatten(2)).view(batch, views, size, size)

    shown = winner.clamp(min=0).flatten(2)
    drawn = winner >= 0
    depth_map = torch.where(drawn, seen[..., 2].gather(2, shown).view_as(winner), 0)
    own = logits[:, None].expand(-1, views, -1).gather(2, shown).view_as(winner)
    # Where nothing visible landed, the mean logit of the invisible points that did.
    pixels = torch.where(
        inside, v.div(upsampling, rounding_mode="floor") * size + u.div(upsampling, rounding_mode="floor"), 0
    )
    hidden = (inside & ~positive).to(logits.dtype)
    zero = logits.new_zeros(batch, views, size * size)
    total = zero.scatter_add(2, pixels.long(), hidden * logits[:, None])
    amount = zero.scatter_add(2, pixels.long(), hidden)
    mean = torch.where(amount > 0, total / amount.clamp(min=1), EMPTY).view_as(winner)
    return depth_map, torch.where(drawn, own, mean), winner


def _winners(cells: Tensor, number: Tensor, depth: Tensor, visible: Tensor, count: int, overwrite: bool) -> Tensor:
    """The point that stays in each cell (B, V, count): the nearest, the first of equals; or the last that came."""
    shape = (*cells.shape[:2], count)
    if overwrite:
        last = torch.full(shape, -1, device=cells.device)
        return last.scatter_reduce(2, cells, torch.where(visible, number, -1), "amax")
    inverse = torch.where(visible, 1 / depth, 0)
    nearest = torch.zeros(shape, dtype=depth.dtype, device=depth.device).scatter_reduce(2, cells, inverse, "amax")
    stays = visible & (inverse == nearest.gather(2, cells))
    none = cells.shape[2]
    first = torch.full(shape, none, device=cells.device)
    first = first.scatter_reduce(2, cells, torch.where(stays, number, none), "amin")
    return torch.where(first < none, first, -1)
