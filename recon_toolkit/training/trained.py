"""The model of a finished run. This stands apart from training, whose imports take seconds."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from recon_toolkit.assembly import build_model
from recon_toolkit.config.pipeline import ResolvedPipeline, load_pipeline
from recon_toolkit.errors import CheckpointError
from recon_toolkit.plugins import PluginHost
from recon_toolkit.training import checkpoint as files

PIPELINE = "pipeline.yaml"


def load_run(run: Path, host: PluginHost, device: str = "cpu") -> tuple[nn.Module, ResolvedPipeline]:
    """The model of a run with its trained weights, ready to reconstruct, and its pipeline.

    Args:
        run: a run folder.
        host: the loaded plugins.
        device: where the model goes.

    Raises:
        CheckpointError: not a run, no weights yet, or weights that cannot be read.
    """
    recorded = run / PIPELINE
    if not recorded.is_file():
        raise CheckpointError(
            f"not a run folder: it has no {PIPELINE}", where=str(run), remedy="name a folder that `recon run` made"
        )
    found, source = files.inference_checkpoint(run)
    resolved = load_pipeline(recorded, [], host)
    model = build_model(resolved)
    files.load_weights(model, found.weights, str(source))
    return model.to(device).eval(), resolved
