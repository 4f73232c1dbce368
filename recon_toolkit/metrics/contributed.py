"""Metrics that models and pipelines bring along, and how they are computed batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from recon_toolkit.components import METRIC, MetricKind, blamed
from recon_toolkit.config.pipeline import ResolvedPipeline
from recon_toolkit.data.packed import PackedImages
from recon_toolkit.errors import PluginError
from recon_toolkit.metrics.depth import MetricSummary, metric_summary, scored_masks
from recon_toolkit.models import Model
from recon_toolkit.structures import Batch


@dataclass(frozen=True)
class Metric:
    """A number that every scored image has: one column of a table.

    Args:
        name: as tables, logs and ``scores.csv`` name it.
        label: as a heading shows it, with its unit.
        digits: decimals to print.
        better: which way is better; ``one`` means that 1 is right.
        needs: what the images must have, or the model must offer: ``own`` is a model's own score.
        ratio_to: the baseline that it is quoted as a multiple of, if any.
    """

    name: str
    label: str
    digits: int
    better: Literal["lower", "higher", "one"]
    needs: Literal["depth", "pictures", "own"] = "own"
    ratio_to: str | None = None

    def loss(self, value: float) -> float:
        """A number that is smaller for a better value."""
        return {"lower": value, "higher": -value, "one": abs(value - 1)}[self.better]


@dataclass(frozen=True)
class MetricSet:
    """What a model is judged by.

    Args:
        metrics: in the order in which they are shown; the first two are drawn.
        baselines: what they are compared with on the same images: name, in the form ``mean-shape``, → label.
        fields: what an image of the data set must have to be scored, besides itself.
    """

    metrics: tuple[Metric, ...]
    baselines: Mapping[str, str] = field(default_factory=dict)
    fields: tuple[str, ...] = ()

    def missing(self, fields: Collection[str]) -> list[str]:
        """Those of its fields that a data set with ``fields`` does not have."""
        return [name for name in self.fields if name not in fields]


def model_metrics(model: Any) -> MetricSet:
    """What a model, or its class, is judged by besides depth and pictures; empty where it brings nothing."""
    found = getattr(model, "scores", None)  # a function that makes a model says nothing
    return found if isinstance(found, MetricSet) else MetricSet(())


@dataclass(frozen=True)
class Scored:
    """Scores of B images.

    Attributes:
        values: by metric, (B,); NaN where there is nothing to score.
        baselines: by baseline and metric, (B,) each.
        groups: a word for each image, e.g. its category; scores are then also given for each group. May be empty.
    """

    values: Mapping[str, Tensor]
    baselines: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    groups: Sequence[str] = ()


Scorer = Callable[[Batch], Scored]


class GroupScores(BaseModel):
    """Mean ± standard deviation over images: of the model by metric, and of each baseline by its name and metric."""

    model_config = ConfigDict(frozen=True)

    images: int
    values: dict[str, MetricSummary]
    baselines: dict[str, dict[str, MetricSummary]]


class MetricScores(GroupScores):
    """The scores of a model by its own metrics.

    Attributes:
        metrics: what they are.
        labels: of the baselines.
        empty: images with nothing to score in some metric.
        groups: the scores of each group, if there are several.
    """

    metrics: list[Metric]
    labels: dict[str, str]
    empty: int
    groups: dict[str, GroupScores]

    def ratio(self, metric: Metric, scores: GroupScores | None = None) -> float | None:
        """The mean as a multiple of the baseline's that the metric names; None where there is none, or it is 0."""
        scores = scores or self
        base = scores.baselines.get(metric.ratio_to or "", {}).get(metric.name)
        return scores.values[metric.name].mean / base.mean if base is not None and base.mean > 0 else None

    def text(self) -> str:
        """One line for a person."""
        parts = []
        for metric in self.metrics:
            ratio = self.ratio(metric)
            times = f" ({ratio:.2f} × {self.labels[metric.ratio_to or '']})" if ratio is not None else ""
            parts.append(f"{metric.label} {self.values[metric.name].mean:.{metric.digits}f}{times}")
        return ", ".join(parts)

    def log(self) -> dict[str, float]:
        """Means by metric, and ``NAME_ratio`` where there is one: an entry of a run's log."""
        values = {metric.name: self.values[metric.name].mean for metric in self.metrics}
        ratios = {f"{metric.name}_ratio": self.ratio(metric) for metric in self.metrics}
        return values | {name: ratio for name, ratio in ratios.items() if ratio is not None}


