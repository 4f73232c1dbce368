"""The readable soft rasteriser: vectorised PyTorch, any device, differentiable by autograd. The truth for the kernel.

Every face lists the samples in its bounding box grown by the cut-off radius; the list of (face, sample) pairs is
treated at once, so the cost grows with pixels plus faces, never with their product.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recon_toolkit.rendering import FAR, NEAR, sum_by_index
from recon_toolkit.rendering.raster_reference import EDGE_ON

#: Edge-on faces are not drawn, nor those that span more pixels than this (float32 cannot say where their edges lie) or
#: have a corner that is not between NEAR and FAR.
LARGEST = 1e6


class Settings(NamedTuple):
    """The op's numbers: sigma in pixels², radius in pixels, gamma in units of far − near."""

    sigma: float
    radius: float
    gamma: float
    near: float
    far: float

    @property
    def middle(self) -> float:
        """Depths are added up relative to this: float32 then resolves the difference between neighbouring faces."""
        return (self.near + self.far) / 2


class Sums(NamedTuple):
    """What the pairs of a pixel add up to; D is a face's probability, zhat its normalised inverse depth.

    Attributes:
        depth: (B, H, W), mean depth under the weights D · exp(zhat / gamma); 0 where there is no face.
        attributes: (B, H, W, C), their mean under the same weights.
        log_weight: (B, H, W), log Σ D · exp(zhat / gamma); −inf where there is no face.
        log_clear: (B, H, W), log Π (1 − D), at most 0.
        covered: (B, H, W) bool: a face contains the pixel's centre, edges included.
    """

    depth: Tensor
    attributes: Tensor
    log_weight: Tensor
    log_clear: Tensor
    covered: Tensor


class _Take(torch.autograd.Function):
    """Rows of a tensor by index; the gradient adds up in a fixed order on every device."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.count = len(values)
        return values[index]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return sum_by_index(grad, ctx.saved_tensors[0], ctx.count), None


class _Sum(torch.autograd.Function):
    """Sum of the rows that share an index: (count, ...)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, index: Tensor, count: int) -> Tensor:
        ctx.save_for_backward(index)
        return sum_by_index(values, index, count)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad[ctx.saved_tensors[0]], None, None


def _take(values: Tensor, index: Tensor) -> Tensor:
    return _Take.apply(values, index)  # type: ignore[no-any-return]


def _sum(values: Tensor, index: Tensor, count: int) -> Tensor:
    return _Sum.apply(values, index, count)  # type: ignore[no-any-return]


def _cross(first: Tensor, second: Tensor) -> Tensor:
    return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]


