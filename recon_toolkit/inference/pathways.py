"""Which bundled model reconstructs what: by the label that the detector gave an object."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial

import torch

from recon_toolkit.inference.models import TrainedModel, load_model, read_pathways
from recon_toolkit.plugins import PluginHost


class Pathways:
    """A model for each label, loaded when its first object turns up; all other objects get the default model.

    Args:
        default: the model of objects without a label, or with one that is not listed.
        loaders: by label.
    """

    def __init__(self, default: TrainedModel, loaders: Mapping[str, Callable[[], TrainedModel]] | None = None) -> None:
        self.default = default
        self._loaders = dict(loaders or {})
        self._loaded: dict[str, TrainedModel] = {}
        self._lock = threading.Lock()

    def of(self, label: str | None) -> TrainedModel:
        """The model of a label."""
        if label is None or label not in self._loaders:
            return self.default
        with self._lock:
            if label not in self._loaded:
                self._loaded[label] = self._loaders[label]()
            return self._loaded[label]

    def size_of(self, label: str | None) -> int:
        """Side in pixels of the crops that a label's model takes."""
        return self.of(label).image_size

    @property
    def source(self) -> str:
        """What was used: the names of the default and of all models loaded so far."""
        names = [self.default.source, *(model.source for model in self._loaded.values())]
        return ", ".join(dict.fromkeys(names))


def load_pathways(host: PluginHost, device: torch.device | str = "cpu") -> Pathways:
    """The bundled models by the labels that their plugins list for them; the default as without labels.

    Raises:
        PluginError: there is no default model, or a plugin lists one that it does not bring along.
        CheckpointError: a model's weights cannot be read; of all but the default, when it is first used.
    """
    default = load_model(device=device, host=host)
    loaders: dict[str, Callable[[], TrainedModel]] = {}
    for _, contents in read_pathways(host):
        for label, name in contents.labels.items():
            load = partial(load_model, model=name, device=device, host=host)
            loaders.setdefault(label, (lambda: default) if name == default.source else load)
    return Pathways(default, loaders)
