"""A run's page of objects to turn: some held-out images as the finished model sees them, in 3D."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import torch

from recon_toolkit.data.packed import PackedImages
from recon_toolkit.errors import DataError
from recon_toolkit.export.viewer import Scene, viewer_document
from recon_toolkit.files import write_text
from recon_toolkit.geometry import Camera
from recon_toolkit.models import Model
from recon_toolkit.progress import QUIET, Progress
from recon_toolkit.result import Result
from recon_toolkit.training.validation import examples

OBJECTS = "objects.html"
COUNT = 8
#: Of shapes, which take a second or two each to close.
FEWER = 4


def write_objects(
    run: Path,
    name: str,
    model: Model,
    data: PackedImages,
    camera: Camera,
    *,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[object]],
    progress: Progress = QUIET,
) -> None:
    """Write ``objects.html`` for some images of a data set, if the model predicts depth or points."""
    if not model.defines("reconstruct"):
        return
    batch, found = examples(model, data, device=device, images=COUNT, autocast=autocast)
    if found.depth is None and found.canonical_depth is None and found.points is None:
        return
    scenes: list[Scene] = []
    shown = range(0, len(found), max(1, len(found) // FEWER)) if found.points is not None else range(len(found))
    with progress.task("the page of objects", len(shown), "object") as task:
        for index in shown:
            result = Result(found.at(index), camera, found.image[index], data.names[int(batch.index[index])])
            with suppress(DataError):  # an object that a model has lost is nothing to turn
                scenes.append(result.scene())
            task.advance()
    if scenes:
        write_text(run / OBJECTS, viewer_document(f"{name}: held-out images", scenes))
