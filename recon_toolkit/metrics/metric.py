"""One metric API: what a metric says of itself, the scores of images, and what is made of them.

Depth, images, clouds, a model's own and a plugin's metrics all go through it: validation, the summary, the page,
``scores.csv`` and tables know none of them by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from recon_toolkit.structures import Batch

#: Words at a label's end that stand behind the number in a line of text.
_UNITS = ("×10⁻²", "°", "dB", "%", "mm")


class MetricSummary(BaseModel):
    """Mean and standard deviation (of the population, as numpy's) over images; NaN where there is none."""

    model_config = ConfigDict(frozen=True)

    mean: float
    std: float


@dataclass(frozen=True)
class Metric:
    """A number that every scored image has: one column of a table.

    Args:
        name: as tables, logs and ``scores.csv`` name it.
        label: as a heading shows it, with its unit.
        digits: decimals to print.
        better: which way is better; ``one`` means that 1 is right.
        needs: what the images must have, or the model must offer: ``own`` is a metric of a model or a pipeline.
        ratio_to: the baseline that it is quoted as a multiple of, if any.
        headline: it is shown on the page and in lines of text, not only in logs, ``scores.csv`` and tables.
    """

    name: str
    label: str
    digits: int
    better: Literal["lower", "higher", "one"]
    needs: Literal["depth", "pictures", "own"] = "own"
    ratio_to: str | None = None
    headline: bool = True

    def text(self, value: float) -> str:
        """A value in words: ``MAD 20.10°``."""
        name, _, unit = self.label.rpartition(" ")
        if unit not in _UNITS:
            return f"{self.label} {value:.{self.digits}f}"
        return f"{name} {value:.{self.digits}f}{'' if unit == '°' else ' '}{unit}"

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

    def __add__(self, other: MetricSet) -> MetricSet:
        """The metrics, baselines and fields of both."""
        return MetricSet(
            (*self.metrics, *other.metrics),
            {**self.baselines, **other.baselines},
            tuple(dict.fromkeys((*self.fields, *other.fields))),
        )

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
        empty: images without a pixel of depth, without one of an image, or with nothing to score in another metric.
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
        return ", ".join(self.lines())

    def lines(self) -> list[str]:
        """A line for each metric to show, for a person."""
        parts = []
        for metric in self.headlines:
            ratio = self.ratio(metric)
            times = f" ({ratio:.2f} × {self.labels[metric.ratio_to or '']})" if ratio is not None else ""
            parts.append(metric.text(self.values[metric.name].mean) + times)
        return parts

    @property
    def headlines(self) -> list[Metric]:
        """The metrics to show first."""
        return [metric for metric in self.metrics if metric.headline]

    def log(self) -> dict[str, float]:
        """Means by metric, and ``NAME_ratio`` where there is one: an entry of a run's log."""
        values = {metric.name: self.values[metric.name].mean for metric in self.metrics}
        ratios = {f"{metric.name}_ratio": self.ratio(metric) for metric in self.metrics}
        return values | {name: ratio for name, ratio in ratios.items() if ratio is not None}


@dataclass(frozen=True)
class ImageScores:
    """Scores of images: a column by metric and baseline, a word for each image or none, and the report on all."""

    columns: Mapping[str, list[float]]
    groups: Sequence[str]
    scores: MetricScores


class MetricCollector:
    """Collects scores batch by batch.

    Args:
        metrics: what the model is judged by.
    """

    def __init__(self, metrics: MetricSet) -> None:
        self.metrics = metrics
        self._parts: list[Scored] = []

    def add(self, scored: Scored) -> None:
        """Take the scores of a batch.

        Raises:
            ValueError: a metric of the sheet is missing.
        """
        missing = [m.name for m in self.metrics.metrics if m.name not in scored.values and m.needs == "own"]
        if missing:
            raise ValueError(f"the scores of the model lack {', '.join(missing)}")
        self._parts.append(scored)

    def any(self) -> bool:
        """Whether anything was scored."""
        return bool(self._parts) and bool(self._values())

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

    def scored(self) -> ImageScores | None:
        """Everything; None where nothing was scored."""
        return ImageScores(self.columns(), self.groups(), self.report()) if self.any() else None

    def report(self) -> MetricScores:
        """Means and standard deviations, of all and by group."""
        values, baselines = self._values(), {name: self._baseline(name) for name in self._known()}
        words = self.groups()

        def summed(columns: Mapping[str, Tensor], chosen: Tensor) -> dict[str, MetricSummary]:
            return {name: metric_summary(column[chosen]) for name, column in columns.items()}

        def of(chosen: Tensor) -> GroupScores:
            return GroupScores(
                images=int(chosen.sum()),
                values=summed(values, chosen),
                baselines={name: summed(columns, chosen) for name, columns in baselines.items()},
            )

        several = sorted(set(words)) if len(set(words)) > 1 else []
        return MetricScores(
            **dict(of(torch.ones_like(next(iter(values.values())), dtype=torch.bool))),
            metrics=[metric for metric in self.metrics.metrics if metric.name in values],
            labels={name: self.metrics.baselines[name] for name in baselines},
            empty=int(self._empty(values).sum()),
            groups={word: of(torch.tensor([other == word for other in words])) for word in several},
        )

    def _empty(self, values: Mapping[str, Tensor]) -> Tensor:
        """Which images have nothing to score. A flat prediction has no correlation, and is scored all the same."""
        missing: dict[str, list[Tensor]] = {}
        for metric in self.metrics.metrics:
            if metric.name in values and metric.headline:
                missing.setdefault(metric.needs, []).append(values[metric.name].isnan())
        kinds = [torch.stack(m).any(0) if need == "own" else torch.stack(m).all(0) for need, m in missing.items()]
        return torch.stack(kinds).any(0)

    def _known(self) -> list[str]:
        return [name for name in self.metrics.baselines if all(name in part.baselines for part in self._parts)]

    def _values(self) -> dict[str, Tensor]:
        return _joined([part.values for part in self._parts], self.metrics)

    def _baseline(self, name: str) -> dict[str, Tensor]:
        return _joined([part.baselines[name] for part in self._parts], self.metrics)


def _joined(parts: Sequence[Mapping[str, Tensor]], metrics: MetricSet) -> dict[str, Tensor]:
    names = [metric.name for metric in metrics.metrics if all(metric.name in part for part in parts)]
    return {name: torch.cat([part[name].detach().double().cpu() for part in parts]) for name in names}


def metric_summary(values: Tensor) -> MetricSummary:
    """Mean and standard deviation of one number an image (B,), those that are NaN left out."""
    finite = values[~values.isnan()]
    if not len(finite):
        return MetricSummary(mean=float("nan"), std=float("nan"))
    return MetricSummary(mean=float(finite.mean()), std=float(finite.std(correction=0)))
