"""What a table has measured, as one typed object: every output is made from it, and ``results.json`` holds it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recon_toolkit.errors import DataError
from recon_toolkit.metrics import Metric, MetricSet
from recon_toolkit.metrics.depth import DEPTH
from recon_toolkit.metrics.images import IMAGES

#: Those of the toolkit; models may bring more.
METRICS = {metric.name: metric for metric in (DEPTH + IMAGES).metrics}

#: Rows that need no training, and what a table calls them; models may bring more.
BASELINES = dict(DEPTH.baselines)


def known_metrics(sheets: Iterable[MetricSet]) -> dict[str, Metric]:
    """The toolkit's metrics and those of some models and pipelines, by name."""
    return METRICS | {metric.name: metric for sheet in sheets for metric in sheet.metrics}


def known_baselines(sheets: Iterable[MetricSet]) -> dict[str, str]:
    """The toolkit's baselines and those of some models and pipelines: name → label."""
    return BASELINES | {name: label for sheet in sheets for name, label in sheet.baselines.items()}


FORMAT: Literal["recon-toolkit bench 1"] = "recon-toolkit bench 1"
#: Differences below a hundredth of the score compared with are told apart from none, and called small.
SMALLEST = 0.01
Status = Literal["pending", "running", "elsewhere", "done", "failed"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="null")


class Published(_Model):
    """A figure of a paper, to be quoted beside ours."""

    mean: float
    std: float | None = None


class Difference(_Model):
    """A row minus the row that it is compared with, over the images (and seeds) that both have.

    The interval is at 95 %. With several seeds it counts what differs from image to image and from training to
    training; with one, images only, so that another training may well fall outside.
    """

    against: str = Field(description="the row compared with")
    mean: float
    low: float
    high: float
    seeds: int
    images: int
    small: bool = Field(default=False, description="less than the smallest difference that counts")
    untrained: bool = Field(default=False, description="the row is no better than its baseline, so there is no verdict")

    @property
    def significant(self) -> bool:
        """Zero lies outside the interval."""
        return self.low > 0 or self.high < 0

    @property
    def counts(self) -> bool:
        """Significant, not too small to matter, and of a row that has learned something."""
        return self.significant and not self.small and not self.untrained


class Score(_Model):
    """One metric of one row."""

    mean: float = Field(description="mean over images, then over seeds")
    std: float = Field(description="standard deviation over images (of the population), mean over seeds")
    seed_std: float | None = Field(default=None, description="standard deviation over seeds (of the sample)")
    ratio: float | None = Field(default=None, description="over the metric's baseline on the same images")
    difference: Difference | None = None
    best: bool = False
    shared: bool = Field(default=False, description="printed, it reads as the best one")
    untrained: bool = Field(default=False, description="no better than the metric's baseline")


class SeedResult(_Model):
    """One training of a row."""

    seed: int
    status: Status
    run: str = Field(description="the run folder, relative to the folder of the results")
    cause: str | None = Field(default=None, description="why it failed")
    device: str = ""
    steps: int = 0
    seconds: float = Field(default=0, description="of training, without validation and scoring")
    images_per_second: float = 0
    peak_memory_mb: float = 0
    images: int = Field(default=0, description="images scored")
    unscored: int = Field(default=0, description="images without a pixel to score")
    findings: list[str] = []
    scores: dict[str, float] = Field(default={}, description="mean over images, by metric")


class RowReport(_Model):
    """A row of the table: a setting with its trainings, or a baseline (which has none)."""

    name: str
    note: str = ""
    baseline: bool = False
    base: bool = Field(default=False, description="the row that the others are compared with")
    pipeline: str = ""
    changes: list[str] = Field(default=[], description="what it changes of the base pipeline, as KEY=VALUE")
    seeds: list[SeedResult] = []
    scores: dict[str, Score] = {}
    published: dict[str, Published] = {}
    seconds: float | None = Field(default=None, description="of training, mean over seeds; likewise the next two")
    images_per_second: float | None = None
    peak_memory_mb: float | None = None

    @property
    def untrained(self) -> bool:
        """It is no better than the baseline in every metric that has one: such a row has learned nothing yet."""
        against = [score.untrained for score in self.scores.values() if score.ratio is not None]
        return bool(against) and all(against) and not self.baseline

    @property
    def status(self) -> Status:
        """Done where every seed is; else the worst of them."""
        if self.baseline:
            return "done"
        present = {seed.status for seed in self.seeds}
        order: tuple[Status, ...] = ("running", "elsewhere", "pending", "failed", "done")
        return next((status for status in order if status in present), "pending")


class TableReport(_Model):
    """A whole table.

    ``versions``, ``devices``, ``processors`` and ``data`` list what the finished trainings were made with; more than
    one of a kind means that rows are not alike in it.
    """

    format: Literal["recon-toolkit bench 1"] = FORMAT
    name: str
    description: str = ""
    pipeline: str = Field(description="the base pipeline")
    metrics: list[str]
    definitions: dict[str, Metric] = Field(default=METRICS, description="of the metrics, by name")
    labels: dict[str, str] = Field(default=BASELINES, description="of the baselines, by name")
    rows: list[RowReport]
    seeds: list[int] = Field(description="seeds of the base row")
    budget: str = Field(description="in words, e.g. '2000 steps'")
    published_source: str = ""
    smallest_difference: float = Field(
        default=SMALLEST, description="that counts, as a share of the score compared with"
    )
    versions: dict[str, list[str]] = {}
    devices: list[str] = []
    processors: list[str] = []
    data: list[str] = []
    made: str = ""
    notes: list[str] = []


def short_label(label: str) -> str:
    """A baseline in a heading: constant depth is known as constant."""
    return label.removesuffix(" depth")


def read_report(path: Path) -> TableReport:
    """The report in a ``results.json``. Raises DataError if it is missing, cut off or of another form."""
    try:
        return TableReport.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror or error}", where=str(path), remedy="run `recon bench` first"
        ) from error
    except ValidationError as error:
        reason = error.errors()[0]
        raise DataError(
            f"not a report of '{FORMAT}' ({'.'.join(map(str, reason['loc']))}: {reason['msg']})",
            where=str(path),
            remedy="make it again with `recon bench --report`",
        ) from error


@dataclass
class RunState:
    """One training.

    Attributes:
        row, seed: which.
        status: ``elsewhere`` means that another process or machine is at it.
        step, steps: how far it is; ``steps`` is 0 where it is not known yet.
        seconds: spent on it by this command so far.
        latest: newest validation scores by metric, e.g. ``mad``.
        cause: why it failed.
    """

    row: str
    seed: int
    status: Status = "pending"
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    latest: dict[str, float] = field(default_factory=dict)
    cause: str | None = None
