"""The metrics log: one JSON object a line, appended while training; optionally TensorBoard beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from recon_toolkit.errors import ReconError
from recon_toolkit.files import disk_error, json_text, write_text, writing
from recon_toolkit.progress import Progress

FILE = "metrics.jsonl"
#: Where a resumed run puts a log with lines in it that are none.
DAMAGED = "metrics.jsonl.damaged"


class MetricsLog:
    """Appends entries to a run's ``metrics.jsonl``.

    Args:
        run: the run folder; None writes nothing, for all processes but the first.
        continue_from: the step that a resumed run starts at; later entries are dropped, for they come again.
        tensorboard: also write TensorBoard event files under ``tensorboard/``.
        listener: called with every entry: its kind, step and values.
    """

    def __init__(
        self,
        run: Path | None,
        *,
        continue_from: int = 0,
        tensorboard: bool = False,
        listener: Callable[[str, int, Mapping[str, Any]], None] | None = None,
    ) -> None:
        self.listener = listener
        self.path, self._writer = None if run is None else run / FILE, None
        if run is None or self.path is None:
            return
        kept = [entry for entry in _whole(run) if entry["step"] <= continue_from] if continue_from else []
        write_text(self.path, "".join(json_text(entry) + "\n" for entry in kept), durable=True)
        self._writer = _tensorboard(run) if tensorboard else None

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append an entry of a kind (``train``, ``validation``, ``health``) at a step."""
        if self.path is None:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json_text({"kind": kind, "step": step, **values}) + "\n")
        except OSError as error:
            raise disk_error(error, self.path) from error
        if self._writer is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._writer.add_scalar(f"{kind}/{name}", value, step)
        if self.listener is not None:
            self.listener(kind, step, values)

    def close(self) -> None:
        """Flush TensorBoard's files."""
        if self._writer is not None:
            self._writer.close()


def read_log(run: Path) -> list[dict[str, Any]]:
    """The entries of a run's log; what is none, such as a last line that was cut off, is left out.

    Raises:
        ReconError: the file may not be read.
    """
    return _entries(_read(run))[0]


def _whole(run: Path) -> list[dict[str, Any]]:
    """The entries of a log that is to be continued; one with other damage than a line cut off is set aside first."""
    data = _read(run)
    entries, broken = _entries(data)
    if broken > (0 if data.endswith(b"\n") else 1):
        with writing(run / DAMAGED) as file:
            file.write(data)
        Progress().warn(f"{run / FILE}: {broken} lines are damaged and were left out; the file is kept as {DAMAGED}")
    return entries


def _read(run: Path) -> bytes:
    path = run / FILE
    try:
        return path.read_bytes() if path.is_file() else b""
    except OSError as error:
        reason = error.strerror or str(error)
        raise ReconError(f"cannot be read: {reason}", where=str(path), remedy="check its permissions") from None


def _entries(data: bytes) -> tuple[list[dict[str, Any]], int]:
    """The entries of lines, each with a ``kind`` and a ``step``, and how many lines are none."""
    entries: list[dict[str, Any]] = []
    broken = 0
    for line in data.splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):  # the process was killed while writing it, or it is anybody's text
            entry = None
        if isinstance(entry, dict) and isinstance(entry.get("kind"), str) and type(entry.get("step")) is int:
            entries.append(entry)
        elif line.strip():
            broken += 1
    return entries, broken


def _tensorboard(run: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ReconError(
            "TensorBoard is not installed", where="--tensorboard", remedy="pip install 'recon-toolkit[tensorboard]'"
        ) from error
    return SummaryWriter(str(run / "tensorboard"))


class LogTail:
    """Reads a log while it grows.

    Args:
        run: the run folder, which need not be there yet.
    """

    def __init__(self, run: Path) -> None:
        self.path, self._position = run / FILE, 0

    def read(self) -> list[dict[str, Any]]:
        """The whole lines written since the last call; all of them again where the log was begun anew."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(self._position if self._position <= size else 0)
                lines = file.read()
                self._position = file.tell()
        except FileNotFoundError:
            return []
        whole, _, rest = lines.rpartition(b"\n")
        self._position -= len(rest)
        return _entries(whole)[0]
