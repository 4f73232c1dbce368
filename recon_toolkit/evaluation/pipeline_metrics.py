"""Metrics that a pipeline names under ``metrics``: components, a number for every image that is scored."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from recon_toolkit.components import METRIC, MetricKind
from recon_toolkit.config.pipeline import ResolvedPipeline
from recon_toolkit.data.packed import PackedImages
from recon_toolkit.errors import PluginError
from recon_toolkit.evaluation.metrics import scored_masks
from recon_toolkit.evaluation.own_scores import Metric, Scored, Scorer, ScoreSheet, sheet_of
from recon_toolkit.models import Model
from recon_toolkit.registry import blamed
from recon_toolkit.structures import Batch

#: The plane that depth metrics are quoted beside: at the mean of an image's true depth.
CONSTANT = {"constant": "constant depth"}
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
    for name, part in resolved.section("metrics").items():
        about = getattr(part.target, METRIC, None)
        if about is None:
            raise PluginError(f"{part.who} says nothing of itself", where=part.where, remedy="decorate it with @metric")
        ratio = "constant" if about.of == "depth" and about.better == "lower" else None
        metric = Metric(name, about.label or name, about.digits, about.better, ratio_to=ratio)
        fields = tuple(dict.fromkeys((*_FIELDS[about.of], *about.fields)))
        terms.append(MetricTerm(metric, about.of, partial(part.target, **part.options), fields))
    return terms


def sheet_of_pipeline(resolved: ResolvedPipeline, fields: Collection[str] | None = None) -> ScoreSheet:
    """What a pipeline is judged by besides the toolkit's own metrics: its model's, and those that it names.

    Args:
        resolved: the pipeline.
        fields: those of the data to score; metrics that need others are left out. All metrics if None.
    """
    own = sheet_of(resolved.components["model",].target)
    if fields is not None and own.missing(fields):
        own = ScoreSheet(())
    terms = [t for t in metric_terms(resolved) if fields is None or set(t.fields) <= set(fields)]
    depth = any(term.of == "depth" for term in terms)
    return ScoreSheet(
        metrics=(*own.metrics, *(term.metric for term in terms)),
        baselines={**own.baselines, **(CONSTANT if depth else {})},
        fields=tuple(dict.fromkeys((*own.fields, *(name for term in terms for name in term.fields)))),
    )


class PipelineScorer:
    """Scores batches by all metrics of a sheet.

    Args:
        resolved: the pipeline.
        model: in evaluation mode.
        sheet: from :func:`sheet_of_pipeline`.
        learned: what the model was trained on, for its own baselines.
        autocast: the precision context that the networks run in.
    """

    def __init__(
        self,
        resolved: ResolvedPipeline,
        model: Model,
        sheet: ScoreSheet,
        learned: PackedImages,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        names = {metric.name for metric in sheet.metrics}
        self.model, self.autocast = model, autocast
        self.terms = [term for term in metric_terms(resolved) if term.metric.name in names]
        own = {metric.name for metric in sheet_of(model).metrics} & names
        self.own: Scorer | None = model.scorer(learned) if own else None

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Scored:
        """The scores of a batch."""
        scored = Scored({}) if self.own is None else self.own(batch)
        values, baselines = dict(scored.values), {k: dict(v) for k, v in scored.baselines.items()}
        known: dict[MetricKind, tuple[tuple[Any, ...], Tensor | None]] = {}  # the model runs once for metrics of a kind
        for term in self.terms:
            with blamed(f"the metric of metrics.{term.metric.name}"):
                if term.of not in known:
                    known[term.of] = self._arguments(term.of, batch)
                arguments, plane = known[term.of]
                values[term.metric.name] = self._checked(term, term.function(*arguments), batch)
                if plane is not None:
                    found = self._checked(term, term.function(plane, *arguments[1:]), batch)
                    baselines.setdefault("constant", {})[term.metric.name] = found
        return Scored(values, baselines, scored.groups)

    def _arguments(self, of: MetricKind, batch: Batch) -> tuple[tuple[Any, ...], Tensor | None]:
        """What a metric is called with; of depth also the constant baseline's prediction."""
        with self.autocast():
            if of == "output":
                return (self.model(batch), batch), None
            if of == "image" and self.model.defines("scored_pair"):
                pair = self.model.scored_pair(batch)
                mask = torch.ones_like(pair.target[:, 0]) if pair.mask is None else pair.mask
                return (pair.prediction.double(), pair.target.double(), mask > 0.5), None
            found = self.model.reconstruct(batch.image)
        everywhere = torch.ones_like(batch.image[:, 0], dtype=torch.bool)
        mask = everywhere if found.mask is None else found.mask
        if of == "image":
            if found.reconstruction is None:
                raise PluginError("the model reconstructs no image", remedy="leave metrics of images out")
            return (found.reconstruction.double(), batch.image.double(), mask), None
        if found.depth is None or batch.depth is None:
            raise PluginError("the model predicts no depth", remedy="leave metrics of depth out")
        true, predicted = batch.depth.double(), found.depth.double()
        both = scored_masks(predicted, true, found.mask, batch.mask)
        mask = both[0] & both[1]
        mean = true.where(mask, 0.0).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)
        return (predicted, true, mask), mean[:, None, None].expand_as(true)

    @staticmethod
    def _checked(term: MetricTerm, value: object, batch: Batch) -> Tensor:
        if isinstance(value, Tensor) and value.shape == (len(batch),):
            return value
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise PluginError(
            f"the metric of metrics.{term.metric.name} returned {got}; one number an image ({len(batch)},) was expected"
        )
