"""Checkpoints: one safetensors file with weights, optimiser and random state; its metadata holds the pipeline.

Also the trained model of a run folder, and that model as one file to share.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from recon_toolkit.assembly import build_model
from recon_toolkit.config.pipeline import ResolvedPipeline, load_pipeline, load_pipeline_text
from recon_toolkit.config.sources import PIPELINE
from recon_toolkit.errors import CheckpointError
from recon_toolkit.files import json_text, writing
from recon_toolkit.models import Model
from recon_toolkit.plugins import PluginHost, load_plugins
from recon_toolkit.progress import Progress

FORMAT = "recon-toolkit checkpoint 1"
#: The one key of a file's metadata, under which the rest stands as JSON: safetensors writes several in any order, and
#: what is the same should be the same file. Files from before this have the rest as keys of their own.
KEY = "recon-toolkit"
FOLDER = "checkpoints"
#: What to do about a checkpoint that is no good.
GO_BACK = "delete it to continue from the one before, or start the run anew"
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
        "step": checkpoint.step,
        "pipeline": checkpoint.pipeline,
        "fingerprint": checkpoint.fingerprint,
        "extra": checkpoint.extra,
    }
    # Tensors that share memory cannot be stored twice; copies on the CPU never share.
    tensors = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in checkpoint.tensors.items()}
    data = save(tensors, {KEY: json_text(metadata, sort_keys=True)})
    with writing(path, durable=True) as file:
        file.write(data)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: there is no such file, it is truncated, a pickle, or not a checkpoint of this program.
    """
    if not os.path.isfile(path):
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
    try:
        told = _told(metadata)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if told.get("format") != FORMAT:
        raise CheckpointError(
            f"a safetensors file, but not of the form '{FORMAT}'", where=str(path), remedy="name a file from a run"
        )
    step, extra = told.get("step"), told.get("extra")
    if type(step) is not int or step < 0:
        raise _damaged(path, f"its step is {str(step)[:40]!r}")
    if not isinstance(extra, dict):
        raise _damaged(path, "the values beside its tensors are none")
    if not isinstance(told.get("pipeline"), str) or not isinstance(told.get("fingerprint"), str):
        raise _damaged(path, "it lacks its pipeline")
    return Checkpoint(
        step=step, pipeline=told["pipeline"], fingerprint=told["fingerprint"], tensors=tensors, extra=extra
    )


def _told(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What a file's metadata says; ValueError or RecursionError where that is no JSON."""
    if KEY in metadata:
        told = json.loads(metadata[KEY])
        return told if isinstance(told, dict) else {}
    told = dict(metadata)
    if told.get("format") == FORMAT:
        told |= {"step": int(told.get("step", "")), "extra": json.loads(told.get("extra", ""))}
    return told


def _damaged(path: Path | str, reason: str) -> CheckpointError:
    return CheckpointError(f"the checkpoint is damaged: {reason}", where=str(path), remedy=GO_BACK)


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


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], source: str = "the checkpoint") -> None:
    """Put back what :func:`optimizer_tensors` returned.

    Raises:
        CheckpointError: ``source`` holds other tensors than the optimiser's, or of other shapes.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    names = {"step", "exp_avg", "exp_avg_sq"} if isinstance(optimizer, torch.optim.Adam) else None
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        if not (index.isascii() and index.isdecimal() and len(index) < 10 and int(index) < len(parameters)):
            raise _damaged(source, f"its optimiser knows a parameter {index[:20]!r} that the model does not have")
        shape = parameters[int(index)].shape
        if tensor.shape != shape and (tensor.ndim or name != "step"):
            raise _damaged(source, f"the optimiser's '{key[:60]}' is {tuple(tensor.shape)}, not {tuple(shape)}")
        if not tensor.is_floating_point() or bool(tensor.isnan().any()):
            raise _damaged(source, f"the optimiser's '{key[:60]}' holds what is no number")
        state.setdefault(int(index), {})[name] = tensor
    for index_, values in state.items():
        if names is not None and values.keys() != names:
            raise _damaged(source, f"of parameter {index_}, the optimiser has {', '.join(sorted(values))[:80]}")
    try:
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise _damaged(source, f"the optimiser does not take its state: {error}") from error


def restore_random(tensor: Tensor | None, source: str) -> None:
    """Set torch's random state; raises CheckpointError where ``tensor`` is none."""
    now = torch.get_rng_state()
    if tensor is None or tensor.dtype != now.dtype or tensor.shape != now.shape:
        raise _damaged(source, "its random state is missing, or none of this version of torch")
    try:
        torch.set_rng_state(tensor)
    except RuntimeError as error:
        raise _damaged(source, f"its random state is none: {error}") from error