def _boxes(corners: Tensor, height: int, width: int, radius: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First column, first row, columns and rows (0 for none), each (B, F), of the faces that are drawn."""
    xy, z = corners[..., :2], corners[..., 2]
    low, high = xy.amin(-2), xy.amax(-2)
    extent = (high - low).amax(-1)
    area = _cross(xy[..., 1, :] - xy[..., 0, :], xy[..., 2, :] - xy[..., 0, :]).abs()
    # Written so that a NaN anywhere fails the test.
    drawn = (area > EDGE_ON * extent * extent) & (extent < LARGEST)
    drawn &= ((z > NEAR) & (z < FAR)).all(-1)
    limit = xy.new_tensor([width - 1, height - 1])
    drawn &= (high + radius >= 0).all(-1) & (low - radius <= limit).all(-1)
    low, high = (torch.where(drawn[..., None], bound, 0) for bound in (low, high))
    first = (low - radius).clamp(min=0).ceil().long()
    last = torch.minimum(high + radius, limit).floor().long()
    size = torch.where(drawn[..., None], (last - first + 1).clamp(min=0), 0)
    return first[..., 0], first[..., 1], size[..., 0], size[..., 1]


def _pairs(corners: Tensor, height: int, width: int, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """(face of the batch, column, row) of every candidate pair, each (N,), face by face."""
    x0, y0, columns, rows = (box.flatten() for box in _boxes(corners, height, width, radius))
    counts = columns * rows
    face = torch.repeat_interleave(torch.arange(len(counts), device=corners.device), counts)
    within = torch.arange(len(face), device=corners.device) - (counts.cumsum(0) - counts)[face]
    return face, x0[face] + within % columns[face], y0[face] + within // columns[face]


def signed_distance(corners: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance (N,) from the origin to triangles (N, 3, 2), positive inside, and whether it is inside.

    Edges count as inside. The point of an edge that is nearest stays where it is to first order as the corners move,
    so it is treated as fixed: the gradient is exact all the same (envelope theorem), and has no cancelling terms.
    """
    edges = torch.stack([_cross(corners[:, (k + 1) % 3], corners[:, (k + 2) % 3]) for k in range(3)], dim=-1)
    inside = (edges >= 0).all(-1) | (edges <= 0).all(-1)
    nearest = torch.full_like(edges[:, 0], torch.inf)
    for k in range(3):
        start, end = corners[:, k], corners[:, (k + 1) % 3]
        direction = (end - start).detach()
        along = -(start.detach() * direction).sum(-1) / direction.square().sum(-1)
        along = along.clamp(0, 1)[:, None]
        squared = (start * (1 - along) + end * along).square().sum(-1)
        nearest = torch.where(squared < nearest, squared, nearest)
    return torch.where(inside, nearest, -nearest), inside


def clamped_barycentrics(corners: Tensor) -> Tensor:
    """Screen-space weights (N, 3) of the origin in triangles (N, 3, 2), clamped to [0, 1], with sum 1."""
    a, b, c = corners.unbind(1)
    area = _cross(b - a, c - a)
    second, third = _cross(c, a) / area, _cross(a, b) / area
    # The first by difference: the weights then sum to 1 whatever the rounding, and one of them is at least 1/3.
    weights = torch.stack((1 - second - third, second, third), dim=-1).clamp(0, 1)
    return weights / weights.sum(-1, keepdim=True)


def soft_sums(
    vertices: Tensor,  # [B, V, 3]
    faces: Tensor,  # [F, 3]
    attributes: Tensor,  # [B, V, C]
    height: int,
    width: int,
    settings: Settings,
) -> Sums:
    """The sums over every pixel's faces; see :class:`Sums`."""
    batch, count = vertices.shape[:2]
    index = faces.long()
    with torch.no_grad():
        face, x, y = _pairs(vertices[:, index], height, width, settings.radius)
    mesh = face // max(len(index), 1)
    corner = (index[face % max(len(index), 1)] + mesh[:, None] * count).flatten()
    points = _take(vertices.flatten(0, 1), corner).reshape(-1, 3, 3)
    xy = points[..., :2] - torch.stack((x, y), dim=-1).to(points)[:, None]
    with torch.no_grad():
        distance, inside = signed_distance(xy)
        kept = (inside | (-distance < settings.radius**2)).nonzero()[:, 0]
    pixel = ((mesh * height + y) * width + x)[kept]
    xy, z = xy[kept], points[kept][..., 2]
    values = _take(attributes.flatten(0, 1), corner.reshape(-1, 3)[kept].flatten()).reshape(
        len(kept), 3, attributes.shape[2]
    )

    logit = signed_distance(xy)[0] / settings.sigma
    share = clamped_barycentrics(xy) / z
    share = share / share.sum(-1, keepdim=True)  # perspective-correct
    depth = (share * (z - settings.middle)).sum(-1)
    value = (share[..., None] * values).sum(1)
    nearness = -depth / (settings.far - settings.near) / settings.gamma  # zhat / gamma less half / gamma
    size = batch * height * width
    peak = nearness.detach().new_full((size,), -torch.inf)
    peak = peak.scatter_reduce(0, pixel, nearness.detach(), "amax")
    weight = torch.sigmoid(logit) * torch.exp(nearness - peak[pixel])
    total = _sum(weight, pixel, size)
    seen = total > 0
    safe, peak = torch.where(seen, total, 1), torch.where(seen, peak, 0)
    covered = torch.zeros(size, dtype=torch.bool, device=vertices.device)
    covered[pixel[inside[kept]]] = True
    shape = (batch, height, width)
    return Sums(
        depth=torch.where(seen, _sum(weight * depth, pixel, size) / safe + settings.middle, 0).reshape(shape),
        attributes=(_sum(weight[:, None] * value, pixel, size) / safe[:, None]).reshape(*shape, attributes.shape[2]),
        log_weight=torch.where(seen, safe.log() + torch.where(seen, peak, 0), -torch.inf).reshape(shape)
        + 0.5 / settings.gamma,
        log_clear=-_sum(torch.nn.functional.softplus(logit), pixel, size).reshape(shape),
        covered=covered.reshape(shape),
    )
