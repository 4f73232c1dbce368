"""What a data set is given when it is opened: where to cache, where the user's data lies, how to show progress."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from recon_toolkit.cache import cache_root
from recon_toolkit.progress import QUIET, Progress


@dataclass(frozen=True)
class DataContext:
    """Surroundings of a data set.

    Args:
        cache: folder for packed data; each data set makes folders of its own below it.
        root: the user's data folder (``--data DIR``), or None.
        progress: where long work reports.
    """

    cache: Path = field(default_factory=lambda: cache_root() / "data")
    root: Path | None = None
    progress: Progress = QUIET
