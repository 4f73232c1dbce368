"""Which of the settings that somebody laid over a pipeline an error may come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from recon_toolkit.components import Kind
from recon_toolkit.config.document import Entry, Keys, shown
from recon_toolkit.config.problems import Problem, dotted
from recon_toolkit.errors import ReconError

#: What the core hands to a component when it builds it, and what it then reads: keys beside the component's own.
_GIVEN: dict[Kind, tuple[Keys, ...]] = {
    "encoder": (("image_size",),),
    "renderer": (("camera",), ("model",)),
    "model": (("image_size",), ("camera",), ("renderer",)),
    "dataset": (("image_size",), ("camera",)),
    "loss": (("image_size",),),
}
#: Longer values are cut in messages.
_LONGEST = 100


def given_overrides(overrides: Sequence[str]) -> dict[Keys, str]:
    """Overrides by their keys, each as it was typed: ``--set image_size=100``; of several of one key the last."""
    found: dict[Keys, str] = {}
    for text in overrides:
        keys = tuple(text.partition("=")[0].strip().split("."))
        option = f"--set {text}"
        found[keys] = option if len(option) <= _LONGEST else f"{option[: _LONGEST - 3]}..."
    return found


def causes_of(
    tree: Entry, keys: Keys, kind: Kind, overrides: dict[Keys, str], shipped: Callable[[Path], bool]
) -> tuple[str, ...]:
    """What to name where the component at ``keys`` fails, if it is not the line that names it.

    Overrides of the component or of what it is given; or, where a shipped file names it, lines of the user's own.

    Args:
        tree: the joined pipeline.
        keys, kind: which component.
        overrides: from :func:`given_overrides`.
        shipped: whether a file came with the toolkit or a plugin, so that its lines are nobody's to change.
    """
    sections = (keys, *_GIVEN.get(kind, ()))
    place = tree.place_of((*keys, "name"))
    home = place.file
    found = [
        text
        for over, text in overrides.items()
        if any(_touches(over, section) for section in sections) and place.option != f"--set {dotted(over)}"
    ]
    if found and (home is None or not shipped(home)):
        found.append(str(place))
    if found or home is None or not shipped(home):
        return tuple(found)
    lines = []
    for section in sections:
        for leaf, entry in _leaves(_at(tree, section), section):
            if entry.place.file is not None and entry.place.file != home and not shipped(entry.place.file):
                lines.append(f"{shown(entry.place.file)}:{entry.place.line} ({dotted(leaf)}: {entry.plain()})"[:200])
    return tuple(dict.fromkeys(lines[:3]))


def name_overrides(problems: Sequence[ReconError], overrides: dict[Keys, str]) -> None:
    """Name the overrides in problems that they cause, where the place is that of another line."""
    for problem in problems:
        if not isinstance(problem, Problem) or (problem.where or "").startswith("--"):
            continue
        found = [text for keys, text in overrides.items() if _causes(keys, problem)]
        if found:
            problem.where = ", ".join(found)


def _causes(over: Keys, problem: Problem) -> bool:
    if any(_touches(over, keys) for keys in problem.depends):
        return True
    # What is not there may have been taken away, alone or with all around it.
    return problem.lack and bool(problem.keys) and _touches(over, problem.keys)


def _touches(over: Keys, keys: Keys) -> bool:
    shorter = min(len(over), len(keys))
    return over[:shorter] == keys[:shorter]


def _at(tree: Entry, keys: Keys) -> Entry:
    for key in keys:
        tree = tree.mapping.get(str(key), Entry(None, tree.place))
    return tree


def _leaves(entry: Entry, keys: Keys) -> Iterator[tuple[Keys, Entry]]:
    if isinstance(entry.value, dict):
        for key, item in entry.value.items():
            yield from _leaves(item, (*keys, key))
    elif entry.value is not None:
        yield keys, entry
