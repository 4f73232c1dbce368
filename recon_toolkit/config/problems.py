"""What is wrong with a pipeline, as messages with a place, the thing and the nearest known name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from recon_toolkit.components import Kind
from recon_toolkit.config.document import MOST_PROBLEMS, Entry, Keys, shown
from recon_toolkit.errors import ReconError, suggestion


class Problem(ReconError):
    """What is wrong with the entry at ``keys`` of a document, with its place.

    ``lack`` says that something is not there, which it might be if a file that is extended could be read. ``depends``
    are keys of other entries that decide whether it is wrong.
    """

    def __init__(
        self,
        message: str,
        tree: Entry,
        keys: Keys,
        *,
        remedy: str | None = None,
        lack: bool = False,
        depends: Sequence[Keys] = (),
    ) -> None:
        self.keys, self.lack, self.depends = keys, lack, tuple(depends)
        super().__init__(message, where=str(tree.place_of(keys)), remedy=remedy)


def first_of(problems: Sequence[ReconError], left_out: int = 0) -> list[ReconError]:
    """The first of many problems, and one more that counts the others, with those that were not even looked for."""
    kept, more = list(problems[:MOST_PROBLEMS]), len(problems[MOST_PROBLEMS:]) + left_out
    if more:
        kept.append(ReconError(f"and {more} more", remedy="fix these first"))
    return kept


def dotted(keys: Keys) -> str:
    """Keys as a user writes them: ``losses.flipped.weight``."""
    return ".".join(str(key) for key in keys)


def validation_problems(
    error: ValidationError,
    tree: Entry,
    prefix: Keys,
    known: Callable[[Keys], Collection[str]],
    owner: str | None = None,
) -> list[Problem]:
    """Every finding once, at the place of its key; of very many the first, and how many more there are.

    Args:
        error: pydantic's, for the value at ``prefix``.
        tree: the whole document.
        prefix: keys of the validated value.
        known: the names that would be right beside the unknown one at these keys.
        owner: what the options belong to, e.g. ``encoder 'conv'``; None for the pipeline itself.
    """
    found: dict[tuple[Keys, str], Problem] = {}
    expected: dict[Keys, list[str]] = {}
    findings = error.errors(include_url=False, include_input=False)
    for seen, finding in enumerate(findings):
        if len(found) >= MOST_PROBLEMS:
            text = f"and {len(findings) - seen} more"
            found[(), "more"] = Problem(text, tree, (), remedy="fix these first")
            break
        keys = (*prefix, *_written(tree, prefix, finding["loc"], finding["type"]))
        kind, message = finding["type"], str(finding["msg"])
        if kind == "extra_forbidden":
            text = f"{owner} has no option '{keys[-1]}'" if owner else f"there is no key '{dotted(keys)}'"
            remedy = suggestion(str(keys[-1]), known(keys))
            found[keys, kind] = Problem(text, tree, keys, remedy=remedy)
        elif kind == "missing":
            text = f"{owner} needs the option '{keys[-1]}'" if owner else f"'{dotted(keys)}' is missing"
            found[keys, kind] = Problem(text, tree, keys, lack=True)
        elif kind == "value_error":
            at = f"'{dotted(keys)}': " if keys else ""
            text = message.removeprefix("Value error, ")
            named = [(word,) for word in re.findall(r"'(\w+)'", text)] if not keys else []
            found[keys, kind] = Problem(at + text, tree, keys, lack=True, depends=named)
        else:  # of a union, every branch reports; they are joined into one sentence
            wishes = expected.setdefault(keys, [])
            wish = _wish(kind, message, finding.get("ctx", {}))
            if wish not in wishes:
                wishes.append(wish)
            value = _brief(_at(tree, keys).plain())
            found[keys, ""] = Problem(f"'{dotted(keys)}' should be {' or '.join(wishes)}, not {value}", tree, keys)
    # Of a union, a branch that got further down says more than one that stopped above.
    deepest = [keys for keys in expected if not any(keys == other[: len(keys)] for other in expected if other != keys)]
    return [problem for (keys, kind), problem in found.items() if kind or keys in deepest]


def _written(tree: Entry, prefix: Keys, location: Keys, kind: str) -> Keys:
    """The part of a location that stands in the document: pydantic mixes in the branches of a union."""
    entry: Any = _at(tree, prefix).value
    keys: list[str | int] = []
    for position, key in enumerate(location):
        if isinstance(entry, dict) and key in entry:
            entry = entry[str(key)].value
        elif isinstance(entry, list) and isinstance(key, int) and key < len(entry):
            entry = entry[key].value
        elif not (kind == "missing" and position == len(location) - 1):
            continue
        keys.append(key)
    return tuple(keys)


def _at(tree: Entry, keys: Keys) -> Entry:
    entry = tree
    for key in keys:
        if isinstance(entry.value, dict) and key in entry.value:
            entry = entry.value[str(key)]
        elif isinstance(entry.value, list) and isinstance(key, int):
            entry = entry.value[key]
    return entry


_WISHES = {
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
    "dataclass_type": "a mapping",
    "string_type": "a word",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "tuple_type": "a list",
    "path_type": "a path",
    "none_required": "null",
    "finite_number": "a finite number",
    "too_long": "a shorter list",
}


def _wish(kind: str, message: str, context: Mapping[str, Any]) -> str:
    if kind == "literal_error":
        return str(context["expected"])
    if kind in _WISHES:
        return _WISHES[kind]
    return message.removeprefix("Input should be ").removeprefix("a valid ")


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


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
        for leaf, entry in _leaves(_entry_at(tree, section), section):
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


def _entry_at(tree: Entry, keys: Keys) -> Entry:
    for key in keys:
        tree = tree.mapping.get(str(key), Entry(None, tree.place))
    return tree


def _leaves(entry: Entry, keys: Keys) -> Iterator[tuple[Keys, Entry]]:
    if isinstance(entry.value, dict):
        for key, item in entry.value.items():
            yield from _leaves(item, (*keys, key))
    elif entry.value is not None:
        yield keys, entry
