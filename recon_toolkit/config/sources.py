"""Where pipelines are found, how a file joins those that it extends, and whose a stored one is."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import recon_toolkit
from recon_toolkit.config.document import Entry, Place, merge, parse_override, read, shown
from recon_toolkit.errors import ConfigError, ReconError, suggestion
from recon_toolkit.files import config_root
from recon_toolkit.plugins import PluginHost

#: A run's own record of its pipeline, and the file that seals it.
PIPELINE, SEAL = "pipeline.yaml", "pipeline.seal"
#: What a run folder has beside it, by which it is told from a pipeline that somebody wrote.
_BESIDE = ("environment.json", "checkpoints", "model.safetensors", "metrics.jsonl", SEAL)
#: What it may name besides plugins.
FILES = "files that were not read"
REMEDY = "if you know what it does, name it yourself with --plugin FILE, or let in all that is named with --trust"


def is_stored(path: Path) -> bool:
    """Whether a pipeline file is the record of a run."""
    return path.name == PIPELINE and any((path.parent / name).exists() for name in _BESIDE)


def seal(run: Path) -> None:
    """Mark the pipeline of a run as this user's own; without a place for the key, nothing is marked."""
    key = _key(make=True)
    if key is not None:
        (run / SEAL).write_text(_code(key, run / PIPELINE) + "\n", encoding="ascii")


def is_sealed(path: Path) -> bool:
    """Whether a stored pipeline is as a run of this user wrote it."""
    key = _key(make=False)
    try:
        found = path.with_name(SEAL).read_bytes()[:200].decode("ascii", "replace").strip()
        return key is not None and hmac.compare_digest(found.encode(), _code(key, path).encode())
    except OSError:
        return False


def refuse(files: Sequence[Path], source: str, what: str = "plugin files, which are programs and were not run") -> None:
    """Raise ConfigError if there are files that a stored pipeline names and nobody let in."""
    if files:
        named = ", ".join(str(file) for file in files)
        raise ConfigError([ReconError(f"it names {what}: {named}", where=source, remedy=REMEDY)])


def _code(key: bytes, path: Path) -> str:
    return hmac.new(key, path.read_bytes(), hashlib.sha256).hexdigest()


def _key(make: bool) -> bytes | None:
    """This user's key, made at the first run; None if there is none and none can be kept."""
    folder = config_root()
    if folder is None:
        return None
    path = folder / "run-key"
    try:
        if not path.is_file():
            if not make:
                return None
            path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(secrets.token_bytes(32))
        key = path.read_bytes()
        return key if len(key) == 32 else None
    except OSError:  # a home that cannot be written to
        return None


SUFFIXES = (".yaml", ".yml")
#: The provider that listings give for the pipelines of the toolkit itself.
BUILT_IN = "recon-toolkit"


@dataclass(frozen=True)
class PipelineSource:
    """An installed pipeline: its name, who provides it, and its file."""

    name: str
    provider: str
    path: Path

    @property
    def description(self) -> str:
        """What the file says of itself, or why it cannot be read."""
        try:
            text = read(self.path)[0].mapping.get("description")
        except ConfigError as error:
            return f"cannot be used: {error}"
        return str(text.value) if text is not None else ""


@dataclass(frozen=True)
class Document:
    """A pipeline's tree with everything it inherits and every override.

    Args:
        tree: the joined tree, without ``extends`` and ``plugins``.
        plugins: the plugin files it names, absolute, each with its place.
        problems: what was wrong on the way; the tree is as good as it can be.
        whole: every file that is extended could be read.
        foreign: the plugin files that a stored pipeline of somebody else names.
        trusted: whether all of it is the user's own, or let in.
    """

    tree: Entry
    plugins: tuple[tuple[Path, Place], ...]
    problems: tuple[ReconError, ...]
    whole: bool
    foreign: tuple[Path, ...]
    trusted: bool


