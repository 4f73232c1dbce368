"""Sums that come out the same every time."""

from __future__ import annotations

from torch import Tensor


def sum_by_index(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Sums (size, ...) of the values (N, ...) that share an index (N,), added in a fixed order on every device.

    Of PyTorch's two sums by index, ``index_add_`` has one on the CPU and uses atomics on CUDA, where ``index_put_``
    sorts. Not differentiable by itself: for backward passes.
    """
    out = values.new_zeros(size, *values.shape[1:])
    if values.device.type == "cpu":
        return out.index_add_(0, index, values)
    return out.index_put_((index,), values, accumulate=True)
