"""What a table consists of, kept beside its results, so that they can be made again without plugins or data."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from recon_toolkit.bench.metrics import BASELINES, METRICS
from recon_toolkit.bench.plan import Plan, Training
from recon_toolkit.bench.report import SMALLEST, Published
from recon_toolkit.errors import DataError
from recon_toolkit.evaluation.own_scores import Metric
from recon_toolkit.files import write_text

FILE = "table.json"


class ManifestRow(BaseModel):
    """A row: its trainings as (seed, address)."""

    model_config = ConfigDict(extra="forbid")

    name: str
    note: str
    pipeline: str
    changes: list[str]
    against: str | None
    published: dict[str, Published]
    trainings: list[tuple[int, str]]


class Manifest(BaseModel):
    """A table: ``table.json`` in the folder of its results."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["recon-toolkit bench table 1"] = "recon-toolkit bench table 1"
    name: str
    description: str
    pipeline: str
    base: str
    metrics: list[str]
    baselines: list[str]
    definitions: dict[str, Metric] = METRICS  # of the metrics, by name
    labels: dict[str, str] = BASELINES  # of the baselines
    budget: str
    published: dict[str, dict[str, Published]]
    source: str
    smallest_difference: float = SMALLEST
    data: list[str]  # data set, size and split, in words
    runs: str  # the folder of run folders, relative to this file
    rows: list[ManifestRow]

    @property
    def known(self) -> dict[str, Metric]:
        """Every metric that its trainings may have: the toolkit's, and those that its models bring along."""
        return METRICS | self.definitions

    def write(self, folder: Path) -> None:
        """Write it into the folder of the results."""
        write_text(folder / FILE, self.model_dump_json(indent=1) + "\n", durable=True)


def manifest_of(plan: Plan, runs: str) -> Manifest:
    """The manifest of a plan whose run folders lie in ``runs``."""
    config = plan.config
    lengths = {
        f"{found.steps} steps"
        if found.steps
        else f"{found.epochs:g} epochs"
        if found.epochs
        else f"{found.minutes:g} min"
        for row in plan.rows
        for found in (training.resolved.pipeline.training for training in row.trainings)
    }
    return Manifest(
        name=plan.name,
        description=config.description,
        pipeline=config.pipeline,
        base=plan.base,
        metrics=config.metrics,
        baselines=list(config.baselines),
        definitions={name: metric for name, metric in plan.metrics.items() if name in config.metrics},
        labels=dict(plan.baselines),
        budget=", ".join(sorted(lengths)),
        published=config.published,
        source=config.source,
        smallest_difference=config.smallest_difference,
        data=list(dict.fromkeys(_data(training) for row in plan.rows for training in row.trainings)),
        runs=runs,
        rows=[
            ManifestRow(
                name=row.name,
                note=row.keys.note,
                pipeline=row.pipeline,
                changes=list(row.changes),
                against=row.keys.against,
                published=row.keys.published,
                trainings=[(training.seed, training.address) for training in row.trainings],
            )
            for row in plan.rows
        ],
    )


def _data(training: Training) -> str:
    """What a training learns from and is scored on, in words: only options that are not the defaults."""
    resolved = training.resolved
    part, pipeline = resolved.components["dataset",], resolved.pipeline
    defaults = {field.alias: field.default for field in part.signature.options.model_fields.values()}
    options = [f"{name} {value}" for name, value in part.options.items() if value != defaults.get(name)]
    name = f"{part.entry.name} ({', '.join(options)})" if options else part.entry.name
    return f"{name} at {pipeline.image_size} px, scored on '{pipeline.evaluation.split}'"


def read_manifest(folder: Path) -> Manifest:
    """The manifest in a folder of results. Raises DataError if there is none, or it is damaged or of another form."""
    path = folder / FILE
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(
            "there is nothing to report here yet", where=str(path), remedy="run `recon bench` without --report first"
        ) from error
    except (OSError, ValidationError) as error:
        raise DataError(
            f"cannot be used; another version may have written it ({str(error).partition(chr(10))[0]})",
            where=str(path),
            remedy="run `recon bench` without --report: it writes the file anew and trains nothing twice",
        ) from error
