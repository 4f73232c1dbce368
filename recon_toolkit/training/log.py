"""The metrics log: one JSON object a line, appended while training; optionally TensorBoard beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recon_toolkit.errors import ReconError
from recon_toolkit.files import disk_error, write_text

FILE = "metrics.jsonl"


class MetricsLog:
    """Appends entries to a run's ``metrics.jsonl``.

    Args:
        run: the run folder; None writes nothing, for all processes but the first.
        continue_from: the step that a resumed run starts at; later entries are dropped, for they come again.
        tensorboard: also write TensorBoard event files under ``tensorboard/``.
    """

    def __init__(self, run: Path | None, *, continue_from: int = 0, tensorboard: bool = False) -> None:
        self.path, self._writer = None if run is None else run / FILE, None
        if run is None or self.path is None:
            return
        kept = [entry for entry in read_log(run) if entry["step"] <= continue_from] if continue_from else []
        write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in kept), durable=True)
        self._writer = _tensorboard(run) if tensorboard else None

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append an entry of a kind (``train``, ``validation``, ``health``) at a step."""
        if self.path is None:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"kind": kind, "step": step, **_finite(values)}) + "\n")
        except OSError as error:
            raise disk_error(error, self.path) from error
        if self._writer is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flush TensorBoard's files."""
        if self._writer is not None:
            self._writer.close()


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: a number that is not finite becomes null."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def read_log(run: Path) -> list[dict[str, Any]]:
    """The entries of a run's log; a last line that was cut off is left out."""
    path = run / FILE
    if not path.is_file():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:  # the process was killed while writing it
            continue
    return entries


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
        entries = []
        for line in whole.splitlines():
            try:
                entries.append(json.loads(line))
            except ValueError:  # a process was killed while writing it
                continue
        return entries
