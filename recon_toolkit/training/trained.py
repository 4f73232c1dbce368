"""The model of a finished run. This stands apart from training, whose imports take seconds."""

from __future__ import annotations

import os
from pathlib import Path

from recon_toolkit.assembly import build_model
from recon_toolkit.config.pipeline import ResolvedPipeline, load_pipeline
from recon_toolkit.config.stored import PIPELINE
from recon_toolkit.errors import CheckpointError
from recon_toolkit.models import Model
from recon_toolkit.plugins import PluginHost
from recon_toolkit.training import checkpoint as files


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
    found, source = files.inference_checkpoint(run)
    resolved = load_pipeline(recorded, [], host, trust=trust)
    model = build_model(resolved)
    files.load_weights(model, found.weights, str(source))
    return model.to(device).eval(), resolved
