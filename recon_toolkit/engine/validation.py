"""Scoring a model on a packed data set, and the contact sheet of what it sees there.

What a model offers is what it is scored by (:mod:`recon_toolkit.metrics.pipeline`); where nothing can be had, as on
photographs, by its loss and its reconstruction of images that it has not seen. One with ``sheet_columns(batch)``
chooses its contact sheet's columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_toolkit.data.packed import PackedImages, evenly_spread
from recon_toolkit.data.sampling import in_groups
from recon_toolkit.engine.first_look import blamed_part
from recon_toolkit.io.contact_sheet import reconstruction_columns
from recon_toolkit.losses import Objective
from recon_toolkit.metrics.depth import average_depth, scored_masks
from recon_toolkit.metrics.images import IMAGES, SSIM_WINDOW, image_metrics
from recon_toolkit.metrics.metric import ImageScores, MetricCollector, MetricSet
from recon_toolkit.metrics.pipeline import PipelineScorer
from recon_toolkit.models import Model
from recon_toolkit.progress import QUIET, Progress
from recon_toolkit.structures import Batch, ImagePair, ModelOutput, Reconstruction, Reconstructs


@dataclass(frozen=True)
class HeldOut:
    """What can be told of a model without ground truth: its loss, and how well it reconstructs what it sees.

    Attributes:
        loss: mean over images of the weighted sum of the loss terms, as in training.
        images: how many images.
        names: of these.
        scored: PSNR and SSIM of the image pair ``plain`` within its mask; None where the model has no such pair.
    """

    loss: float
    images: int
    names: Sequence[str]
    scored: ImageScores | None


@torch.no_grad()
def evaluate_held_out(
    model: Model,
    objective: Objective,
    data: PackedImages,
    *,
    device: torch.device,
    epoch: float,
    images: int | None = None,
    batch_size: int = 64,
    autocast: Callable[[], AbstractContextManager[object]],
    progress: Progress = QUIET,
    description: str = "scoring",
) -> HeldOut | None:
    """The losses of training, and the pictures, on the first images of a data set that has no ground truth.

    None of a model that has no ``forward``, or that looks at several images of a group where no group has as many.

    Args:
        model: called with batches of the fields that it and the losses read.
        objective: the losses, with the weights that they have in ``epoch``.
        data, device, images, batch_size, autocast, progress, description: see :func:`evaluate`.
    """
    order = in_groups(data, model.group_size)[: images or len(data)] if model.defines("forward") else np.arange(0)
    count, total = len(order) // model.group_size * model.group_size, 0.0
    if count == 0:
        return None
    batch_size = max(batch_size // model.group_size, 1) * model.group_size
    own = model.batch_fields
    fields = None if own is None else sorted({*own, *objective.batch_fields})
    pictures = MetricCollector(IMAGES)
    with progress.task(description, count, "img") as task:
        for start in range(0, count, batch_size):
            indices = order[start : min(start + batch_size, count)]
            batch = replace(data.batch(indices, fields), draw=torch.from_numpy(indices)).to(device)
            with blamed_part(model), autocast():
                output: ModelOutput = model(batch)
            total += float(objective(output, epoch, batch=batch).total) * len(batch)
            pair = output.pairs.get("plain")
            if pair is not None and min(pair.target.shape[2:]) >= SSIM_WINDOW:
                rows = slice(0, len(batch))  # a model may draw more than the batch's images
                mask = None if pair.mask is None else pair.mask[rows]
                pictures.add(image_metrics(ImagePair(pair.prediction[rows], pair.target[rows], mask)).scored())
            task.advance(len(batch))
    return HeldOut(total / count, count, [data.names[int(n)] for n in order[:count]], pictures.scored())


@torch.no_grad()
def evaluate(
    metrics: MetricSet,
    scorer: PipelineScorer,
    data: PackedImages,
    *,
    device: torch.device,
    images: int | None = None,
    spread: bool = False,
    average: bool = False,
    batch_size: int = 64,
    progress: Progress = QUIET,
    description: str = "scoring",
) -> MetricCollector:
    """Score a model on a data set, or on some images of it.

    Args:
        metrics, scorer: what the model is judged by, and what judges it.
        data: with the metrics' fields.
        device: where the model is.
        images: how many; all if None.
        spread: take them evenly from all over the data set where neighbours are of one object, instead of the first.
        average: compare depth with the average of these images' true depth, too.
        batch_size: images at once.
        progress, description: for the bar.
    """
    count = min(images or len(data), len(data))
    chosen = _some(data, count) if spread else np.arange(count)
    builtin = any(metric.needs != "own" for metric in metrics.metrics)
    fields = None if builtin else ("image", *metrics.fields)
    mean_depth = _average(data, chosen, batch_size) if average and "depth" in metrics.fields else None
    collector = MetricCollector(metrics)
    with progress.task(description, len(chosen), "img") as task:
        for start in range(0, len(chosen), batch_size):
            batch = data.batch(chosen[start : start + batch_size], fields).to(device)
            collector.add(scorer(batch, mean_depth))
            task.advance(len(batch))
    return collector


def _average(data: PackedImages, chosen: NDArray[np.int64], batch_size: int) -> Tensor:
    """The average true depth (H, W) of some images."""
    depths, masks = [], []
    for start in range(0, len(chosen), batch_size):
        batch = data.batch(chosen[start : start + batch_size], {"depth", "mask"} & set(data.fields) | {"image"})
        assert batch.depth is not None
        depths.append(batch.depth.float())
        masks.append(scored_masks(batch.depth, batch.depth, None, batch.mask)[1])
    return average_depth(torch.cat(depths), torch.cat(masks))


@torch.no_grad()
def sheet_columns(
    model: Model,
    data: PackedImages,
    *,
    device: torch.device,
    images: int = 12,
    autocast: Callable[[], AbstractContextManager[object]],
) -> Mapping[str, Tensor] | None:
    """The contact sheet's columns for the first images of a data set; None if the model has nothing to show.

    They are those of the model's own ``sheet_columns(batch)``, label → (B, C, H, W) in [0, 1], or else those of its
    reconstructions.
    """
    if model.defines("sheet_columns"):
        batch = data.batch(_some(data, images))
        with autocast():
            return model.sheet_columns(batch.to(device))
    if not model.defines("reconstruct"):
        return None
    batch, found = examples(model, data, device=device, images=images, autocast=autocast)
    return reconstruction_columns(found, batch)


def examples(
    model: Reconstructs,
    data: PackedImages,
    *,
    device: torch.device,
    images: int = 12,
    autocast: Callable[[], AbstractContextManager[object]],
) -> tuple[Batch, Reconstruction]:
    """Some images of a data set with what the model makes of them, on the CPU; see :func:`_examples`."""
    batch = data.batch(_some(data, images))
    with autocast():
        found = model.reconstruct(batch.image.to(device))
    return batch, found.to("cpu")


def _some(data: PackedImages, count: int) -> NDArray[np.int64]:
    """Some images: the first, or evenly spread ones where neighbours are of one object."""
    count = min(count, len(data))
    if all(spec.each == 1 for spec in data.fields.values()):
        return np.arange(count)
    return evenly_spread(len(data), count)
