"""YAML as a tree that remembers where every key stands, and laying one tree over another."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from recon_toolkit.errors import ConfigError, DataError, ReconError, suggestion
from recon_toolkit.files import size_of

Scalar: TypeAlias = str | int | float | bool | None
Keys: TypeAlias = tuple[str | int, ...]

#: More nodes than this can only come from aliases that refer to each other, which could fill the memory. Pipelines and
#: tables have some hundreds.
MOST_NODES = 20_000
#: Nothing that people write is as long (in characters), or as deep.
MOST_CHARACTERS, MOST_LEVELS = 1_000_000, 100
#: Digits of a number that are read; the largest whole number that torch and NumPy take has 20.
_MOST_DIGITS = 400
#: More problems than this at once help nobody; the rest is counted.
MOST_PROBLEMS = 50


@dataclass(frozen=True)
class Place:
    """Where something was written: a line of a file, or an option of the command line."""

    file: Path | None
    line: int = 0
    option: str = ""

    def __str__(self) -> str:
        if self.file is None:
            return self.option
        return f"{shown(self.file)}:{self.line}" if self.line else shown(self.file)


@dataclass(frozen=True)
class Entry:
    """A value and the place of its key (of itself, for the item of a list)."""

    value: Scalar | list[Entry] | dict[str, Entry]
    place: Place

    @property
    def mapping(self) -> dict[str, Entry]:
        """The entries of a mapping; nothing if the value is something else."""
        return self.value if isinstance(self.value, dict) else {}

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: entry.plain() for key, entry in self.value.items()}
        if isinstance(self.value, list):
            return [entry.plain() for entry in self.value]
        return self.value

    def place_of(self, keys: Keys) -> Place:
        """The place of the entry at ``keys``, or of the nearest one above it."""
        entry = self
        for key in keys:
            if isinstance(entry.value, dict) and key in entry.value:
                entry = entry.value[str(key)]
            elif isinstance(entry.value, list) and isinstance(key, int) and key < len(entry.value):
                entry = entry.value[key]
            else:
                break
        return entry.place


def shown(path: Path) -> str:
    """A path as a message shows it: relative to the working folder where it lies below that."""
    try:
        return str(Path(os.path.realpath(path)).relative_to(Path.cwd()))  # Path.resolve fails on links in a circle
    except (ValueError, OSError):
        return str(path)


class _Loader(yaml.SafeLoader):
    """Only scans and composes; :class:`_Reader` gives scalars their type."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  pyyaml declares it so
    _levels = _composed = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As pyyaml composes, which recurses, but to a limit; raises ComposerError beyond it."""
        self._levels, self._composed = self._levels + 1, self._composed + 1
        if self._levels > MOST_LEVELS or self._composed > MOST_NODES:
            problem = "it is nested too deeply" if self._levels > MOST_LEVELS else "it has too many entries"
            raise yaml.composer.ComposerError(None, None, problem, self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        node: yaml.Node | None = super().compose_node(parent, index)
        self._levels -= 1
        return node


_TAG = "tag:yaml.org,2002:"
_PATTERNS = (
    ("null", re.compile(r"~|null|Null|NULL|")),
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE")),
    ("int", re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")),
    ("float", re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")),
)


def parse_scalar(text: str) -> Scalar:
    """An unquoted YAML scalar as null, a boolean, a number or a word. A number of absurdly many digits is infinite."""
    kind = next((kind for kind, pattern in _PATTERNS if pattern.fullmatch(text)), "str")
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind in ("int", "float") and len(text) > _MOST_DIGITS:  # Python reads no whole number of more than some
        return math.inf
    if kind == "int":
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if kind == "float":
        word = text.lower().lstrip("+-")
        if word == ".nan":
            return math.nan
        return float(text.replace(".", "", 1)) if word == ".inf" else float(text)
    return text


class _Reader:
    """Turns composed nodes into entries and collects the problems on the way."""

    def __init__(self, place: Place) -> None:
        self.base = place
        self.problems: list[ReconError] = []
        self._nodes = self.more = 0
        self._above: list[yaml.Node] = []

    def place(self, node: yaml.Node) -> Place:
        if self.base.file is None:
            return self.base
        return Place(self.base.file, node.start_mark.line + 1)

    def problem(self, node: yaml.Node, message: str, remedy: str | None = None) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(ReconError(message, where=str(self.place(node)), remedy=remedy))
        else:
            self.more += 1

    def entry(self, node: yaml.Node, place: Place) -> Entry:
        self._nodes += 1
        if len(self._above) > MOST_LEVELS:
            raise ReconError("it is nested too deeply", where=str(self.place(node)))
        if self._nodes > MOST_NODES or any(node is above for above in self._above):
            raise ReconError("the aliases refer to themselves or multiply without end", where=str(self.place(node)))
        self._above.append(node)
        try:
            return Entry(self._value(node), place)
        finally:
            self._above.pop()

    def _value(self, node: yaml.Node) -> Scalar | list[Entry] | dict[str, Entry]:
        if isinstance(node, yaml.MappingNode):
            self._refuse_tag(node, "map")
            return self._mapping(node)
        if isinstance(node, yaml.SequenceNode):
            self._refuse_tag(node, "seq")
            return [self.entry(item, self.place(item)) for item in node.value]
        assert isinstance(node, yaml.ScalarNode)
        self._refuse_tag(node, "str")
        if node.style is not None:
            return str(node.value)
        value = parse_scalar(node.value)
        long = isinstance(value, float) and len(node.value) > _MOST_DIGITS
        if long or (isinstance(value, int) and not -(2**63) <= value < 2**64):
            said = f"this number of {len(node.value):,} digits is not read: it is beyond 64 bits"
            self.problem(node, said, "quote it if it is a word")
            return None
        return value

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or not key_node.value:
                self.problem(key_node, "a key must be a word")
                continue
            key = str(key_node.value)
            if key == "<<":
                self.problem(key_node, "'<<' is not supported", "use 'extends'")
            elif key in entries:
                self.problem(key_node, f"'{key}' is given twice", f"first at {entries[key].place}")
            else:
                entries[key] = self.entry(value_node, self.place(key_node))
        return entries

    def _refuse_tag(self, node: yaml.Node, expected: str) -> None:
        if node.tag != _TAG + expected:
            tag = node.tag.replace(_TAG, "!!")
            self.problem(node, f"the tag '{tag}' is not supported", "write the value without it")


def parse(text: str, place: Place) -> tuple[Entry, list[ReconError]]:
    """Read YAML text.

    Args:
        text: one document.
        place: the file it is from (its line is not used), or the option.

    Returns:
        The tree (whose own place is ``place``), and every problem that does not hinder reading on.

    Raises:
        ConfigError: the text is not YAML, or longer or deeper than :data:`MOST_CHARACTERS` and :data:`MOST_LEVELS`.
    """
    if len(text) > MOST_CHARACTERS:
        raise ConfigError([_too_large(place, len(text))])
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Place(place.file, mark.line + 1) if place.file is not None and mark is not None else place
        problem = error.problem or error.context or "the text ends too early"
        raise ConfigError([ReconError(f"this is not valid YAML: {problem}", where=str(where))]) from error
    except yaml.YAMLError as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError([ReconError(f"this is not valid YAML: {reason}", where=str(place))]) from error
    if node is None:
        return Entry(None, place), []
    reader = _Reader(place)
    try:
        entry = reader.entry(node, place)
    except ReconError as error:
        raise ConfigError([*reader.problems, error]) from error
    if reader.more:
        reader.problems.append(ReconError(f"and {reader.more} more", remedy="fix these first"))
    return entry, reader.problems


def _too_large(place: Place, size: int) -> ReconError:
    message = f"this is too large for a pipeline: {size:,} bytes, and {MOST_CHARACTERS:,} characters are read at most"
    return ReconError(message, where=str(place), remedy="name a pipeline file")


def read(path: Path) -> tuple[Entry, list[ReconError]]:
    """Read a YAML file whose top level is a mapping; an empty file is an empty mapping.

    Raises:
        ConfigError: the file cannot be read, is too large, is not text, not YAML, or no mapping.
    """
    place = Place(path)
    try:
        size = size_of(path)
        if size > 4 * MOST_CHARACTERS:  # bytes of UTF-8
            raise ConfigError([_too_large(place, size)])
        text = path.read_text(encoding="utf-8")
    except DataError as error:  # a pipe or a device
        raise ConfigError([error]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([ReconError("this is not a text file in UTF-8", where=str(place))]) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError([ReconError(f"cannot be read: {reason}", where=str(place))]) from error
    tree, problems = parse(text, place)
    if tree.value is None:
        return Entry({}, place), problems
    if not isinstance(tree.value, dict):
        raise ConfigError([ReconError("the file is no mapping of keys to values", where=str(place))])
    return tree, problems


def parse_override(text: str) -> tuple[Entry, list[ReconError]]:
    """``a.b.c=value`` as a tree, the value read as YAML.

    Raises:
        ConfigError: there is no ``=`` or no key, or the value is not YAML.
    """
    path, separator, value = text.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys) or len(keys) > MOST_LEVELS:
        problem = ReconError("an override is written a.b.c=value", where=f"--set {text}")
        raise ConfigError([problem])
    place = Place(None, option=f"--set {path.strip()}")
    entry, problems = parse(value, place)
    for key in reversed(keys):
        entry = Entry({key: entry}, place)
    return entry, problems


#: Sections whose entries have names of the user's choice, where null takes one out. A null further down is a value.
NAMED_SECTIONS = ("encoders", "losses", "metrics", "callbacks")
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
