"""Errors: what went wrong, where and what to do; and the nearest known name for one that nothing has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class ReconError(Exception):
    """A problem outside the program: an input, a setting, a plugin, missing data.

    The command line prints it as one message without a traceback and exits with ``exit_code``.

    Args:
        message: what is wrong, naming the thing.
        where: the file (and line), key or option it was found in.
        remedy: what the user can do about it.
    """

    exit_code = 2

    def __init__(self, message: str, *, where: str | None = None, remedy: str | None = None) -> None:
        self.message = message
        self.where = where
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} ({self.remedy})" if self.remedy else text


class ConfigError(ReconError):
    """A pipeline or an override is wrong; may carry several problems found in one pass."""

    def __init__(self, problems: Sequence[ReconError]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in problems))


class PluginError(ReconError):
    """A plugin failed to load, to register or in use; names the plugin and the cause."""


class DataError(ReconError):
    """An image, a depth file or a data folder cannot be used."""


class MissingSplit(DataError):
    """The user's data has no images for a split; a run can do without validation and test images."""


class CheckpointError(ReconError):
    """A checkpoint is missing, truncated, of another pipeline, or not safely loadable."""


class TrainingError(ReconError):
    """Training cannot go on, e.g. the loss stayed non-finite."""

    exit_code = 3


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The name in ``known`` that ``word`` most likely meant, or None if nothing is near."""
    names = list(known)
    folded = {name.lower().replace("_", "-"): name for name in names}
    match = get_close_matches(word.lower().replace("_", "-"), folded, n=1, cutoff=0.6)
    if match:
        return folded[match[0]]
    # A short form of one name only (``flip`` for ``flipped``) is too far by edit distance.
    longer = [name for name in names if len(word) >= 3 and name.lower().startswith(word.lower())]
    return longer[0] if len(longer) == 1 else None


def suggestion(word: str, known: Iterable[str]) -> str:
    """``nearest is 'x'``, or the list of what is known, or ``none is known``; for use as a remedy."""
    names = sorted(known)
    near = nearest(word, names)
    if near is not None:
        return f"nearest is '{near}'"
    return f"known: {', '.join(names)}" if names else "none is known"
