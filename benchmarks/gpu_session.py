"""What the calls of the GPU suite share: its folder, how far each piece is, the time that is left."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from gpu_case import CASES, CPU_CASES, Case, without_places
from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)

PIECES = ("throughput", "schedule", "ablation")
#: Seconds that a training gets to write its checkpoint when time is up, before it is killed.
GRACE = 30.0
#: Seconds of a call that no training gets: the grace, the start of Python, the report.
RESERVE = 45.0


class Identity(BaseModel):
    """What a folder of the suite is for; another device or size must not mix with it."""

    device: str
    toy: bool


class Progress(BaseModel):
    """How far a piece is that runs for several calls."""

    status: Literal["started", "finished", "failed"] = "started"
    cause: str | None = None
    calls: list[float] = []  # seconds of each


@dataclass
class Session:
    """One call of the suite.

    Attributes:
        keep: folder of everything measured.
        device, toy: where, and at what size.
        retry: try again what failed.
        budget: seconds that this call may take.
    """

    keep: Path
    device: str
    toy: bool
    retry: bool
    budget: float
    started: float = field(default_factory=time.monotonic)

    @property
    def full(self) -> float:
        """Seconds that a call has for its work."""
        return self.budget - min(RESERVE, 0.1 * self.budget)

    @property
    def left(self) -> float:
        """Seconds until a training must be asked to stop."""
        return self.full - (time.monotonic() - self.started)

    @property
    def cases(self) -> tuple[str, ...]:
        """The cases of the throughput on this device."""
        return CPU_CASES if self.device == "cpu" else CASES

    def progress(self, piece: str) -> Progress:
        """How far a piece is."""
        return read(Progress, self.keep / f"{piece}.json") or Progress()

    def case(self, name: str) -> Case | None:
        """A case's record, if it is there and whole."""
        return read(Case, self.keep / "throughput" / f"{name}.json")

    def unfinished(self, pieces: tuple[str, ...] = PIECES) -> list[str]:
        """What is not measured and did not fail."""
        cases = [f"throughput {name}" for name in self.cases if self.case(name) is None]
        later = [piece for piece in PIECES[1:] if self.progress(piece).status == "started"]
        return [what for what in (*cases, *later) if what.split()[0] in pieces]

    def failures(self, pieces: tuple[str, ...] = PIECES) -> list[str]:
        """What failed, each with its cause."""
        cases = [case for name in self.cases if (case := self.case(name)) is not None and case.status == "failed"]
        found = [f"throughput {case.name}: {case.cause}" for case in cases]
        for piece in PIECES[1:]:
            if (progress := self.progress(piece)).status == "failed":
                found.append(f"{piece}: {progress.cause}")
        return [what for what in found if what.split()[0].rstrip(":") in pieces]


def read(kind: type[Model], path: Path) -> Model | None:
    """A record, or None if there is none or it is damaged, so that it is made again."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


# -- a command with a time limit ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, whether time was up, and the end of what it said."""

    code: int
    stopped: bool
    tail: str

    @property
    def cause(self) -> str:
        """In one line; without the machine's folders."""
        return without_places(f"exit code {self.code}: {' '.join(self.tail.split())[-400:]}")


def limited(command: list[str], log: Path, seconds: float) -> Ended:
    """Run a command, ask it to stop when time is up, and kill it :data:`GRACE` seconds later. ``log`` is appended to.

    It is asked by SIGTERM, on which `recon` does the same as on Ctrl-C; a shell's background jobs ignore SIGINT.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    begun, stopped = time.monotonic(), False
    with log.open("ab") as file:
        before = file.tell()
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )  # fmt: skip
        try:
            try:
                process.wait(max(seconds, 0.1))
            except subprocess.TimeoutExpired:
                stopped = True
                process.terminate()
                process.wait(GRACE)
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as why:
            if not stopped:
                process.terminate()
            try:
                process.wait(0.1 if stopped else GRACE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
                process.wait()
            if isinstance(why, KeyboardInterrupt):
                raise
    with log.open("rb") as file:
        file.seek(before)
        said = file.read()[-4000:].decode("utf-8", "replace")
    print(f"  {time.monotonic() - begun:.0f} s, exit code {process.returncode}; {log}", flush=True)
    return Ended(process.returncode, stopped and process.returncode != 0, said)


def _end_with_parent() -> None:
    """Let a child end, with its checkpoint, when this process is killed (Linux: PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
