"""The folder that trainings of tables share: one run folder an address, and beside it what happened to it.

Several tables, and several machines that see the same folder, may use it at once: whoever writes to a run folder holds
its lock, and everything else is written whole or not at all.
"""

from __future__ import annotations

import importlib.metadata
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

import pandas as pd
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from recon_toolkit.bench.plan import Training
from recon_toolkit.config.stored import PIPELINE
from recon_toolkit.errors import DataError
from recon_toolkit.files import write_text
from recon_toolkit.training.environment import Environment
from recon_toolkit.training.reporter import IMAGE_SCORES, SUMMARY
from recon_toolkit.training.run import ENVIRONMENT, LOCK
from recon_toolkit.training.summary import RunSummary

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
    """Run folders by address.

    Args:
        folder: where they lie; made if need be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, address: str) -> Path:
        """The run folder of an address."""
        return self.folder / address

    def pipeline(self, address: str) -> Path:
        """The pipeline that its run was started with."""
        return self.folder / f"{address}.yaml"

    def output(self, address: str) -> Path:
        """What its run printed."""
        return self.folder / f"{address}.log"

    def record(self, address: str) -> RunRecord | None:
        """What happened to it; None if nothing has.

        Raises:
            DataError: the record cannot be read, e.g. because another version wrote it.
        """
        path = self._record(address)
        try:
            return RunRecord.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise DataError(
                f"is no record of this version of the toolkit ({str(error).partition(chr(10))[0]})",
                where=str(path),
                remedy=f"delete it and {self.run(address)} to train the row again, or choose another --out",
            ) from error

    def write(self, address: str, record: RunRecord) -> None:
        """Write the record."""
        write_text(self._record(address), record.model_dump_json(indent=1) + "\n", durable=True)

    def _record(self, address: str) -> Path:
        return self.folder / f"{address}.json"

    def finished(self, address: str) -> bool:
        """Whether its run has come to its end; one whose training failed has not."""
        if not (self.run(address) / SUMMARY).is_file():
            return False
        try:
            return self.summary(address).status == "finished"
        except DataError:  # whoever reads it says what is wrong with it
            return True

    def started(self, address: str) -> bool:
        """Whether there is something to continue."""
        return (self.run(address) / PIPELINE).is_file()

    def busy(self, address: str) -> bool:
        """Whether some process, here or elsewhere, has claimed it, or writes to its run folder now."""
        return _held(self._claim(address)) or _held(self.run(address) / LOCK)

    def claim(self, address: str) -> FileLock | None:
        """Claim it for a training that this process starts; None if another one has it. Released by the caller."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._claim(address))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        if _held(self.run(address) / LOCK):  # a training whose bench was killed goes on alone
            lock.release()
            return None
        return lock

    def _claim(self, address: str) -> Path:
        return self.folder / f"{address}.claim"

    def summary(self, address: str) -> RunSummary:
        """What its run found. Raises DataError if the file is damaged or of another version."""
        path = self.run(address) / SUMMARY
        return _parsed(RunSummary, path)

    def environment(self, address: str) -> Environment:
        """What its run was made with."""
        return _parsed(Environment, self.run(address) / ENVIRONMENT)

    def resumed(self, address: str) -> list[Environment]:
        """What later sessions of its run were made with."""
        return [_parsed(Environment, path) for path in sorted(self.run(address).glob("environment-resumed-at-*.json"))]

    def scores(self, address: str) -> pd.DataFrame | None:
        """One row an image, or None if the run scored nothing. Raises DataError if the file is damaged."""
        path = self.run(address) / IMAGE_SCORES
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
        record = store.record(training.address)
        if store.finished(training.address):
            store.summary(training.address)
            store.scores(training.address)
            made = store.environment(training.address).versions.get("recon-toolkit", "?")
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
