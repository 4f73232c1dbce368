"""Depth metrics of Wu et al. 2020 (Sec. 4.1), per image, in float64.

Units, everywhere in this package: SIDE in 10⁻² (as papers print it), MAD in degrees, MAE and MSE in units of depth
and its square. The other three are plain numbers: relief slope, correlation and coverage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn import functional as F

from recon_toolkit.geometry.camera import Camera, normals_from_depth
from recon_toolkit.metrics.metric import Metric, MetricSet, MetricSummary, Scored, metric_summary

#: What depth is judged by: the fields of :class:`DepthMetrics`, in their order.
DEPTH = MetricSet(
    (
        Metric("side", "SIDE ×10⁻²", 3, "lower", "depth", "constant"),
        Metric("mad", "MAD °", 2, "lower", "depth", "constant"),
        Metric("mae", "MAE", 4, "lower", "depth", headline=False),
        Metric("mse", "MSE", 6, "lower", "depth", headline=False),
        Metric("slope", "relief slope", 2, "one", "depth"),
        Metric("correlation", "correlation", 3, "higher", "depth", headline=False),
        Metric("coverage", "coverage", 3, "higher", "depth", headline=False),
    ),
    {"constant": "constant depth", "average": "average depth"},
    ("depth",),
)


class DepthSummary(BaseModel):
    """:class:`DepthMetrics` over a set of images."""

    model_config = ConfigDict(frozen=True)

    side: MetricSummary
    mad: MetricSummary
    mae: MetricSummary
    mse: MetricSummary
    slope: MetricSummary
    correlation: MetricSummary
    coverage: MetricSummary
    images: int  # that were scored
    empty: int  # that had no pixel to score, and count nowhere else


@dataclass(frozen=True)
class DepthMetrics:
    """One number an image, each (B,) float64 on the CPU; NaN where the image has no pixel to score.

    Args:
        side: scale-invariant depth error, the standard deviation of ln D − ln d*, in 10⁻².
        mad: mean angle between the normals of D and d*, in degrees.
        mae: mean |D − d*|.
        mse: mean (D − d*)².
        slope: slope of the regression of ln D on ln d*: below 1 the relief is too flat, above 1 too deep, below 0
            inverted. NaN where d* is constant.
        correlation: correlation of ln D and ln d*. NaN where either is constant.
        coverage: share of the ground truth's (eroded) mask that was scored: low where the prediction misses the
            object, which none of the other numbers shows.
    """

    side: Tensor
    mad: Tensor
    mae: Tensor
    mse: Tensor
    slope: Tensor
    correlation: Tensor
    coverage: Tensor

    def __len__(self) -> int:
        return int(self.side.shape[0])

    @staticmethod
    def cat(parts: Sequence[DepthMetrics]) -> DepthMetrics:
        """The metrics of several batches as those of one."""
        return DepthMetrics(
            **{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(DepthMetrics)}
        )

    def summary(self) -> DepthSummary:
        """Mean ± standard deviation over the images that have a pixel to score."""
        empty = int(self.side.isnan().sum())
        metrics = {f.name: metric_summary(getattr(self, f.name)) for f in fields(self)}
        # An image that the prediction misses altogether covers nothing; that is part of the coverage's mean.
        return DepthSummary(**metrics, images=len(self) - empty, empty=empty)


def depth_metrics(
    prediction: Tensor,
    truth: Tensor,
    camera: Camera,
    *,
    prediction_mask: Tensor | None = None,
    truth_mask: Tensor | None = None,
) -> DepthMetrics:
    """Compare predicted with true depth, image by image.

    An image is scored where both masks hold after an erosion by 3×3 pixels (outside the image nothing holds), so
    that every scored pixel's normal comes from depths that are scored or next to one. Depths that are not positive
    and finite are outside the masks.

    Args:
        prediction: depth D in the input view, (B, H, W).
        truth: ground-truth depth d*, (B, H, W).
        camera: for the normals; that of the images.
        prediction_mask: where D is the object's, (B, H, W) bool; everywhere by default.
        truth_mask: where d* is the object's, (B, H, W) bool; :func:`foreground` by default, i.e. where d*
            lies before its own image's furthest value. (The original takes the furthest value of the *batch*.)

    Raises:
        ValueError: the shapes differ, or a side has fewer than three pixels.
    """
    for name, other in (("truth", truth), ("prediction_mask", prediction_mask), ("truth_mask", truth_mask)):
        if other is not None and other.shape != prediction.shape:
            raise ValueError(f"{name} has shape {tuple(other.shape)}, the prediction {tuple(prediction.shape)}")
    if prediction.ndim != 3 or min(prediction.shape[1:]) < 3:
        raise ValueError(f"expected (B, H, W) with sides of at least 3, got {tuple(prediction.shape)}")
    if prediction.device.type == "mps":  # it has no float64
        prediction, truth = prediction.cpu(), truth.cpu()
        prediction_mask = None if prediction_mask is None else prediction_mask.cpu()
        truth_mask = None if truth_mask is None else truth_mask.cpu()
    predicted, true = prediction.detach().double(), truth.detach().double()
    usable, true_usable = _usable(predicted), _usable(true)
    true_mask = foreground(true) if truth_mask is None else truth_mask.bool()
    scored_truth = erode(true_mask & true_usable)
    mask = scored_truth & erode(usable if prediction_mask is None else prediction_mask.bool() & usable)
    # Any valid depth will do outside the masks: no scored pixel sees it.
    predicted, true = predicted.where(usable, 1.0), true.where(true_usable, 1.0)

    log_predicted, log_true = _centred(predicted.log(), mask), _centred(true.log(), mask)
    difference = log_predicted - log_true
    covariance = masked_mean(log_predicted * log_true, mask)
    variance, variance_predicted = masked_mean(log_true.square(), mask), masked_mean(log_predicted.square(), mask)
    spread = _some(variance * variance_predicted).sqrt()
    angles = angle(normals_from_depth(predicted, camera), normals_from_depth(true, camera))
    error = predicted - true
    metrics = DepthMetrics(
        side=100 * masked_mean(difference.square(), mask).sqrt(),
        mad=torch.rad2deg(masked_mean(angles, mask)),
        mae=masked_mean(error.abs(), mask),
        mse=masked_mean(error.square(), mask),
        slope=covariance / _some(variance),
        correlation=covariance / spread,
        coverage=mask.sum((1, 2)) / scored_truth.sum((1, 2)).double(),
    )
    return DepthMetrics(**{f.name: getattr(metrics, f.name).cpu() for f in fields(metrics)})


def depth_scores(
    prediction: Tensor,
    truth: Tensor,
    camera: Camera,
    *,
    prediction_mask: Tensor | None,
    truth_mask: Tensor | None,
    average: Tensor | None = None,
) -> Scored:
    """The scores of a batch by :data:`DEPTH`, with baselines on the same images and the same masks.

    Args:
        prediction, truth, camera, prediction_mask, truth_mask: as for :func:`depth_metrics`.
        average: the average true depth (H, W) of all images that are scored, for that baseline.
    """
    # A baseline is defined everywhere; it is scored where this prediction could be.
    prediction_mask, truth_mask = scored_masks(prediction, truth, prediction_mask, truth_mask)

    def of(depth: Tensor) -> DepthMetrics:
        return depth_metrics(depth, truth, camera, prediction_mask=prediction_mask, truth_mask=truth_mask)

    planes = {"constant": torch.ones_like(truth)}
    if average is not None:
        planes["average"] = average.to(truth.device).expand(truth.shape)
    quoted = [metric.name for metric in DEPTH.metrics if metric.ratio_to is not None]
    baselines = {who: of(plane) for who, plane in planes.items()}
    return Scored(
        vars(of(prediction)),
        {who: {name: getattr(found, name) for name in quoted} for who, found in baselines.items()},
    )


def average_depth(truth: Tensor, mask: Tensor) -> Tensor:
    """The mean depth of the object at each pixel, over the images of (N, H, W) whose mask holds there: (H, W).

    What lies outside the objects has no part in it, unlike in the paper, whose maps have one background depth: the
    result does not depend on how a data set fills its background. Pixels that no object covers get the mean of all.
    """
    count = mask.sum(0)
    total = truth.double().where(mask, 0.0).sum(0)
    overall = total.sum() / count.sum()
    return torch.where(count > 0, total / count.clamp(min=1), overall)


def foreground(truth: Tensor) -> Tensor:
    """The object in a ground-truth depth map without a mask, (B, H, W) → bool.

    Where some depths are not positive and finite, these are the background; otherwise it is the furthest value.
    """
    usable = _usable(truth)
    furthest = truth.where(usable, -torch.inf).amax((1, 2), keepdim=True)
    return torch.where(usable.all(2, keepdim=True).all(1, keepdim=True), truth < furthest, usable)


def scored_masks(
    prediction: Tensor, truth: Tensor, prediction_mask: Tensor | None, truth_mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Where predicted and true depth (B, H, W) can be scored, each (B, H, W) bool: in their masks, and usable.

    Args:
        prediction, truth: depths.
        prediction_mask: everywhere by default.
        truth_mask: :func:`foreground` by default.
    """
    true_mask = foreground(truth) if truth_mask is None else truth_mask.bool()
    mask = torch.ones_like(true_mask) if prediction_mask is None else prediction_mask.bool()
    return mask & _usable(prediction), true_mask & _usable(truth)


def erode(mask: Tensor) -> Tensor:
    """Erosion of (B, H, W) bool by 3×3 pixels; outside the image nothing is set."""
    outside = F.pad((~mask).float(), (1, 1, 1, 1), value=1.0)
    return F.max_pool2d(outside[:, None], 3, stride=1)[:, 0] == 0


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of (B, H, W) over a bool mask, per image: (B,); NaN where the mask is empty."""
    return values.where(mask, 0.0).sum((1, 2)) / mask.sum((1, 2))


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Angle in radians between vectors (B, 3, H, W): (B, H, W). By the arc tangent, exact near 0 unlike arccos."""
    return torch.atan2(torch.linalg.vector_norm(torch.linalg.cross(a, b, dim=1), dim=1), (a * b).sum(1))


def _usable(depth: Tensor) -> Tensor:
    return depth.isfinite() & (depth > 0)


def _centred(values: Tensor, mask: Tensor) -> Tensor:
    return values - masked_mean(values, mask)[:, None, None]


def _some(variance: Tensor) -> Tensor:
    """A variance, or NaN where there is none but for rounding: (1e-12)² is far below any relief in log depth."""
    return variance.where(variance > 1e-24, torch.nan)
