"""Scoring a model on a packed data set, and the contact sheet of what it sees there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch

from recon_toolkit.data.packed import PackedImages
from recon_toolkit.evaluation.metrics import DepthMetrics
from recon_toolkit.evaluation.report import DepthEvaluator, ScoreReport
from recon_toolkit.geometry import Camera
from recon_toolkit.progress import QUIET, Progress
from recon_toolkit.structures import Batch, Reconstruction, Reconstructs


def evaluate(
    model: Reconstructs,
    data: PackedImages,
    camera: Camera,
    *,
    device: torch.device,
    images: int | None = None,
    batch_size: int = 64,
    autocast: Callable[[], AbstractContextManager[object]],
    progress: Progress = QUIET,
    description: str = "scoring",
) -> tuple[ScoreReport, DepthMetrics] | None:
    """Reconstruct the first images of a data set and score their depth; None if it has no true depth.

    Args:
        model: called with images (B, 3, H, W) in [0, 1].
        data: packed images with ground truth.
        camera: of the images.
        device: where the model is.
        images: how many; all if None.
        batch_size: images at once.
        autocast: the precision context that the networks run in.
        progress, description: for the bar.
    """
    if "depth" not in data.fields:
        return None
    count = min(images or len(data), len(data))
    evaluator = DepthEvaluator(camera)
    with progress.task(description, count, "img") as task:
        for start in range(0, count, batch_size):
            batch = data.batch(np.arange(start, min(start + batch_size, count))).to(device)
            with autocast():
                found = model.reconstruct(batch.image)
            if found.depth is None or batch.depth is None:
                return None
            evaluator.add(found.depth, batch.depth, prediction_mask=found.mask, truth_mask=batch.mask)
            task.advance(len(batch))
    return evaluator.report(), evaluator.metrics()


def examples(
    model: Reconstructs,
    data: PackedImages,
    *,
    device: torch.device,
    images: int = 12,
    autocast: Callable[[], AbstractContextManager[object]],
) -> tuple[Batch, Reconstruction]:
    """The first images of a data set with what the model makes of them, on the CPU."""
    batch = data.batch(np.arange(min(images, len(data))))
    with autocast():
        found = model.reconstruct(batch.image.to(device))
    return batch, found.to("cpu")