class MetricCollector:
    """Collects scores batch by batch.

    Args:
        sheet: what the model is judged by.
    """

    def __init__(self, sheet: MetricSet) -> None:
        self.sheet = sheet
        self._parts: list[Scored] = []

    def add(self, scored: Scored) -> None:
        """Take the scores of a batch.

        Raises:
            ValueError: a metric of the sheet is missing.
        """
        for who, values in (("model", scored.values), *scored.baselines.items()):
            missing = [metric.name for metric in self.sheet.metrics if metric.name not in values]
            if missing and who == "model":
                raise ValueError(f"the scores of the {who} lack {', '.join(missing)}")
        self._parts.append(scored)

    def columns(self) -> dict[str, list[float]]:
        """One number an image by metric, and ``BASELINE_METRIC`` for baselines."""
        return {
            f"{prefix}{name}": values.tolist()
            for prefix, group in (("", self._values()), *((f"{key}_", self._baseline(key)) for key in self._known()))
            for name, values in group.items()
        }

    def groups(self) -> list[str]:
        """A word for each image; empty where the model gives none."""
        return [word for part in self._parts for word in part.groups]

    def report(self) -> MetricScores:
        """Means and standard deviations, of all and by group."""
        values = self._values()
        words = self.groups()
        several = {
            word: self._group(torch.tensor([other == word for other in words])) for word in sorted(set(words))
        } if len(set(words)) > 1 else {}  # fmt: skip
        whole = self._group(torch.ones_like(next(iter(values.values())), dtype=torch.bool))
        return MetricScores(
            **dict(whole),
            metrics=list(self.sheet.metrics),
            labels=dict(self.sheet.baselines),
            empty=int(torch.stack([column.isnan() for column in values.values()]).any(0).sum()),
            groups=several,
        )

    def _group(self, chosen: Tensor) -> GroupScores:
        def summed(columns: Mapping[str, Tensor]) -> dict[str, MetricSummary]:
            return {name: metric_summary(values[chosen]) for name, values in columns.items()}

        return GroupScores(
            images=int(chosen.sum()),
            values=summed(self._values()),
            baselines={name: summed(self._baseline(name)) for name in self._known()},
        )

    def _known(self) -> list[str]:
        return [name for name in self.sheet.baselines if all(name in part.baselines for part in self._parts)]

    def _values(self) -> dict[str, Tensor]:
        return _joined([part.values for part in self._parts], self.sheet)

    def _baseline(self, name: str) -> dict[str, Tensor]:
        return _joined([part.baselines[name] for part in self._parts], self.sheet)


def _joined(parts: Sequence[Mapping[str, Tensor]], sheet: MetricSet) -> dict[str, Tensor]:
    names = [metric.name for metric in sheet.metrics if all(metric.name in part for part in parts)]
    return {name: torch.cat([part[name].detach().double().cpu() for part in parts]) for name in names}


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


def pipeline_metrics(resolved: ResolvedPipeline, fields: Collection[str] | None = None) -> MetricSet:
    """What a pipeline is judged by besides the toolkit's own metrics: its model's, and those that it names.

    Args:
        resolved: the pipeline.
        fields: those of the data to score; metrics that need others are left out. All metrics if None.
    """
    own = model_metrics(resolved.components["model",].target)
    if fields is not None and own.missing(fields):
        own = MetricSet(())
    terms = [t for t in metric_terms(resolved) if fields is None or set(t.fields) <= set(fields)]
    depth = any(term.of == "depth" for term in terms)
    return MetricSet(
        metrics=(*own.metrics, *(term.metric for term in terms)),
        baselines={**own.baselines, **(CONSTANT if depth else {})},
        fields=tuple(dict.fromkeys((*own.fields, *(name for term in terms for name in term.fields)))),
    )


class PipelineScorer:
    """Scores batches by all metrics of a sheet.

    Args:
        resolved: the pipeline.
        model: in evaluation mode.
        sheet: from :func:`pipeline_metrics`.
        learned: what the model was trained on, for its own baselines.
        autocast: the precision context that the networks run in.
    """

    def __init__(
        self,
        resolved: ResolvedPipeline,
        model: Model,
        sheet: MetricSet,
        learned: PackedImages,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        names = {metric.name for metric in sheet.metrics}
        self.model, self.autocast = model, autocast
        self.terms = [term for term in metric_terms(resolved) if term.metric.name in names]
        own = {metric.name for metric in model_metrics(model).metrics} & names
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
