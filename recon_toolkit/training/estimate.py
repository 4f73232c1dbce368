"""How much memory a run will take, found by tracing one small batch before it starts."""

from __future__ import annotations

from collections.abc import Callable

import psutil
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


def parameter_count(model: nn.Module) -> int:
    """Number of trained values."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def saved_bytes(forward: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass of a computation, each storage counted once."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        result = forward()
    del result
    return sum(sizes.values())


def peak_memory_estimate(model: nn.Module, loss: Callable[[int], Tensor], batch_size: int, *, ema: bool) -> float:
    """Expected peak memory of the training process in MiB.

    The sum of what the process holds now, gradients, optimiser and average of the weights, and what the backward
    pass keeps per image, times the batch; a quarter more of that for work space.

    Args:
        model: the model, on its device.
        loss: computes the loss of a batch of so many images.
        batch_size: of the run.
        ema: whether an averaged copy of the weights is kept.
    """
    large = min(batch_size, 8)
    small = max(2, large // 2) if large > 2 else large  # a single image has no batch statistics
    few, more = saved_bytes(lambda: loss(small)), saved_bytes(lambda: loss(large))
    # Without a second size to compare with, all that is kept counts as the images'.
    per_image = (more - few) / (large - small) if large > small else more / large
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    on_gpu = next(model.parameters()).device.type == "cuda"
    held = weights if on_gpu else psutil.Process().memory_info().rss
    return float(held + weights * (4 if ema else 3) + 1.25 * per_image * batch_size) / 2**20


def available_memory_mb(device: torch.device) -> float:
    """Memory that a training process can have on a device, in MiB."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0]) / 2**20
    # The estimate counts what this process holds already, so that is available to it too.
    return float(psutil.virtual_memory().available + psutil.Process().memory_info().rss) / 2**20
