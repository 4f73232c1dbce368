"""Learn the 3D shape of an object category from single photographs, with every part replaceable.

Names are imported when first used, so that ``from recon_toolkit import loss`` in a plugin imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recon_toolkit.assembly import build_dataset, build_losses, build_model, build_renderer
    from recon_toolkit.components import (
        Component,
        NewKind,
        callback,
        command,
        dataset,
        detector,
        encoder,
        exporter,
        importer,
        loss,
        metric,
        model,
        optimizer,
        renderer,
        sampler,
    )
    from recon_toolkit.config.pipeline import load_pipeline
    from recon_toolkit.detection import Detection, Detector
    from recon_toolkit.engine.callbacks import Callback
    from recon_toolkit.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        PluginError,
        ReconError,
        TrainingError,
    )
    from recon_toolkit.geometry.camera import Camera
    from recon_toolkit.importing import Imported
    from recon_toolkit.models import Model, ParameterGroup, Step
    from recon_toolkit.plugins import hookimpl, load_plugins
    from recon_toolkit.reconstructor import Reconstructor
    from recon_toolkit.result import Result
    from recon_toolkit.structures import Batch, ImagePair, Losses, ModelOutput, Reconstruction, Rendering

__version__ = "0.1.0"

_HOME = {
    "assembly": ("build_dataset", "build_losses", "build_model", "build_renderer"),
    "components": (
        "Component",
        "NewKind",
        "callback",
        "command",
        "dataset",
        "detector",
        "encoder",
        "exporter",
        "importer",
        "loss",
        "metric",
        "model",
        "optimizer",
        "renderer",
        "sampler",
    ),
    "config.pipeline": ("load_pipeline",),
    "detection": ("Detection", "Detector"),
    "engine.callbacks": ("Callback",),
    "errors": ("CheckpointError", "ConfigError", "DataError", "PluginError", "ReconError", "TrainingError"),
    "geometry.camera": ("Camera",),
    "importing": ("Imported",),
    "models": ("Model", "ParameterGroup", "Step"),
    "plugins": ("hookimpl", "load_plugins"),
    "reconstructor": ("Reconstructor",),
    "result": ("Result",),
    "structures": ("Batch", "ImagePair", "Losses", "ModelOutput", "Reconstruction", "Rendering"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Batch",
    "Callback",
    "Camera",
    "CheckpointError",
    "Component",
    "ConfigError",
    "DataError",
    "Detection",
    "Detector",
    "ImagePair",
    "Imported",
    "Losses",
    "Model",
    "ModelOutput",
    "NewKind",
    "ParameterGroup",
    "PluginError",
    "ReconError",
    "Reconstruction",
    "Reconstructor",
    "Rendering",
    "Result",
    "Step",
    "TrainingError",
    "__version__",
    "build_dataset",
    "build_losses",
    "build_model",
    "build_renderer",
    "callback",
    "command",
    "dataset",
    "detector",
    "encoder",
    "exporter",
    "hookimpl",
    "importer",
    "load_pipeline",
    "load_plugins",
    "loss",
    "metric",
    "model",
    "optimizer",
    "renderer",
    "sampler",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'recon_toolkit' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"recon_toolkit.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
