"""The pseudo-renderer: a cloud of points with mask logits becomes depth and mask as seen from any side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from recon_toolkit.geometry.orthographic import DISTANCE, camera_rotation, to_picture

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


Backend = Literal["auto", "reference", "numba"]
Collisions = Literal["nearest", "last"]


@dataclass(frozen=True)
class Splats:
    """What a cloud looks like from several sides.

    Attributes:
        depth: (B, V, S, S), 0 where no visible point landed.
        logits: (B, V, S, S), of the point that is seen; else the mean of the invisible points that landed there, and
            −1 where none did.
        visible: (B, V, S, S) bool: a visible point landed there.
    """

    depth: Tensor
    logits: Tensor
    visible: Tensor


def pseudo_render(
    points: Tensor,
    logits: Tensor,
    views: Tensor,
    size: int,
    *,
    upsampling: int = 5,
    collisions: Collisions = "nearest",
    backend: Backend = "auto",
) -> Splats:
    """Draw clouds of points from several views, orthographically (:mod:`recon_toolkit.geometry.orthographic`).

    A point with a logit above 0 is visible. Each lands in one cell of a picture of ``upsampling`` × ``size`` pixels a
    side; of each cell one point stays, and of the cells of a pixel the nearest. Gradients flow from depth to the
    point that is seen, along the line of sight only; and from the logits to those they are made of. None flows to
    where a point lands, nor to the views.

    Args:
        points: (B, N, 3) float32 or float64 in the object's frame.
        logits: (B, N) of the same type.
        views: (B, V, 4) unit quaternions.
        size: S, pixels along a side.
        upsampling: cells along a pixel's side. With ``collisions="nearest"`` the result does not depend on it, but for
            points of equal depth.
        collisions: which of the visible points in a cell stays: the ``nearest``, or the ``last`` in their order as in
            the original, where that order is left to chance.
        backend: ``auto``, ``reference`` (PyTorch, any device) or ``numba`` (CPU).

    Raises:
        ValueError: a shape, type, device or option is wrong.
    """
    _check(points, logits, views, size, upsampling, collisions, backend)
    views = views.detach().to(points.dtype)
    if points.shape[1] == 0:
        empty = points.new_zeros(*views.shape[:2], size, size)
        return Splats(empty, empty + EMPTY, empty > 0)
    if backend == "numba" or (backend == "auto" and points.device.type == "cpu"):
        depth, mask, winner = _NumbaSplat.apply(points, logits, views, size, upsampling, collisions == "last")
    else:
        depth, mask, winner = splat(points, logits, views, size, upsampling=upsampling, overwrite=collisions == "last")
    return Splats(depth, mask, winner >= 0)


def _check(
    points: Tensor, logits: Tensor, views: Tensor, size: int, upsampling: int, collisions: str, backend: str
) -> None:
    if points.ndim != 3 or points.shape[2] != 3 or points.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"points must be (B, N, 3) float32 or float64, not {tuple(points.shape)} {points.dtype}")
    if logits.shape != points.shape[:2] or logits.dtype != points.dtype:
        wanted = f"{tuple(points.shape[:2])} {points.dtype}"
        raise ValueError(f"logits must be {wanted} as points are, not {tuple(logits.shape)} {logits.dtype}")
    if views.ndim != 3 or views.shape[0] != len(points) or views.shape[2] != 4:
        raise ValueError(f"views must be ({len(points)}, V, 4), not {tuple(views.shape)}")
    for name, tensor in (("logits", logits), ("views", views)):
        if tensor.device != points.device:
            raise ValueError(f"{name} are on {tensor.device}, but points are on {points.device}")
    if size < 1 or upsampling < 1:
        raise ValueError(f"size and upsampling must be 1 or more, not {size} and {upsampling}")
    if collisions not in ("nearest", "last"):
        raise ValueError(f"collisions must be nearest or last, not {collisions!r}")
    if backend not in ("auto", "reference", "numba"):
        raise ValueError(f"backend must be auto, reference or numba, not {backend!r}")
    if backend == "numba" and points.device.type != "cpu":
        raise ValueError(f"backend numba draws on the CPU, but points are on {points.device}")


def _array(tensor: Tensor) -> Any:
    return tensor.detach().contiguous().numpy()


class _NumbaSplat(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, points: Tensor, logits: Tensor, views: Tensor, size: int, upsampling: int, overwrite: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        from recon_point_cloud import kernels

        rotation = camera_rotation(views)
        shape = (len(points), views.shape[1], size, size)
        depth, mask = (points.new_empty(shape) for _ in range(2))
        winner, amount = (torch.empty(shape, dtype=torch.int32) for _ in range(2))
        # In the points' precision, so that kernels never mix precisions.
        numbers = np.array(
            (0.5, (size - 1) / 2, DISTANCE, NEAR, 0, size, upsampling, EMPTY), dtype=_array(points).dtype
        )
        kernels.forward(
            shape[0] * shape[1], _array(points), _array(logits), _array(rotation), numbers, upsampling, overwrite,
            depth.numpy(), mask.numpy(), winner.numpy(), amount.numpy(),
        )  # fmt: skip
        ctx.save_for_backward(points, logits, rotation, winner, amount)
        ctx.numbers, ctx.upsampling = numbers, upsampling
        ctx.mark_non_differentiable(winner)
        return depth, mask, winner

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from recon_point_cloud import kernels

        points, logits, rotation, winner, amount = ctx.saved_tensors
        to_points, to_logits = torch.zeros_like(points), torch.zeros_like(logits)
        kernels.backward(
            len(points), _array(points), _array(logits), _array(rotation), ctx.numbers, ctx.upsampling,
            _array(winner), _array(amount), _array(grads[0]), _array(grads[1]),
            to_points.numpy(), to_logits.numpy(),
        )  # fmt: skip
        return to_points, to_logits, None, None, None, None
