"""A run's trained model as one file: weights, and the pipeline that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recon_toolkit.config.pipeline import load_pipeline_text
from recon_toolkit.errors import CheckpointError
from recon_toolkit.plugins import PluginHost, load_plugins
from recon_toolkit.training.checkpoint import WEIGHTS, Checkpoint, load_checkpoint, save_checkpoint


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