def check_extra(extra: Mapping[str, Any], kinds: Mapping[str, type], source: str) -> None:
    """Raise CheckpointError unless ``extra`` has values of these kinds, finite and not negative where numbers.

    Args:
        extra: what a checkpoint holds beside its tensors.
        kinds: ``int``, ``float`` or ``list``, which is one of words, by name.
        source: the file, for messages.
    """
    for name in sorted(kinds.keys() ^ extra.keys()):
        raise _damaged(source, f"'{name[:60]}' is {'missing' if name in kinds else 'unknown'} among its values")
    for name, kind in kinds.items():
        value = extra[name]
        if kind is list:
            good = isinstance(value, list) and all(isinstance(word, str) for word in value)
        else:
            number = type(value) is int or (kind is float and type(value) is float)
            good = number and 0 <= value < 2**63 and math.isfinite(value)
        if not good:
            raise _damaged(source, f"its value of '{name}' is {str(value)[:60]!r}")


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load weights into a model; raises CheckpointError if names or shapes do not fit, or numbers are not finite."""
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
    # Where the model itself starts with an infinite number, a mask for example, the weights may have it too.
    bad = [k for k in own if bool((~tensors[k].isfinite() & own[k].isfinite().to(tensors[k].device)).any())]
    if bad:
        raise _not_finite(bad, source)
    model.load_state_dict(dict(tensors))


def _not_finite(names: list[str], source: str) -> CheckpointError:
    return CheckpointError(
        f"{len(names)} of the weights hold numbers that are not finite (NaN or infinite), e.g. {names[0]}",
        where=source,
        remedy="use weights from before the training failed",
    )


def inference_checkpoint(path: Path) -> tuple[Checkpoint, Path]:
    """The checkpoint whose :attr:`Checkpoint.weights` a model is used with, and its file.

    Args:
        path: a run folder, of which it is the finished model, else the newest checkpoint; or a weights file.

    Raises:
        CheckpointError: the folder is no run, or has no weights yet; or the file is missing, cannot be read, or holds
            what is no number.
    """
    saved, file = _of_inference(path)
    bad = sorted(name for name, tensor in saved.weights.items() if bool(tensor.isnan().any()))
    if bad:
        raise _not_finite(bad, str(file))
    return saved, file


def _of_inference(path: Path) -> tuple[Checkpoint, Path]:
    if not os.path.isdir(path):
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


def share_weights(
    run: str | Path,
    out: str | Path,
    *,
    half: bool = True,
    overrides: Sequence[str] = (),
    host: PluginHost | None = None,
) -> int:
    """Write the finished model of a run to ``out``; returns the file's size in bytes.

    Args:
        run: a run folder.
        out: a safetensors file, but not the run's own.
        half: store float16 instead of float32.
        overrides: ``key=value`` each, of the pipeline that the file holds. What it names of this machine, such as the
            weights of a loss or a data folder, is of no use to others.
        host: the plugins, for ``overrides``; all installed ones by default.

    Raises:
        ConfigError: a setting does not fit the pipeline.
        CheckpointError: the run has no finished model, ``out`` is that model's file, or a weight is too large for 16
            bits.
        DataError: the file cannot be written.
    """
    source, out = Path(run) / WEIGHTS, Path(out)
    if not source.is_file():
        raise CheckpointError("it has no finished model", where=str(run), remedy="finish the run with --resume")
    if out.exists() and out.samefile(source):
        raise CheckpointError("it is the run's own model", where=str(out), remedy="name another file with --out")
    stored = load_checkpoint(source)
    tensors = {f"model.{name}": tensor for name, tensor in stored.part("model").items()}
    if half:
        tensors = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
        lost = [name for name, t in tensors.items() if not bool(t.isfinite().all())]
        if lost:
            raise CheckpointError(f"{lost[0]} does not fit into 16 bits", where=str(source), remedy="use --full")
    pipeline = stored.pipeline
    if overrides:
        host = load_plugins() if host is None else host
        pipeline = load_pipeline_text(
            pipeline, source.stem, list(overrides), host, trust=True, source=str(source)
        ).to_yaml()
    save_checkpoint(out, Checkpoint(stored.step, pipeline, stored.fingerprint, tensors, {}))
    return out.stat().st_size


def load_run(
    run: Path, host: PluginHost, device: str = "cpu", *, trust: bool = False
) -> tuple[Model, ResolvedPipeline]:
    """The model of a run with its trained weights, ready to reconstruct, and its pipeline.

    Args:
        run: a run folder.
        host: the loaded plugins.
        device: where the model goes.
        trust: whether files that its pipeline names may be executed and read though somebody else made the run.

    Raises:
        ConfigError: its pipeline names such files, and is not this user's own.
        CheckpointError: not a run, no weights yet, or weights that cannot be read.
    """
    recorded = run / PIPELINE
    if not os.path.isfile(recorded):
        raise CheckpointError(
            f"not a run folder: it has no {PIPELINE}", where=str(run), remedy="name a folder that `recon run` made"
        )
    found, source = inference_checkpoint(run)
    resolved = load_pipeline(recorded, [], host, trust=trust)
    model = build_model(resolved)
    load_weights(model, found.weights, str(source))
    return model.to(device).eval(), resolved
