"""The metrics of a pipeline: the toolkit's, its model's and those that it names; and how they are computed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from recon_toolkit.components import METRIC, MetricKind, blamed
from recon_toolkit.config.pipeline import ResolvedPipeline
from recon_toolkit.data.packed import PackedImages
from recon_toolkit.errors import PluginError
from recon_toolkit.geometry.camera import Camera
from recon_toolkit.metrics.depth import DEPTH, depth_scores, scored_masks
from recon_toolkit.metrics.images import IMAGES, Lpips, image_metrics
from recon_toolkit.metrics.metric import Metric, MetricSet, Scored, Scorer, model_metrics
from recon_toolkit.models import Model
from recon_toolkit.structures import Batch, ImagePair, ModelOutput, Reconstruction

#: The plane that depth metrics are quoted beside: at the mean of an image's true depth.
CONSTANT = {"constant": "constant depth"}
#: Keys of a run's summary, log and scores.csv that are no metric's.
_TAKEN = {
    "run", "pipeline", "status", "steps", "step", "kind", "seconds", "images_per_second", "peak_memory_mb",
    "device", "seed", "images", "excluded", "baselines", "held_out_loss", "scores", "notes", "findings",
    "image", "group", "loss", "gradient_norm", "learning_rate", "epoch", "coverage",
}  # fmt: skip
_TAKEN_PARTS = (("_ratio", "_std"), tuple(f"{name}_" for name in DEPTH.baselines))
_FIELDS: dict[MetricKind, tuple[str, ...]] = {"depth": ("depth",), "image": (), "output": ()}


@dataclass(frozen=True)
class MetricTerm:
    """A metric of a pipeline.

    Attributes:
        metric: its name, the pipeline's, label and direction.
        of: what it compares: depth, images, or the model's output with the batch.
        function: with its options set.
        fields: what an image of the data set must have.
    """

    metric: Metric
    of: MetricKind
    function: Callable[..., Tensor]
    fields: tuple[str, ...]


def metric_terms(resolved: ResolvedPipeline) -> list[MetricTerm]:
    """The metrics of a pipeline, in its order.

    Raises:
        PluginError: a component was not made by the decorator ``metric``.
    """
    terms = []
    taken = {metric.name for metric in (DEPTH + IMAGES).metrics} | _TAKEN
    for name, part in resolved.section("metrics").items():
        if (
            name in taken
            or name.endswith(("_ratio", "_std"))
            or name.startswith(tuple(f"{b}_" for b in DEPTH.baselines))
        ):
            raise PluginError(
                f"a metric cannot be called '{name}': scores and logs use that name themselves",
                where=f"metrics.{name}",
                remedy="rename it in the pipeline",
            )
        about = getattr(part.target, METRIC, None)
        if about is None:
            raise PluginError(f"{part.who} says nothing of itself", where=part.where, remedy="decorate it with @metric")
        ratio = "constant" if about.of == "depth" and about.better == "lower" else None
        metric = Metric(name, about.label or name, about.digits, about.better, ratio_to=ratio)
        fields = tuple(dict.fromkeys((*_FIELDS[about.of], *about.fields)))
        terms.append(MetricTerm(metric, about.of, partial(part.target, **part.options), fields))
    return terms


def pipeline_metrics(
    resolved: ResolvedPipeline, fields: Collection[str] | None = None, model: Model | None = None
) -> MetricSet:
    """What a pipeline is judged by: the toolkit's metrics as far as its model can be, the model's, those that it names.

    Args:
        resolved: the pipeline.
        fields: those of the data to score; metrics that need others are left out. All metrics if None.
        model: the model, where it is built; by default its class tells what it offers, and a function that makes one
            offers everything.
    """
    target = resolved.components["model",].target if model is None else model
    kind: Any = type(model) if model is not None else target
    offers: Callable[[str], bool] = getattr(kind, "defines", lambda name: True)
    own = model_metrics(target)
    terms = metric_terms(resolved)
    if fields is not None:
        own = MetricSet(()) if own.missing(fields) else own
        terms = [term for term in terms if set(term.fields) <= set(fields)]
    depth = offers("reconstruct") and (fields is None or "depth" in fields)
    named = MetricSet(
        tuple(term.metric for term in terms),
        CONSTANT if any(term.of == "depth" for term in terms) else {},
        tuple(dict.fromkeys(name for term in terms for name in term.fields)),
    )
    nothing = MetricSet(())
    return (DEPTH if depth else nothing) + (IMAGES if offers("scored_pair") else nothing) + own + named


class PipelineScorer:
    """Scores batches by all of a pipeline's metrics.

    Args:
        resolved: the pipeline.
        model: in evaluation mode.
        metrics: from :func:`pipeline_metrics`.
        learned: what the model was trained on, for its own baselines.
        autocast: the precision context that the networks run in.
        lpips: computes LPIPS; left out without.
    """

    def __init__(
        self,
        resolved: ResolvedPipeline,
        model: Model,
        metrics: MetricSet,
        learned: PackedImages,
        autocast: Callable[[], AbstractContextManager[object]],
        lpips: Lpips | None = None,
    ) -> None:
        names = {metric.name for metric in metrics.metrics}
        self.model, self.autocast, self.lpips = model, autocast, lpips
        self.camera = Camera(resolved.pipeline.camera.fov)
        self.depth, self.images = "side" in names, "psnr" in names
        self.terms = [term for term in metric_terms(resolved) if term.metric.name in names]
        own = {metric.name for metric in model_metrics(model).metrics} & names
        self.own: Scorer | None = model.scorer(learned) if own else None

    @torch.no_grad()
    def __call__(self, batch: Batch, average: Tensor | None = None) -> Scored:
        """The scores of a batch; with the average true depth (H, W) of all images to score, also of that baseline."""
        once = _Once(self.model, batch, self.autocast)
        parts: list[Scored] = []
        if self.own is not None:
            with self.autocast():
                parts.append(self.own(batch))
        if self.depth and once.maps.depth is not None and batch.depth is not None:
            masks = {"prediction_mask": once.maps.mask, "truth_mask": batch.mask}
            parts.append(depth_scores(once.maps.depth, batch.depth, self.camera, **masks, average=average))
        if self.images:
            parts.append(image_metrics(once.pair, self.lpips).scored())
        parts += [self._term(term, once) for term in self.terms]
        baselines: dict[str, dict[str, Tensor]] = {}
        for part in parts:
            for who, values in part.baselines.items():
                baselines.setdefault(who, {}).update(values)
        groups = next((part.groups for part in parts if part.groups), ())
        return Scored({name: value for part in parts for name, value in part.values.items()}, baselines, groups)

    @staticmethod
    def _term(term: MetricTerm, once: _Once) -> Scored:
        name = term.metric.name
        with blamed(f"the metric of metrics.{name}"):
            if term.of == "output":
                return Scored({name: _checked(term, term.function(once.output, once.batch), once.batch)})
            if term.of == "image":
                return Scored({name: _checked(term, term.function(*once.compared_images), once.batch)})
            prediction, true, mask = once.compared_depth
            mean = true.where(mask, 0.0).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)
            plane = mean[:, None, None].expand_as(true)
            of = {who: term.function(depth, true, mask) for who, depth in (("", prediction), ("constant", plane))}
            checked = {who: {name: _checked(term, value, once.batch)} for who, value in of.items()}
            return Scored(checked[""], {"constant": checked["constant"]})


class _Once:
    """What a model says of a batch, computed when it is first asked for, whatever the number of metrics."""

    def __init__(self, model: Model, batch: Batch, autocast: Callable[[], AbstractContextManager[object]]) -> None:
        self.model, self.batch, self.autocast = model, batch, autocast

    @cached_property
    def output(self) -> ModelOutput:
        with self.autocast():
            output: ModelOutput = self.model(self.batch)
            return output

    @cached_property
    def pair(self) -> ImagePair:
        with self.autocast():
            return self.model.scored_pair(self.batch)

    @cached_property
    def maps(self) -> Reconstruction:
        with self.autocast():
            return self.model.reconstruct(self.batch.image)

    @cached_property
    def compared_images(self) -> tuple[Tensor, Tensor, Tensor]:
        """Prediction and target (B, 3, H, W), mask (B, H, W)."""
        if self.model.defines("scored_pair"):
            pair = self.pair
            mask = torch.ones_like(pair.target[:, 0]) if pair.mask is None else pair.mask
            return pair.prediction.double(), pair.target.double(), mask > 0.5
        if self.maps.reconstruction is None:
            raise PluginError("the model reconstructs no image", remedy="leave metrics of images out")
        image = self.batch.image
        everywhere = torch.ones_like(image[:, 0], dtype=torch.bool)
        mask = everywhere if self.maps.mask is None else self.maps.mask
        return self.maps.reconstruction.double(), image.double(), mask

    @cached_property
    def compared_depth(self) -> tuple[Tensor, Tensor, Tensor]:
        """Prediction, truth and mask, (B, H, W) each."""
        if self.maps.depth is None or self.batch.depth is None:
            raise PluginError("the model predicts no depth", remedy="leave metrics of depth out")
        true, predicted = self.batch.depth.double(), self.maps.depth.double()
        both = scored_masks(predicted, true, self.maps.mask, self.batch.mask)
        return predicted, true, both[0] & both[1]


def _checked(term: MetricTerm, value: object, batch: Batch) -> Tensor:
    if isinstance(value, Tensor) and value.shape == (len(batch),):
        return value
    got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    raise PluginError(
        f"the metric of metrics.{term.metric.name} returned {got}; one number an image ({len(batch)},) was expected"
    )