@dataclass
class _Gathered:
    """What is gathered on the way through files that extend one another, besides their trees.

    Args:
        host, trust: as for :func:`gather`.
        plugins, foreign: the plugin files of the user's own files, and of other people's.
        problems: what was wrong.
        gaps: the files whose ``extends`` leads nowhere.
        strangers: the files that are somebody else's.
    """

    host: PluginHost
    trust: bool | None
    plugins: dict[Path, Place] = field(default_factory=dict)
    foreign: dict[Path, Place] = field(default_factory=dict)
    problems: list[ReconError] = field(default_factory=list)
    gaps: list[Path] = field(default_factory=list)
    strangers: list[Path] = field(default_factory=list)


def builtin_config_dir() -> Path:
    """The folder of the toolkit's own pipelines: in the package when installed, at the top of a checkout."""
    package = Path(recon_toolkit.__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def preferred_providers(file: Path | None, host: PluginHost) -> tuple[frozenset[str], ...]:
    """The plugins that a shipped pipeline means where several have a component of a name; none for a user's file.

    One in a plugin's folder means that plugin's, or else the toolkit's; one of the toolkit's means the toolkit's.
    """
    if file is None:
        return ()
    path, own = file.resolve(), own_providers(host)
    for name, folder in host.pipeline_folders():
        if path.is_relative_to(folder.resolve()):
            return frozenset({name}), own
    return (own,) if path.is_relative_to(builtin_config_dir().resolve()) else ()


def own_providers(host: PluginHost) -> frozenset[str]:
    """The names of the plugins that come with the toolkit."""
    return frozenset(plugin.name for plugin in host.plugins if plugin.own)


def list_pipelines(host: PluginHost, below: str = "") -> list[PipelineSource]:
    """Every installed pipeline, by name; with ``below``, the files of that folder inside the folders of pipelines."""
    folders = [(BUILT_IN, builtin_config_dir()), *host.pipeline_folders()]
    found = [
        PipelineSource(path.stem, provider, path)
        for provider, folder in ((provider, folder / below) for provider, folder in folders)
        if folder.is_dir()
        for path in folder.iterdir()
        if path.suffix in SUFFIXES and path.is_file()
    ]
    return sorted(found, key=lambda source: (source.name, source.provider))


def list_tables(host: PluginHost) -> list[PipelineSource]:
    """Every installed table of `recon bench`, by name: folders of pipelines hold them in ``tables/``."""
    return list_pipelines(host, "tables")


def find_table(name: str, host: PluginHost) -> Path:
    """The file of a table; name and errors as for :func:`find_pipeline`."""
    return _find(name, "table", list_tables(host), None, None)


def find_pipeline(name: str, host: PluginHost, *, base: Path | None = None, where: Place | None = None) -> Path:
    """The file of a pipeline.

    Args:
        name: an installed name, ``provider:name``, or a path (it has a ``/`` or ends in ``.yaml``).
        host: provides the plugins' pipelines.
        base: folder of relative paths; the working folder by default.
        where: the place that names it, for the message.

    Raises:
        ConfigError: there is none, or several.
    """
    return _find(name, "pipeline", list_pipelines(host), base, where)


def _find(name: str, what: str, sources: Sequence[PipelineSource], base: Path | None, where: Place | None) -> Path:
    at = str(where) if where is not None else None
    names = {source.name for source in sources}
    if "/" in name or "\\" in name or name.endswith(SUFFIXES):
        path = (base or Path.cwd()) / Path(name).expanduser()
        if path.is_file():
            return path.resolve()
        stem = Path(name).stem
        hint = f"the installed one is called '{stem}'" if stem in names else f"looked in {shown(path.parent)}"
        raise ConfigError([ReconError(f"there is no file '{name}'", where=at, remedy=hint)])
    provider, _, plain = name.rpartition(":")
    found = [source for source in sources if source.name == plain and provider in ("", source.provider)]
    if len(found) == 1:
        return found[0].path.resolve()
    if found:
        remedy = "write " + " or ".join(f"'{source.provider}:{source.name}'" for source in found)
        raise ConfigError([ReconError(f"several plugins provide a {what} '{name}'", where=at, remedy=remedy)])
    remedy = suggestion(plain, names) + "; a path ends in .yaml"
    raise ConfigError([ReconError(f"there is no {what} '{name}'", where=at, remedy=remedy)])


def gather(
    path: Path,
    overrides: Sequence[str],
    host: PluginHost,
    layers: Sequence[Entry] = (),
    *,
    trust: bool | None = None,
) -> Document:
    """Read a pipeline file, what it extends, further layers, and the overrides, and join them.

    ``trust`` is given for stored pipelines, and is whether files that they name are let in; where it is not, files are
    the user's own but for the records of runs without a seal.

    Raises:
        ConfigError: the file itself cannot be read at all.
    """
    way = _Gathered(host, trust)
    tree, problems = _chain(path, (), way), way.problems
    for layer in layers:
        tree, found = merge(tree, layer)
        problems += found
    for override in overrides:
        try:
            over, found = parse_override(override)
        except ConfigError as error:
            problems += error.problems
            continue
        problems += found
        if "extends" in over.mapping:
            problems.append(ReconError("'extends' can only stand in a file", where=str(over.mapping["extends"].place)))
            over.mapping.pop("extends")
        _take_plugins(over, Path.cwd(), way.plugins, problems)
        tree, found = merge(tree, over)
        problems += found
    trusted = bool(trust) or not way.strangers
    plugins = way.plugins | way.foreign if trust else way.plugins
    return Document(tree, tuple(plugins.items()), tuple(problems), not way.gaps, tuple(way.foreign), trusted)


def _chain(path: Path, below: tuple[Path, ...], way: _Gathered) -> Entry:
    """The file at ``path`` laid over what it extends; ``below`` are the files that extend it. Fills ``way``."""
    tree, found = read(path)
    way.problems += found
    stored = is_stored(path)
    own = is_sealed(path) if stored else way.trust is None
    if not own:
        way.strangers.append(path)
    _take_plugins(tree, path.parent, way.plugins if own else way.foreign, way.problems)
    extends = tree.mapping.pop("extends", None)
    if (stored or way.trust is not None) and extends is not None and extends.value is not None:
        message = f"a stored pipeline is whole and extends nothing: {extends.value!r} was not read"
        remedy = "remove the line, or start from a pipeline of your own"
        raise ConfigError([ReconError(message, where=str(extends.place), remedy=remedy)])
    if extends is None or extends.value is None:
        # Nothing lies below, so a null here takes away nothing.
        joined, found = merge(Entry({}, tree.place), tree)
        way.problems += found
        return joined
    where = extends.place
    try:
        if not isinstance(extends.value, str):
            raise ConfigError([ReconError("'extends' is the name or the path of one pipeline", where=str(where))])
        parent = find_pipeline(extends.value, way.host, base=path.parent, where=where)
        if parent in (*below, path):
            circle = " -> ".join(shown(each) for each in (*below, path, parent))
            raise ConfigError([ReconError(f"'extends' goes in a circle: {circle}", where=str(where))])
        base = _chain(parent, (*below, path), way)
    except ConfigError as error:
        way.problems += error.problems
        way.gaps.append(path)
        return tree
    base.mapping.pop("description", None)  # it describes the parent
    joined, found = merge(base, tree)
    way.problems += found
    return joined


def _take_plugins(tree: Entry, folder: Path, plugins: dict[Path, Place], problems: list[ReconError]) -> None:
    """Move the plugin files out of a tree: they add up along ``extends``, and their paths belong to their file."""
    entry = tree.mapping.pop("plugins", None)
    if entry is None or entry.value is None:
        return
    items = entry.value if isinstance(entry.value, list) else [entry]
    for item in items:
        if isinstance(item.value, str):
            plugins.setdefault((folder / Path(item.value).expanduser()).resolve(), item.place)
        else:
            problems.append(ReconError("'plugins' is a list of Python files", where=str(item.place)))
