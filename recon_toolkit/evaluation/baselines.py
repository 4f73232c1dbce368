"""What a prediction must beat: constant depth, and the average of the ground truth (Wu et al. 2020, Table 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recon_toolkit.evaluation.metrics import DepthMetrics, depth_metrics
from recon_toolkit.geometry.camera import Camera


@dataclass(frozen=True)
class BaselineMetrics:
    """The metrics of both baselines on the same images and the same masks as the prediction's."""

    constant: DepthMetrics
    average: DepthMetrics


def average_depth(truth: Tensor, mask: Tensor) -> Tensor:
    """The mean depth of the object at each pixel, over the images of (N, H, W) whose mask holds there: (H, W).

    What lies outside the objects has no part in it, unlike in the paper, whose maps have one background depth: the
    result does not depend on how a data set fills its background. Pixels that no object covers get the mean of all.
    """
    count = mask.sum(0)
    total = truth.double().where(mask, 0.0).sum(0)
    overall = total.sum() / count.sum()
    return torch.where(count > 0, total / count.clamp(min=1), overall)


def baseline_metrics(
    truth: Tensor,
    truth_mask: Tensor,
    prediction_mask: Tensor | None,
    camera: Camera,
    *,
    batch_size: int = 256,
) -> BaselineMetrics:
    """Score constant and average depth on a set of images.

    The average is over the evaluated images themselves, as in the paper: an oracle that knows the mean face.

    Args:
        truth: ground-truth depths, (N, H, W).
        truth_mask: where they are the object's, (N, H, W) bool.
        prediction_mask: the masks of the prediction that is compared with, (N, H, W) bool, or None.
        camera: the camera of the images.
        batch_size: images scored at once, for the memory's sake.
    """
    average = average_depth(truth, truth_mask)
    constant: list[DepthMetrics] = []
    averaged: list[DepthMetrics] = []
    for start in range(0, len(truth), batch_size):
        rows = slice(start, start + batch_size)
        true, mask = truth[rows], truth_mask[rows]
        predicted = None if prediction_mask is None else prediction_mask[rows]
        for depth, parts in ((torch.ones_like(average), constant), (average, averaged)):
            baseline = depth.expand(true.shape)
            parts.append(depth_metrics(baseline, true, camera, prediction_mask=predicted, truth_mask=mask))
    return BaselineMetrics(DepthMetrics.cat(constant), DepthMetrics.cat(averaged))
