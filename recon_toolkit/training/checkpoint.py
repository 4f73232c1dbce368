"""Checkpoints: one safetensors file with weights, optimiser and random state; its metadata holds the pipeline.

Nothing is ever unpickled. A file appears whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from recon_toolkit.errors import CheckpointError
from recon_toolkit.files import writing
from recon_toolkit.progress import Progress

FORMAT = "recon-toolkit checkpoint 1"
FOLDER = "checkpoints"
#: The trained weights alone, written at the end of a run.
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        step: steps done.
        pipeline: the resolved pipeline as YAML.
        fingerprint: the resolved pipeline's fingerprint.
        tensors: all tensors by name: ``model.*``, ``average.*``, ``optimizer.<index>.<name>``, ``random.torch``.
        extra: further values of the trainer.
    """

    step: int
    pipeline: str
    fingerprint: str
    tensors: dict[str, Tensor]
    extra: dict[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors below a prefix, without it."""
        prefix = f"{name}."
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights that a model is used with: their average where one is kept, which is what a run ends with."""
        return self.part("average") or self.part("model")


def checkpoint_path(run: Path, step: int) -> Path:
    """Where a run keeps the checkpoint of a step."""
    return run / FOLDER / f"step-{step:08d}.safetensors"


def checkpoints(run: Path) -> list[Path]:
    """A run's checkpoint files, oldest first."""
    return sorted((run / FOLDER).glob("step-*.safetensors"))


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; raises DataError if the disk is full or cannot be written."""
    metadata = {
        "format": FORMAT,
        "step": str(checkpoint.step),
        "pipeline": checkpoint.pipeline,
        "fingerprint": checkpoint.fingerprint,
        "extra": json.dumps(checkpoint.extra),
    }
    # Tensors that share memory cannot be stored twice; copies on the CPU never share.
    tensors = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in checkpoint.tensors.items()}
    data = save(tensors, metadata)
    with writing(path, durable=True) as file:
        file.write(data)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: there is no such file, it is truncated, a pickle, or not a checkpoint of this program.
    """
    if not path.is_file():
        raise CheckpointError("there is no such checkpoint", where=str(path), remedy="name a run folder or its file")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"not a readable safetensors file ({error}); nothing in it was executed",
            where=str(path),
            remedy="delete it if a disk filled up or a copy broke off, and continue from the one before",
        ) from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"a safetensors file, but not of the form '{FORMAT}'", where=str(path), remedy="name a file from a run"
        )
    try:
        return Checkpoint(
            step=int(metadata["step"]),
            pipeline=metadata["pipeline"],
            fingerprint=metadata["fingerprint"],
            tensors=tensors,
            extra=json.loads(metadata["extra"]),
        )
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"its metadata is damaged: {error}", where=str(path)) from error


def latest_checkpoint(run: Path) -> Checkpoint | None:
    """The newest readable checkpoint of a run, or None if it has none.

    Raises:
        CheckpointError: there are checkpoints but none can be read.
    """
    failure: CheckpointError | None = None
    for path in reversed(checkpoints(run)):
        try:
            found = load_checkpoint(path)
        except CheckpointError as error:
            failure = failure or error
            continue
        if failure is not None:
            Progress().warn(f"{failure}; using {path.name} instead")
        return found
    if failure is not None:
        raise failure
    return None


def prune(run: Path, keep: int = 2) -> None:
    """Delete all but the newest checkpoints."""
    for path in checkpoints(run)[:-keep]:
        path.unlink(missing_ok=True)


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as named tensors: ``<parameter index>.<state name>``."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value) for index, values in state.items() for name, value in values.items()
    }


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load weights into a model; raises CheckpointError if names or shapes do not fit."""
    own = model.state_dict()
    missing = sorted(own.keys() - tensors.keys())
    surplus = sorted(tensors.keys() - own.keys())
    shapes = [k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape]
    if missing or surplus or shapes:
        first = (shapes or missing or surplus)[0]
        raise CheckpointError(
            f"the weights are of another model: {len(missing)} missing, {len(surplus)} unknown, "
            f"{len(shapes)} of another shape, e.g. {first}",
            where=source,
            remedy="use the pipeline that the weights were trained with",
        )
    model.load_state_dict(dict(tensors))


def inference_checkpoint(path: Path) -> tuple[Checkpoint, Path]:
    """The checkpoint whose :attr:`Checkpoint.weights` a model is used with, and its file.

    Args:
        path: a run folder, of which it is the finished model, else the newest checkpoint; or a weights file.

    Raises:
        CheckpointError: the folder is no run, or has no weights yet; or the file is missing or cannot be read.
    """
    if not path.is_dir():
        return load_checkpoint(path), path
    finished = path / WEIGHTS
    if finished.is_file():
        return load_checkpoint(finished), finished
    found = latest_checkpoint(path)
    if found is None:
        raise CheckpointError(
            "no weights here yet", where=str(path), remedy="name the folder of a run that has reached a checkpoint"
        )
    return found, checkpoint_path(path, found.step)
