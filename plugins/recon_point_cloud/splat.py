"""The pseudo-renderer: a cloud of points with mask logits becomes depth and mask as seen from any side.

Lin, Kong and Lucey, "Learning Efficient Point Cloud Generation for Dense 3D Object Reconstruction", AAAI 2018,
Section "Pseudo-rendering". It has no parameters. Theirs lets the last of the points that share a cell of the upsampled
picture stay, whichever that is; ours the nearest, which the upsampling there approximates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recon_point_cloud.reference import EMPTY, NEAR, splat
from recon_toolkit.geometry.orthographic import DISTANCE, camera_rotation

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
