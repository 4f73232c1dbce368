"""pydantic's findings as messages with a place, the thing and the nearest known name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from recon_toolkit.config.document import MOST_PROBLEMS, Entry, Keys
from recon_toolkit.errors import ReconError
from recon_toolkit.nearest import suggestion


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
