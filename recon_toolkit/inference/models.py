"""Finding and loading a trained model: of a run, of a weights file, or one that a plugin brings along."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recon_toolkit.assembly import build_model
from recon_toolkit.config.pipeline import ResolvedPipeline, load_pipeline_text
from recon_toolkit.errors import CheckpointError, PluginError, ReconError
from recon_toolkit.geometry.camera import Camera
from recon_toolkit.inference.bundled import BundledModel, bundled_models, read_pathways
from recon_toolkit.models import Model
from recon_toolkit.nearest import suggestion
from recon_toolkit.plugins import PluginHost, load_plugins
from recon_toolkit.structures import Reconstruction
from recon_toolkit.training import checkpoint as files
from recon_toolkit.training.trained import load_run


@dataclass(frozen=True)
class TrainedModel:
    """A model with trained weights, and the pipeline it was trained with.

    Attributes:
        network: ready to reconstruct (:class:`~recon_toolkit.structures.Reconstructs`), in evaluation mode.
        resolved: its pipeline.
        source: where the weights came from, for people.
        device: where it is.
    """

    network: Model
    resolved: ResolvedPipeline
    source: str
    device: torch.device

    @property
    def camera(self) -> Camera:
        """The camera of all its pictures."""
        return Camera(self.resolved.pipeline.camera.fov)

    @property
    def image_size(self) -> int:
        """Side of its pictures in pixels."""
        return self.resolved.pipeline.image_size

    def __reduce__(self) -> tuple[Any, ...]:
        """For other processes of a pool: its pipeline as text and its weights, from which it is built again there."""
        weights = {name: value.cpu() for name, value in self.network.state_dict().items()}
        host = self.resolved.host
        text, name, plugins = self.resolved.to_yaml(), self.resolved.name, (host.files, host.disabled)
        return _built_again, (text, name, weights, plugins, self.source, str(self.device), self.resolved.trusted)

    def reconstruct(self, images: Tensor) -> Reconstruction:
        """What the model sees in images (B, 3, H, W) in [0, 1], H = W = image_size, on its device."""
        with torch.no_grad():
            return self.network.reconstruct(images.to(self.device))


def _built_again(
    text: str,
    name: str,
    weights: dict[str, Tensor],
    plugins: tuple[Sequence[Path], Collection[str]],
    source: str,
    device: str,
    trusted: bool,
) -> TrainedModel:
    resolved = load_pipeline_text(text, name, [], load_plugins(*plugins), trust=trusted, source=source)
    network = build_model(resolved)
    files.load_weights(network, weights, source)
    return TrainedModel(network.to(device).eval(), resolved, source, torch.device(device))


def load_model(
    *,
    run: str | Path | None = None,
    weights: str | Path | None = None,
    model: str | None = None,
    device: torch.device | str = "cpu",
    host: PluginHost | None = None,
    trust: bool = False,
) -> TrainedModel:
    """A trained model: of the run folder ``run``, of the file ``weights``, or the bundled one called ``model``.

    Without any of the three, the bundled model, if there is just one, or the default of those that come with the
    toolkit.

    Args:
        run: a run folder.
        weights: a safetensors file of a run, or one that ``recon import`` wrote; it holds its pipeline.
        model: the name of a bundled model.
        device: where it goes.
        host: the plugins; a fresh :func:`~recon_toolkit.plugins.load_plugins` by default.
        trust: let in the plugin files and other files that the run or the weights file names. Plugin files are
            programs: trust who made them. Runs of this user's own need no trust.

    Raises:
        ConfigError: it names files, is not this user's own, and ``trust`` is false.
        CheckpointError: there is no such run or file, or its weights cannot be read.
        ReconError: more than one was named, or the model does not reconstruct photographs.
        PluginError: there is no such bundled model.
    """
    named = [name for name, value in (("run", run), ("weights", weights), ("model", model)) if value is not None]
    if len(named) > 1:
        raise ReconError(f"{' and '.join(named)} name a model each", remedy="give one of them")
    host = load_plugins() if host is None else host
    if run is not None:
        network, resolved = load_run(Path(run), host, str(device), trust=trust)
        source = str(run)
    else:
        path = Path(weights) if weights is not None else _bundled(model, host).path
        network, resolved = _load_weights(path, host, trust or weights is None)
        network, source = network.to(device).eval(), path.stem if weights is None else str(path)
    if not network.defines("reconstruct"):
        raise ReconError(
            f"its model '{resolved.pipeline.model.name}' does not reconstruct photographs",
            where=source,
            remedy="name one that does",
        )
    return TrainedModel(network, resolved, source, next(network.parameters()).device)


def _bundled(name: str | None, host: PluginHost) -> BundledModel:
    found = bundled_models(host)
    names = [model.name for model in found]
    if name is None:
        default = host.default_of(found)
        if default is not None:
            return default
        for provider, contents in read_pathways(host):
            for model in found:
                if (model.provider, model.name) == (provider, contents.default):
                    return model
        message = "no trained model comes with the installed plugins" if not found else "there are several models"
        remedy = "name a run or a weights file" if not found else f"name one of {', '.join(names)}"
        raise PluginError(message, remedy=remedy)
    chosen = [model for model in found if model.name == name]
    if not chosen:
        raise PluginError(f"there is no bundled model '{name}'", remedy=suggestion(name, names))
    return chosen[0]


def _load_weights(path: Path, host: PluginHost, trust: bool) -> tuple[Model, ResolvedPipeline]:
    """The model of a weights file, built from the pipeline in the file's metadata."""
    if os.path.isdir(path):
        raise CheckpointError("is a folder, not a weights file", where=str(path), remedy="name a run with --run")
    stored = files.load_checkpoint(path)
    resolved = load_pipeline_text(stored.pipeline, path.stem, [], host, trust=trust, source=str(path))
    network = build_model(resolved)
    files.load_weights(network, {name: tensor.float() for name, tensor in stored.weights.items()}, str(path))
    return network, resolved
