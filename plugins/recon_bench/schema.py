"""What the file of a table may say, apart from what its rows change of the pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from recon_bench.report import SMALLEST, Published, known_baselines, known_metrics
from recon_toolkit.config.document import Entry
from recon_toolkit.config.problems import Problem
from recon_toolkit.errors import ReconError, suggestion
from recon_toolkit.metrics import MetricSet

Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _once(values: list[Any]) -> list[Any]:
    twice = next((value for n, value in enumerate(values) if value in values[:n]), None)
    if twice is not None:
        raise ValueError(f"{twice} is given twice")
    return values


Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_once)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Budget(_Section):
    """How long every row trains; a row's own ``training`` comes after it."""

    steps: Annotated[int, Field(ge=1)] | None = None
    epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError("give exactly one of 'steps', 'epochs' and 'minutes'")
        return self

    def __str__(self) -> str:
        return " ".join(f"{value:g} {name}" for name, value in self if value is not None)


class RowKeys(_Section):
    """The keys of a row that are not the pipeline's."""

    pipeline: str | None = None  # another base pipeline than the table's
    seeds: Seeds | None = None  # others than the table's
    against: str | None = None  # the row to compare with; the base row by default
    note: str = ""
    published: dict[str, Published] = {}  # a paper's figures, by metric


class TableConfig(_Section):
    """A table.

    Args:
        description: one line for listings.
        pipeline: the base pipeline, a name or a path.
        data: folder of the user's data, relative to the file; ``--data`` takes its place.
        plugins: plugin files, relative to the file.
        set: settings of every row, as a pipeline file would say them.
        prepare: trainings that rows need before, by name: a row names the run folder as ``prepared:NAME``.
        rows: by name; each says what it changes, and :class:`RowKeys`.
        base: the row that others are compared with; the first by default.
        seeds: of every row that names none.
        budget: how long rows train; as their pipelines say by default.
        metrics: columns of the table: the toolkit's, or what a row's model brings along.
        baselines: rows that need no training, likewise.
        published: a paper's figures of the baselines, and ``source``.
        smallest_difference: that counts, as a share of the score compared with.
    """

    description: str = ""
    pipeline: str
    data: str | None = None
    plugins: list[str] = []
    set: dict[str, Any] = {}
    prepare: dict[str, dict[str, Any] | None] = {}
    rows: Annotated[dict[str, dict[str, Any] | None], Field(min_length=1)]
    base: str | None = None
    seeds: Seeds = [0]
    budget: Budget | None = None
    metrics: Annotated[list[str], Field(min_length=1), AfterValidator(_once)] = ["side", "mad"]
    baselines: list[str] = ["constant", "average"]
    published: dict[str, dict[str, Published]] = {}  # of baselines, by their name and metric
    source: str = ""  # where published figures are from
    smallest_difference: Annotated[float, Field(ge=0, lt=1)] = SMALLEST


#: How a row names the run folder of a preparation.
PREPARED = "prepared:"


def command_problems(
    config: TableConfig, rows: Sequence[str] | None, seeds: Sequence[int] | None, overrides: Sequence[str]
) -> Iterator[ReconError]:
    """Rows, seeds and settings of the command that cannot be."""
    for setting in overrides:
        if PREPARED in setting:
            yield ReconError("only the table's file can name a preparation", where=f"--set {setting}")
    for name in rows or ():
        if name not in config.rows:
            yield ReconError(f"there is no row '{name}'", where="--row", remedy=suggestion(name, config.rows))
    if seeds and len(set(seeds)) < len(seeds):
        yield ReconError("a seed is given twice", where="--seed", remedy="one training is no evidence for itself")


def name_problems(tree: Entry, config: TableConfig, base: str, sheets: Sequence[MetricSet]) -> Iterator[ReconError]:
    """Metrics, baselines and rows that are named but not there.

    Args:
        tree, config: the table.
        base: the row that others are compared with.
        sheets: what the rows are judged by besides the toolkit's metrics.
    """
    yield from _score_problems(tree, config, sheets)
    for name in config.prepare.keys() & config.rows.keys():
        text = f"a row and a preparation are both called '{name}'"
        yield Problem(text, tree, ("prepare", name), remedy="rename one")
    if base not in config.rows:
        yield Problem(f"there is no row '{base}'", tree, ("base",), remedy=suggestion(base, config.rows))
    for row, entry in tree.mapping["rows"].mapping.items():
        against = entry.mapping.get("against")
        if against is not None and against.value not in config.rows:
            text = f"row '{row}': there is no row '{against.value}' to compare with"
            remedy = suggestion(str(against.value), config.rows)
            yield Problem(text, tree, ("rows", row, "against"), remedy=remedy)


def _score_problems(tree: Entry, config: TableConfig, sheets: Sequence[MetricSet]) -> Iterator[ReconError]:
    metrics, baselines = known_metrics(sheets), known_baselines(sheets)
    for number, name in enumerate(config.metrics):
        if name not in metrics:
            yield Problem(f"there is no metric '{name}'", tree, ("metrics", number), remedy=suggestion(name, metrics))
    for number, name in enumerate(config.baselines):
        if name not in baselines:
            text, remedy = f"there is no baseline '{name}'", suggestion(name, baselines)
            yield Problem(text, tree, ("baselines", number), remedy=remedy)
    for baseline, figures in config.published.items():
        if baseline not in baselines:
            text, remedy = f"there is no baseline '{baseline}'", suggestion(baseline, baselines)
            yield Problem(text, tree, ("published", baseline), remedy=remedy)
        for name in figures.keys() - metrics.keys():
            text, remedy = f"there is no metric '{name}'", suggestion(name, metrics)
            yield Problem(text, tree, ("published", baseline, name), remedy=remedy)
    for row, entry in tree.mapping["rows"].mapping.items():
        published = entry.mapping.get("published")
        for name in (published.mapping.keys() if published is not None else set()) - metrics.keys():
            text, remedy = f"row '{row}': there is no metric '{name}'", suggestion(name, metrics)
            yield Problem(text, tree, ("rows", row, "published", name), remedy=remedy)
