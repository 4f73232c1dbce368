"""Weights of other programs as weights of ours: any importer's result, checked and written as one file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from recon_toolkit.assembly import build_model
from recon_toolkit.config.pipeline import load_pipeline_text, resolve_component
from recon_toolkit.engine.checkpoint import Checkpoint, load_weights, save_checkpoint
from recon_toolkit.errors import DataError, PluginError, ReconError
from recon_toolkit.io.torch_files import read_torch_file
from recon_toolkit.plugins import PluginHost, load_plugins


@dataclass(frozen=True)
class Imported:
    """What an importer makes of a file.

    Attributes:
        pipeline: the pipeline that the weights belong to, as a pipeline file would say it; it may extend another.
        weights: by their names in that pipeline's model.
        notes: what was taken, what was left out, and what was assumed; one line each, for people.
    """

    pipeline: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class ImportReport:
    """What ``recon import --json`` prints.

    Attributes:
        file, format: what was imported, and as what.
        out: the weights file that was written.
        pipeline: name of the pipeline in it.
        image_size: side of the model's pictures in pixels.
        parameters: how many weights there are.
        notes: what the importer has to say.
    """

    file: str
    format: str
    out: str
    pipeline: str
    image_size: int
    parameters: int
    notes: list[str]


def import_file(
    format_name: str,
    file: str | Path,
    *,
    out: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    host: PluginHost | None = None,
) -> ImportReport:
    """Turn a checkpoint of another program into a weights file of ours, which holds its pipeline.

    Nothing in the file is executed (:func:`~recon_toolkit.io.torch_files.read_torch_file`). The weights are loaded
    into the pipeline's model before anything is written.

    Args:
        format_name: an importer's name.
        file: the checkpoint, a file of ``torch.save``.
        out: the weights file, which may replace one; by default a new one beside ``file``, with the ending
            ``.safetensors``.
        options: the importer's options, as YAML holds them.
        overrides: ``a.b.c=value`` each, over the importer's pipeline.
        host: the plugins; a fresh :func:`~recon_toolkit.plugins.load_plugins` by default.

    Raises:
        PluginError: there is no such importer, or it fails.
        ConfigError: an option or an override is wrong.
        CheckpointError: the file cannot be read, or is not what the importer takes.
        DataError: ``out`` cannot be written, or is not given and there is a file of its name.
    """
    file = Path(file)
    may_replace, out = out is not None, file.with_suffix(".safetensors") if out is None else Path(out)
    host = load_plugins() if host is None else host
    # JSON is YAML, and quotes what a word of the command line would need quoted.
    settings = [f"{name}={json.dumps(value)}" for name, value in (options or {}).items()]
    part = resolve_component("importer", format_name, settings, host)
    tensors = read_torch_file(file)
    if os.path.realpath(out) == os.path.realpath(file):
        raise ReconError("the weights file would take the place of the checkpoint", where=str(out), remedy="name --out")
    found = part.build(tensors=tensors, path=file)
    if not isinstance(found, Imported):
        who = f"importer '{part.entry.name}' of plugin '{part.entry.provider}'"
        raise PluginError(f"{who} returned a {type(found).__name__}", remedy="return recon_toolkit.Imported")
    if not may_replace and os.path.lexists(out):  # it may be of something else that happens to share the name
        raise DataError("there is such a file already", where=str(out), remedy="name it with --out to replace it")
    notes = [*found.notes, *([f"set here: {', '.join(overrides)}"] if overrides else [])]
    resolved = load_pipeline_text(json.dumps(found.pipeline), file.stem, overrides, host)
    load_weights(build_model(resolved), found.weights, str(file))
    weights = {name: tensor.detach().contiguous() for name, tensor in found.weights.items()}
    named = {f"model.{name}": tensor for name, tensor in weights.items()}
    origin = {"imported": {"format": format_name, "file": file.name, "notes": notes}}
    save_checkpoint(out, Checkpoint(0, resolved.to_yaml(), resolved.fingerprint, named, origin))
    return ImportReport(
        file=str(file),
        format=format_name,
        out=str(out),
        pipeline=resolved.name,
        image_size=resolved.pipeline.image_size,
        parameters=sum(tensor.numel() for tensor in weights.values()),
        notes=notes,
    )
