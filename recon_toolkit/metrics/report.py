"""From per-image metrics to the object that ``recon score --json`` and ``recon run --json`` print."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from recon_toolkit.geometry.camera import Camera
from recon_toolkit.metrics.depth import DepthMetrics, DepthSummary, average_depth, depth_metrics, scored_masks
from recon_toolkit.metrics.metric import MetricSummary


class BaselineScore(BaseModel):
    """A baseline's errors on the same images and masks."""

    model_config = ConfigDict(frozen=True)

    side: float = Field(description="mean SIDE in 1e-2")
    side_std: float
    mad: float = Field(description="mean MAD in degrees")
    mad_std: float


class Baselines(BaseModel):
    """Constant depth, and the average ground-truth depth of the scored images (None where their sizes differ)."""

    model_config = ConfigDict(frozen=True)

    constant: BaselineScore
    average: BaselineScore | None


class SkippedFile(BaseModel):
    """A file that was not scored, and why."""

    model_config = ConfigDict(frozen=True)

    name: str
    reason: str


class ScoreReport(BaseModel):
    """Depth errors over a set of images: means, and standard deviations as ``*_std``. NaN becomes null in JSON."""

    model_config = ConfigDict(frozen=True)

    side: float = Field(description="scale-invariant depth error in 1e-2, as papers print it")
    side_std: float
    mad: float = Field(description="mean angle deviation of the normals in degrees")
    mad_std: float
    mae: float = Field(description="mean absolute depth error")
    mae_std: float
    mse: float = Field(description="mean squared depth error")
    mse_std: float
    slope: float = Field(description="relief slope: regression of predicted on true log depth; 1 is right")
    slope_std: float
    correlation: float = Field(description="correlation of predicted and true log depth")
    correlation_std: float
    coverage: float = Field(description="share of the ground-truth mask that was scored")
    coverage_std: float
    images: int = Field(description="images scored")
    empty: int = Field(default=0, description="images without a pixel to score; they count in nothing but coverage")
    skipped: int = Field(default=0, description="files that could not be scored")
    skipped_files: list[SkippedFile] = []
    resized: int = Field(default=0, description="predictions of another size than their truth, resampled to it")
    baselines: Baselines

    def text(self) -> str:
        """The report in a few lines for a person."""
        rows = [("", "SIDE ×10⁻²", "MAD °"), ("prediction", *_pair(self))]
        rows.append(("constant depth", *_pair(self.baselines.constant)))
        if self.baselines.average is not None:
            rows.append(("average depth", *_pair(self.baselines.average)))
        lines = [f"{name:<16}{side:>16}{mad:>18}".rstrip() for name, side, mad in rows]
        constant = self.baselines.constant
        lines.append(f"of constant depth {self.side / (constant.side or torch.nan):.2f} × SIDE, "
                     f"{self.mad / (constant.mad or torch.nan):.2f} × MAD")  # fmt: skip
        lines.append(
            f"relief slope {self.slope:.2f}, correlation {self.correlation:.2f}, MAE {self.mae:.4f}, "
            f"MSE {self.mse:.2e}, coverage {100 * self.coverage:.0f} %"
        )
        lines.append(f"{self.images} images scored, {self.empty} with nothing to score, {self.skipped} files skipped")
        if self.resized:
            lines.append(f"{self.resized} predictions were of another size and were resampled to their truth's")
        return "\n".join(lines)


class DepthEvaluator:
    """Collects predictions batch by batch and reports on all of them.

    The ground truth is kept (5 bytes a pixel) because the average baseline needs all of it.

    Args:
        camera: the camera of the images.
    """

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self._metrics: list[DepthMetrics] = []
        self._truth: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(
        self,
        prediction: Tensor,
        truth: Tensor,
        *,
        prediction_mask: Tensor | None = None,
        truth_mask: Tensor | None = None,
    ) -> DepthMetrics:
        """Score a batch, (B, H, W) each, on any device; see :func:`depth_metrics`."""
        # A baseline is defined everywhere; it is scored where this prediction could be.
        prediction_mask, truth_mask = scored_masks(prediction, truth, prediction_mask, truth_mask)
        metrics = depth_metrics(prediction, truth, self.camera, prediction_mask=prediction_mask, truth_mask=truth_mask)
        self._metrics.append(metrics)
        self._truth.append((truth.detach().float().cpu(), truth_mask.cpu(), prediction_mask.cpu()))
        return metrics

    def metrics(self) -> DepthMetrics:
        """The metrics of every image so far, in the order they came."""
        return DepthMetrics.cat(self._metrics)

    def images(self) -> dict[str, list[float]]:
        """One number an image for every metric and for both baselines (``constant_side``, ``average_mad``, …)."""
        parts = {"": self.metrics()}
        constant, average = self._baselines()
        parts |= {"constant_": constant} if average is None else {"constant_": constant, "average_": average}
        return {
            f"{prefix}{field.name}": getattr(part, field.name).tolist()
            for prefix, part in parts.items()
            for field in fields(DepthMetrics)
            if not prefix or field.name in ("side", "mad")
        }

    def report(self, skipped: list[SkippedFile] | None = None) -> ScoreReport:
        """Everything so far, with both baselines.

        Raises:
            ValueError: nothing was added.
        """
        if not self._metrics:
            raise ValueError("there is nothing to report: no image was scored")
        constant, average = self._baselines()
        summary = self.metrics().summary()
        numbers = {
            f"{name}{suffix}": value
            for name, metric in summary
            if name not in ("images", "empty")
            for suffix, value in (("", metric.mean), ("_std", metric.std))
        }
        return ScoreReport(
            **numbers,
            images=summary.images,
            empty=summary.empty,
            skipped=len(skipped or []),
            skipped_files=skipped or [],
            baselines=Baselines(
                constant=_score(constant.summary()),
                average=None if average is None else _score(average.summary()),
            ),
        )

    def _baselines(self) -> tuple[DepthMetrics, DepthMetrics | None]:
        shapes = Counter(truth.shape[1:] for truth, _, _ in self._truth)
        parts = []
        for shape in shapes:
            same = [entry for entry in self._truth if entry[0].shape[1:] == shape]
            truth, truth_mask, prediction_mask = (torch.cat([entry[i] for entry in same]) for i in range(3))
            parts.append(baseline_metrics(truth, truth_mask, prediction_mask, self.camera))
        constant = DepthMetrics.cat([part.constant for part in parts])
        return constant, parts[0].average if len(parts) == 1 else None


def baseline_score(side: MetricSummary, mad: MetricSummary) -> BaselineScore:
    """A baseline's errors from those of its two metrics."""
    return BaselineScore(side=side.mean, side_std=side.std, mad=mad.mean, mad_std=mad.std)


def _score(summary: DepthSummary) -> BaselineScore:
    return baseline_score(summary.side, summary.mad)


def _pair(score: ScoreReport | BaselineScore) -> tuple[str, str]:
    return f"{score.side:.2f} ± {score.side_std:.2f}", f"{score.mad:.2f} ± {score.mad_std:.2f}"


@dataclass(frozen=True)
class BaselineMetrics:
    """The metrics of both baselines on the same images and the same masks as the prediction's."""

    constant: DepthMetrics
    average: DepthMetrics


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
