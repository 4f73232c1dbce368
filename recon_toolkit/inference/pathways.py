"""Which bundled model reconstructs what: by the label that the detector gave an object."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recon_toolkit.inference.bundled import read_pathways
from recon_toolkit.inference.models import TrainedModel, load_model
from recon_toolkit.inference.pictures import Crop
from recon_toolkit.plugins import PluginHost, load_plugins


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
