"""Finding and loading trained models, and which of them reconstructs what."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recon_toolkit.assembly import build_model
from recon_toolkit.config.pipeline import ResolvedPipeline, load_pipeline_text
from recon_toolkit.engine import checkpoint as files
from recon_toolkit.engine.checkpoint import load_run
from recon_toolkit.errors import CheckpointError, PluginError, ReconError, suggestion
from recon_toolkit.geometry.camera import Camera
from recon_toolkit.inference.bundled import BundledModel, bundled_models, read_pathways
from recon_toolkit.inference.pictures import Crop
from recon_toolkit.models import Model
from recon_toolkit.plugins import PluginHost, load_plugins
from recon_toolkit.structures import Reconstruction


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


class Pathways:
    """A model for each label, loaded when its first object turns up; all other objects get the default model.

    Args:
        default: the model of objects without a label, or with one that is not listed.
        loaders: by label.
        loaded: models that are there already, by label.
    """

    def __init__(
        self,
        default: TrainedModel,
        loaders: Mapping[str, Callable[[], TrainedModel]] | None = None,
        loaded: Mapping[str, TrainedModel] | None = None,
    ) -> None:
        self.default = default
        self._loaders = dict(loaders or {})
        self._loaded = dict(loaded or {})
        self._lock = threading.Lock()

    def of(self, label: str | None) -> TrainedModel:
        """The model of a label."""
        if label is None:
            return self.default
        with self._lock:
            if label in self._loaders and label not in self._loaded:
                self._loaded[label] = self._loaders[label]()
            return self._loaded.get(label, self.default)

    def grouped(self, crops: Iterable[Crop]) -> list[tuple[TrainedModel, list[Crop]]]:
        """Models with the crops that go to each, in the order of their first ones."""
        groups: dict[int, tuple[TrainedModel, list[Crop]]] = {}
        for crop in crops:
            model = self.of(crop.label)
            groups.setdefault(id(model), (model, []))[1].append(crop)
        return list(groups.values())

    def size_of(self, label: str | None) -> int:
        """Side in pixels of the crops that a label's model takes."""
        return self.of(label).image_size

    def __getstate__(self) -> dict[str, Any]:
        """For other processes of a pool, which load their own."""
        return {"default": self.default, "loaders": self._loaders, "loaded": self._loaded}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def source(self) -> str:
        """What was used: the names of the default and of all models loaded so far."""
        names = [self.default.source, *(model.source for model in self._loaded.values())]
        return ", ".join(dict.fromkeys(names))


@dataclass(frozen=True)
class _Bundled:
    """Loads a bundled model; other than a function here, it can be sent to another process."""

    name: str
    device: str
    plugins: tuple[Path, ...]
    disabled: frozenset[str]

    def __call__(self) -> TrainedModel:
        return load_model(model=self.name, device=self.device, host=load_plugins(self.plugins, self.disabled))


def load_models(
    *,
    run: str | Path | None = None,
    weights: str | Path | None = None,
    model: str | None = None,
    device: torch.device | str = "cpu",
    host: PluginHost,
    trust: bool = False,
) -> Pathways:
    """The one model that is named, or without any the bundled ones, by the labels that their plugins list for them.

    Args:
        run, weights, model, device, host, trust: as for :func:`~recon_toolkit.inference.models.load_model`.

    Raises:
        ConfigError, CheckpointError, ReconError, PluginError: as for ``load_model``; of bundled models but the default,
            when the first object that goes to them turns up.
    """
    default = load_model(run=run, weights=weights, model=model, device=device, host=host, trust=trust)
    if not (run is None and weights is None and model is None):
        return Pathways(default)
    names: dict[str, str] = {}
    for _, contents in read_pathways(host):
        names = {**contents.labels, **names}  # the toolkit's own come first
    files, disabled = tuple(host.files), frozenset(host.disabled)
    return Pathways(
        default,
        {
            label: _Bundled(name, str(device), files, disabled)
            for label, name in names.items()
            if name != default.source
        },
    )
