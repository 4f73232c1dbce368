"""The folder that trainings of tables share, and what a table consists of, kept beside its results."""

from __future__ import annotations

import importlib.metadata
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

import pandas as pd
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from recon_bench.plan import Plan, Training
from recon_bench.report import BASELINES, METRICS, SMALLEST, Published
from recon_toolkit.config.sources import PIPELINE
from recon_toolkit.engine.environment import Environment
from recon_toolkit.engine.page import RunSummary
from recon_toolkit.engine.reporter import IMAGE_SCORES, SUMMARY
from recon_toolkit.engine.run import ENVIRONMENT, LOCK
from recon_toolkit.errors import DataError
from recon_toolkit.files import write_text
from recon_toolkit.metrics import Metric

T = TypeVar("T", bound=BaseModel)

FORMAT: Literal["recon-toolkit bench run 1"] = "recon-toolkit bench run 1"


class RunRecord(BaseModel):
    """What happened to a training that a table started: ``ADDRESS.json`` beside the run folder."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["recon-toolkit bench run 1"] = FORMAT
    status: Literal["started", "done", "failed"]
    cause: str | None = None
    row: str
    table: str
    seed: int
    version: str
    host: str
    command: list[str]
    started: str
    ended: str | None = None


class Store:
    """Run folders by digest.

    Args:
        folder: where they lie; made if need be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, digest: str) -> Path:
        """The run folder of an digest."""
        return self.folder / digest

    def pipeline(self, digest: str) -> Path:
        """The pipeline that its run was started with."""
        return self.folder / f"{digest}.yaml"

    def output(self, digest: str) -> Path:
        """What its run printed."""
        return self.folder / f"{digest}.log"

    def record(self, digest: str) -> RunRecord | None:
        """What happened to it; None if nothing has.

        Raises:
            DataError: the record cannot be read, e.g. because another version wrote it.
        """
        path = self._record(digest)
        try:
            return RunRecord.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise DataError(
                f"is no record of this version of the toolkit ({str(error).partition(chr(10))[0]})",
                where=str(path),
                remedy=f"delete it and {self.run(digest)} to train the row again, or choose another --out",
            ) from error

    def write(self, digest: str, record: RunRecord) -> None:
        """Write the record."""
        write_text(self._record(digest), record.model_dump_json(indent=1) + "\n", durable=True)

    def _record(self, digest: str) -> Path:
        return self.folder / f"{digest}.json"

    def finished(self, digest: str) -> bool:
        """Whether its run has come to its end; one whose training failed has not."""
        if not (self.run(digest) / SUMMARY).is_file():
            return False
        try:
            return self.summary(digest).status == "finished"
        except DataError:  # whoever reads it says what is wrong with it
            return True

    def started(self, digest: str) -> bool:
        """Whether there is something to continue."""
        return (self.run(digest) / PIPELINE).is_file()

    def busy(self, digest: str) -> bool:
        """Whether some process, here or elsewhere, has locked it, or writes to its run folder now."""
        return _held(self._lock_path(digest)) or _held(self.run(digest) / LOCK)

    def lock(self, digest: str) -> FileLock | None:
        """Claim it for a training that this process starts; None if another one has it. Released by the caller."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._lock_path(digest))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        if _held(self.run(digest) / LOCK):  # a training whose bench was killed goes on alone
            lock.release()
            return None
        return lock

    def _lock_path(self, digest: str) -> Path:
        return self.folder / f"{digest}.claim"

    def summary(self, digest: str) -> RunSummary:
        """What its run found. Raises DataError if the file is damaged or of another version."""
        path = self.run(digest) / SUMMARY
        return _parsed(RunSummary, path)

    def environment(self, digest: str) -> Environment:
        """What its run was made with."""
        return _parsed(Environment, self.run(digest) / ENVIRONMENT)

    def resumed(self, digest: str) -> list[Environment]:
        """What later sessions of its run were made with."""
        return [_parsed(Environment, path) for path in sorted(self.run(digest).glob("environment-resumed-at-*.json"))]

    def scores(self, digest: str) -> pd.DataFrame | None:
        """One row an image, or None if the run scored nothing. Raises DataError if the file is damaged."""
        path = self.run(digest) / IMAGE_SCORES
        if not path.is_file():
            return None
        try:
            words = pd.read_csv(path, dtype=str)
            # By way of words, since pandas' own quick reading of numbers is off in the last bit.
            numbers = words.drop(columns=["image", "group"], errors="ignore").astype(float)
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"cannot be read: {error}", where=str(path), remedy="delete the run folder") from error
        return pd.concat((words[["image"]], numbers), axis=1)


def _held(path: Path) -> bool:
    """Whether somebody holds a lock, without making its file."""
    if not path.is_file():
        return False
    try:
        with FileLock(path).acquire(timeout=0):
            return False
    except Timeout:
        return True


def _parsed(kind: type[T], path: Path) -> T:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(
            f"cannot be used; another version may have written it ({str(error).partition(chr(10))[0]})",
            where=str(path),
            remedy="delete the run folder to train it again, or choose another --out",
        ) from error


def begun(training: Training, table: str, command: list[str]) -> RunRecord:
    """The record of a training that starts now, here."""
    return RunRecord(
        status="started",
        row=training.row,
        table=table,
        seed=training.seed,
        version=toolkit_version(),
        host=socket.gethostname(),
        command=command,
        started=now(),
    )


def now() -> str:
    """The time, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def toolkit_version() -> str:
    """The installed version of the toolkit."""
    return importlib.metadata.version("recon-toolkit")


def check_versions(store: Store, trainings: list[Training]) -> None:
    """Refuse damaged results, and to mix versions of the toolkit. Raises DataError, before anything trains."""
    own = toolkit_version()
    others: dict[str, list[str]] = {}
    for training in trainings:
        record = store.record(training.digest)
        if store.finished(training.digest):
            store.summary(training.digest)
            store.scores(training.digest)
            made = store.environment(training.digest).versions.get("recon-toolkit", "?")
            if made != own:
                others.setdefault(made, []).append(f"'{training.row}' (seed {training.seed})")
        elif record is not None and record.version != own:
            others.setdefault(record.version, []).append(f"'{training.row}' (seed {training.seed})")
    for version, rows in others.items():
        raise DataError(
            f"{len(rows)} trainings of this table were made with recon-toolkit {version}, this is {own}: "
            f"{', '.join(rows[:3])}{' …' if len(rows) > 3 else ''}",
            where=str(store.folder),
            remedy=f"choose another --out, delete those runs, or install recon-toolkit {version}",
        )


FILE = "table.json"


class ManifestRow(BaseModel):
    """A row: its trainings as (seed, digest)."""

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
                trainings=[(training.seed, training.digest) for training in row.trainings],
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
