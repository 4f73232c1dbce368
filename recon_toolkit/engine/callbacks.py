"""Callbacks: what a pipeline names to watch its training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon_toolkit.components import blamed
from recon_toolkit.config.pipeline import ResolvedPipeline
from recon_toolkit.errors import PluginError
from recon_toolkit.progress import Progress

if TYPE_CHECKING:
    from recon_toolkit.engine.page import RunSummary


class Callback:
    """Watches a training; the methods here do nothing, and one defines those that it needs.

    Only the first process of a run calls it. It changes nothing of the training: a run may be resumed with other
    callbacks, or with none. One that raises is named, and is not called any more; the training goes on.
    """

    def begin(self, run: Path, step: int, steps: int) -> None:
        """Training begins, or goes on, at ``step`` of ``steps``; ``run`` is the run folder."""

    def log(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """An entry of the run's ``metrics.jsonl``: ``train`` (losses), ``validation`` (scores) or ``health``."""

    def end(self, run: Path, summary: RunSummary) -> None:
        """The run is scored, and its files are written."""


def build_callbacks(resolved: ResolvedPipeline) -> dict[str, Callback]:
    """The callbacks of a pipeline, by the names that it gives them.

    Raises:
        ConfigError: the pipeline is a stranger's, and names files that would be read.
        PluginError: one cannot be built, or is no :class:`Callback`.
    """
    resolved.refuse_foreign_files("callbacks")
    built: dict[str, Callback] = {}
    for name, part in resolved.section("callbacks").items():
        made = part.build()
        if not isinstance(made, Callback):
            raise PluginError(
                f"{part.who} is a {type(made).__name__}", where=part.where, remedy="derive it from Callback"
            )
        built[name] = made
    return built


class Callbacks:
    """Calls several callbacks, and leaves out those that failed.

    Args:
        named: by the names that the pipeline gives them.
        progress: where failures are said.
    """

    def __init__(self, named: Mapping[str, Callback], progress: Progress) -> None:
        self._named, self._progress = dict(named), progress

    def begin(self, run: Path, step: int, steps: int) -> None:
        """See :meth:`Callback.begin`."""
        self._each(lambda callback: callback.begin(run, step, steps))

    def log(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """See :meth:`Callback.log`."""
        self._each(lambda callback: callback.log(kind, step, dict(values)))

    def end(self, run: Path, summary: RunSummary) -> None:
        """See :meth:`Callback.end`."""
        self._each(lambda callback: callback.end(run, summary))

    def _each(self, call: Callable[[Callback], None]) -> None:
        for name, callback in list(self._named.items()):
            try:
                with blamed(f"the callback callbacks.{name}"):
                    call(callback)
            except Exception as error:  # whatever it is, hours of training are worth more
                self._progress.warn(f"{error}; it is not called any more, and training goes on")
                del self._named[name]
