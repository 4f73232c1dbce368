"""How many steps a run takes, as given, by epochs or as many as fit into some minutes; and how much memory."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from recon_toolkit.config.schema import TrainingConfig
from recon_toolkit.errors import CheckpointError
from recon_toolkit.files import write_text

FILE = "budget.json"
#: Steps timed after one that is not, since the first compiles and allocates.
TRIAL_STEPS = 10


class Budget(BaseModel):
    """What a trial said; a run keeps it, so that it continues to the same last step."""

    minutes: float
    step_seconds: float
    steps: int = Field(ge=1, lt=2**63)


def steps_given(config: TrainingConfig, images: int) -> int | None:
    """Steps of a run on ``images`` training images, None if a trial has to tell."""
    if config.steps is not None:
        return config.steps
    if config.epochs is not None:
        return max(1, math.ceil(config.epochs * images / config.batch_size))
    return None


def recorded_steps(run: Path) -> int | None:
    """What an earlier session's trial said, if there was one. Raises CheckpointError if the file is damaged."""
    path = run / FILE
    if not path.is_file():
        return None
    try:
        return Budget.model_validate_json(path.read_bytes()).steps
    except ValidationError as error:
        raise CheckpointError("is damaged", where=str(path), remedy="start the run anew elsewhere") from error


def try_steps(step: Callable[[], object], minutes: float, run: Path | None) -> int:
    """Time ``step``, which must leave no trace in the training, and say how many fit into ``minutes``.

    Args:
        step: one training step without its update.
        minutes: of training alone, without validation and scoring.
        run: where the result is kept; nowhere if None.
    """
    times = []
    for _ in range(1 + TRIAL_STEPS):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[1:])
    budget = Budget(minutes=minutes, step_seconds=seconds, steps=max(1, int(minutes * 60 / seconds)))
    if run is not None:
        write_text(run / FILE, budget.model_dump_json(indent=1) + "\n", durable=True)
    return budget.steps


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


def peak_memory_estimate(
    model: nn.Module, loss: Callable[[int], Tensor], batch_size: int, group_size: int = 1, *, ema: bool
) -> float:
    """Expected peak memory of the training process in MiB.

    The sum of what the process holds now, gradients, optimiser and average of the weights, and what the backward
    pass keeps per image, times the batch; a quarter more of that for work space.

    Args:
        model: the model, on its device.
        loss: computes the loss of a batch of that number of images.
        batch_size: of the run.
        group_size: images that cannot be parted.
        ema: whether an averaged copy of the weights is kept.
    """
    groups = min(batch_size, max(8, 2 * group_size)) // group_size
    large = groups * group_size
    # A single image has no batch statistics.
    small = max(2, groups // 2 * group_size) if groups > 1 and large > 2 else large
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
