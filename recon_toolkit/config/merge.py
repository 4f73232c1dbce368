"""Laying one configuration tree over another: ``extends`` and ``--set`` share these rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from recon_toolkit.config.document import MOST_PROBLEMS, Entry
from recon_toolkit.errors import ReconError
from recon_toolkit.nearest import suggestion

#: Sections whose entries have names of the user's choice, where null takes one out. A null further down is a value.
NAMED_SECTIONS = ("encoders", "losses", "metrics")
#: Keys of ``training`` of which only one can hold: setting one drops the inherited others.
EXCLUSIVE = {"steps", "epochs", "minutes"}


def merge(base: Entry, over: Entry) -> tuple[Entry, list[ReconError]]:
    """Lay one tree over another.

    Mappings merge key by key, with three exceptions. A mapping whose ``name`` differs from the one below replaces it
    whole, so that options of another component do not leak. A null takes away a top-level key, a loss or an encoder.
    Setting one of ``training.steps``, ``epochs`` and ``minutes`` drops the inherited others.

    Returns:
        The joined tree, and a problem for every null that takes away no loss or encoder. (A top-level null with
        nothing below it stays, for the schema to judge.)
    """
    problems: list[ReconError] = []
    return _merged(base, over, (), problems), problems


def _merged(base: Entry, over: Entry, keys: tuple[str, ...], problems: list[ReconError]) -> Entry:
    if not isinstance(over.value, dict) or not isinstance(base.value, dict):
        return Entry(_without_nulls(over, keys, problems), over.place)
    named = over.value.get("name")
    if named is not None and "name" in base.value and named.value != base.value["name"].value:
        return over
    joined = dict(base.value)
    if keys == ("training",) and any(over.value[key].value is not None for key in over.value.keys() & EXCLUSIVE):
        for key in EXCLUSIVE - over.value.keys():
            joined.pop(key, None)
    for key, entry in over.value.items():
        if entry.value is None and not keys and key in joined:
            del joined[key]
        elif entry.value is None and _named(keys):
            if joined.pop(key, None) is None:
                known = base.value if len(problems) < MOST_PROBLEMS else ()
                problems.append(_removes_nothing(entry, (*keys, key), known))
        elif key in joined:
            joined[key] = _merged(joined[key], entry, (*keys, key), problems)
        else:
            joined[key] = Entry(_without_nulls(entry, (*keys, key), problems), entry.place)
    return Entry(joined, base.place)


def _without_nulls(entry: Entry, keys: tuple[str, ...], problems: list[ReconError]) -> Any:
    """The value of an entry with nothing below it to take away from."""
    if not isinstance(entry.value, dict) or not _named(keys):
        return entry.value
    for key, item in entry.value.items():
        if item.value is None:
            problems.append(_removes_nothing(item, (*keys, key), ()))
    return {key: item for key, item in entry.value.items() if item.value is not None}


def _named(keys: Sequence[str]) -> bool:
    return len(keys) == 1 and keys[0] in NAMED_SECTIONS


def _removes_nothing(entry: Entry, keys: Sequence[str], known: Iterable[str]) -> ReconError:
    return ReconError(
        f"there is no '{'.'.join(keys)}' to take away", where=str(entry.place), remedy=suggestion(keys[-1], known)
    )
