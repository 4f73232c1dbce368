"""The hooks that a plugin may implement, and finding, loading and judging plugins.

A plugin is a module (or a package) named by an entry point of the group ``recon_toolkit``, or a single file given
with ``--plugin``. In its ``pyproject.toml``::

    [project.entry-points.recon_toolkit]
    my-plugin = "my_plugin"
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeVar

import pluggy

from recon_toolkit.components import (
    KINDS,
    MARKER,
    Component,
    NewKind,
    PluginFailure,
    Registered,
    Registry,
    describe,
    is_fault,
)
from recon_toolkit.errors import PluginError, suggestion

#: Entry-point group, and pluggy's project name.
PROJECT = "recon_toolkit"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def recon_components() -> Iterable[Component]:
    """Yield the components that the plugin contributes.

    A target written ``"module:Name"`` is imported when a pipeline first uses it; so listing plugins stays quick.

    >>> from recon_toolkit import Component, hookimpl
    >>> @hookimpl
    ... def recon_components():
    ...     yield Component("loss", "my-edges", "my_plugin.losses:edges", "difference of the edges")
    >>> next(recon_components()).name
    'my-edges'
    """
    raise NotImplementedError  # a specification; pluggy never calls it


@hookspec
def recon_kinds() -> Iterable[NewKind]:
    """Yield kinds of components that the plugin declares, for its own components and for those of others.

    What uses them asks ``load_plugins().registry.get(kind, name)``, or ``resolve_component`` for one with its options.

    >>> from recon_toolkit import NewKind, hookimpl
    >>> @hookimpl
    ... def recon_kinds():
    ...     yield NewKind("baker", frozenset({"mesh"}), "makes a texture of a mesh")
    >>> next(recon_kinds()).name
    'baker'
    """
    raise NotImplementedError  # a specification; pluggy never calls it


@hookspec
def recon_pipelines() -> Iterable[Path]:
    """Yield folders that hold pipelines (``*.yaml``), which ``recon run --pipeline NAME`` then finds by file name.

    >>> from pathlib import Path
    >>> from recon_toolkit import hookimpl
    >>> @hookimpl
    ... def recon_pipelines():
    ...     yield Path("my_plugin") / "pipelines"
    >>> next(recon_pipelines()).name
    'pipelines'
    """
    raise NotImplementedError  # a specification; pluggy never calls it


@hookspec
def recon_models() -> Iterable[Path]:
    """Yield folders that hold trained models: ``NAME.safetensors`` from a run, and a model card ``NAME.md`` beside it.

    ``recon reconstruct --model NAME`` finds them by file name, and without it takes the only one there is.

    >>> from pathlib import Path
    >>> from recon_toolkit import hookimpl
    >>> @hookimpl
    ... def recon_models():
    ...     yield Path("my_plugin") / "models"
    >>> next(recon_models()).name
    'models'
    """
    raise NotImplementedError  # a specification; pluggy never calls it


class Provided(Protocol):
    """Something that a plugin contributes."""

    @property
    def provider(self) -> str: ...


P = TypeVar("P", bound=Provided)
DISABLE_VARIABLE = "RECON_DISABLE_PLUGINS"


@dataclass(frozen=True)
class Plugin:
    """A plugin in use.

    Args:
        name: the entry point's name, or the file's name with its ending.
        version: the distribution's version; None for a file.
        source: the distribution, or the path of the file.
        summary: the first line of the module's docstring.
        components: what it contributes.
        pipelines: its folders of pipelines.
        models: its folders of trained models.
        kinds: kinds of components that it declares.
    """

    name: str
    version: str | None
    source: str
    summary: str
    components: tuple[Component, ...]
    pipelines: tuple[Path, ...]
    models: tuple[Path, ...] = ()
    kinds: tuple[NewKind, ...] = ()

    @property
    def own(self) -> bool:
        """Whether it comes with the toolkit itself."""
        return self.source.startswith("recon-toolkit ")


@dataclass(frozen=True)
class PluginHost:
    """The plugins of one process step: loaded ones, broken ones, and the registry of what they provide."""

    plugins: tuple[Plugin, ...]
    failures: tuple[PluginFailure, ...]
    registry: Registry
    files: tuple[Path, ...]
    disabled: frozenset[str]
    entry_points: tuple[EntryPoint, ...]

    def with_files(self, files: Sequence[Path]) -> PluginHost:
        """A host with further plugin files; the same one if all of them are loaded already."""
        known = {path.resolve() for path in self.files}
        if all(path.resolve() in known for path in files):
            return self
        return _load([*self.files, *files], self.disabled, self.entry_points)

    def pipeline_folders(self) -> list[tuple[str, Path]]:
        """(provider, folder) for every folder of pipelines that a plugin contributes."""
        return [(plugin.name, folder) for plugin in self.plugins for folder in plugin.pipelines]

    def default_of(self, choices: Sequence[P]) -> P | None:
        """What to take where nothing is named: the only one, or the only one that comes with the toolkit itself."""
        own = {plugin.name for plugin in self.plugins if plugin.own}
        for found in (choices, [choice for choice in choices if choice.provider in own]):
            if len(found) == 1:
                return found[0]
        return None

    def model_folders(self) -> list[tuple[str, Path]]:
        """(provider, folder) for every folder of trained models that a plugin contributes."""
        return [(plugin.name, folder) for plugin in self.plugins for folder in plugin.models]


@dataclass(frozen=True)
class _Candidate:
    """Something that may turn out to be a plugin."""

    name: str
    version: str | None
    source: str
    target: EntryPoint | Path

    def load(self) -> Any:
        return load_file(self.target) if isinstance(self.target, Path) else self.target.load()


def load_plugins(
    files: Sequence[Path] = (),
    disabled: Collection[str] = (),
    entry_points: Iterable[EntryPoint] | None = None,
) -> PluginHost:
    """Load installed plugins and plugin files into a fresh host.

    Args:
        files: Python files (or package folders) to load as plugins besides the installed ones.
        disabled: names of plugins to leave out; the environment variable RECON_DISABLE_PLUGINS adds to it.
        entry_points: what is installed; the entry points of the group ``recon_toolkit`` by default.

    Raises:
        PluginError: ``disabled`` names a plugin that is not there. (A broken plugin raises nothing: see
            :attr:`PluginHost.failures`.)
    """
    if entry_points is None:
        from importlib.metadata import entry_points as installed

        entry_points = installed(group=PROJECT)
    points = tuple(entry_points)
    known = {point.name for point in points} | {path.name for path in files}
    for name in sorted(set(disabled) - known):
        raise PluginError(f"there is no plugin '{name}' to leave out", remedy=suggestion(name, known))
    from_environment = {name.strip() for name in os.environ.get(DISABLE_VARIABLE, "").split(",")} - {""}
    return _load(files, frozenset(disabled) | from_environment, points)


def _load(files: Sequence[Path], disabled: frozenset[str], points: tuple[EntryPoint, ...]) -> PluginHost:
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(sys.modules[__name__])
    plugins: list[Plugin] = []
    candidates, failures = _candidates(files, disabled, points)
    for candidate in candidates:
        try:
            plugins.append(_use(manager, candidate))
        except BaseException as error:  # whatever a plugin does, the others still load
            if not is_fault(error):
                raise
            failures.append(
                PluginFailure(
                    candidate.name,
                    candidate.source,
                    error.message if isinstance(error, PluginError) else describe(error),
                    "".join(traceback.format_exception(error)),
                    requested=isinstance(candidate.target, Path),
                )
            )
    kinds = {kind.name: kind for plugin in plugins for kind in plugin.kinds}
    for plugin in list(plugins):  # any other may declare its kinds, so all have to be known
        strange = next((part for part in plugin.components if part.kind not in {*KINDS, *kinds}), None)
        if strange is not None:
            plugins.remove(plugin)
            cause = f"'{strange.name}' is of kind '{strange.kind}' ({suggestion(strange.kind, [*KINDS, *kinds])})"
            requested = any(path.name == plugin.name or str(path.resolve()) == plugin.name for path in files)
            failures.append(PluginFailure(plugin.name, plugin.source, cause, requested=requested))
    components = [
        Registered(part, plugin.name, kinds[part.kind].supplied if part.kind in kinds else frozenset())
        for plugin in plugins
        for part in plugin.components
    ]
    return PluginHost(tuple(plugins), tuple(failures), Registry(components, failures), tuple(files), disabled, points)


def _candidates(
    files: Sequence[Path], disabled: frozenset[str], points: Iterable[EntryPoint]
) -> tuple[list[_Candidate], list[PluginFailure]]:
    """What to try, in a fixed order, and the entry points whose name is claimed twice."""
    by_name: dict[str, list[_Candidate]] = {}
    for point in points:
        dist = point.dist
        source = f"{dist.name} {dist.version}" if dist else point.value
        candidate = _Candidate(point.name, dist.version if dist else None, source, point)
        by_name.setdefault(point.name, []).append(candidate)
    candidates: list[_Candidate] = []
    failures: list[PluginFailure] = []
    for name in sorted(by_name.keys() - disabled):
        claims = by_name[name]
        if len(claims) == 1:
            candidates.append(claims[0])
        else:
            sources = " and ".join(sorted(claim.source for claim in claims))
            failures.append(PluginFailure(name, sources, f"the name is claimed by {sources}; uninstall one of them"))
    taken: set[str] = set()
    for path in dict.fromkeys(path.resolve() for path in files):
        if path.name in disabled:
            continue
        name = str(path) if path.name in taken else path.name
        taken.add(name)
        candidates.append(_Candidate(name, None, str(path), path))
    return candidates, failures


def _use(manager: pluggy.PluginManager, candidate: _Candidate) -> Plugin:
    """Load, register and question one plugin; it stays registered only if all of that went well."""
    target = candidate.load()
    manager.register(target, name=candidate.name)
    try:
        _refuse_unknown_hooks(manager, target)
        marked = list(_marked(target)) if isinstance(target, ModuleType) else []
        if not marked and not manager.get_hookcallers(target):
            raise PluginError("it contributes nothing: no hook (@hookimpl) and no decorated component (@loss ...)")
        components = [*_answers(manager, target, "recon_components"), *marked]
        folders = tuple(Path(folder) for folder in _answers(manager, target, "recon_pipelines"))
        models = tuple(Path(folder) for folder in _answers(manager, target, "recon_models"))
        kinds = tuple(_kinds(_answers(manager, target, "recon_kinds")))
        return Plugin(
            candidate.name,
            candidate.version,
            candidate.source,
            (getattr(target, "__doc__", None) or "").strip().partition("\n")[0],
            tuple(_checked(components)),
            folders,
            models,
            kinds,
        )
    except BaseException:
        manager.unregister(target)
        raise


def load_file(path: Path) -> ModuleType:
    """Run a Python file, or a folder with an ``__init__.py``, as a module under a name of its own.

    Raises:
        PluginError: there is no such file. Whatever the file itself raises passes through.
    """
    source = path / "__init__.py" if path.is_dir() else path
    if not source.is_file():
        raise PluginError("there is no such file", where=str(path))
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    name = f"recon_plugin_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(
        name, source, submodule_search_locations=[str(path)] if path.is_dir() else None
    )
    if spec is None or spec.loader is None:
        raise PluginError("it is not a Python file (its name ends in .py)", where=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and type hints look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _refuse_unknown_hooks(manager: pluggy.PluginManager, plugin: object) -> None:
    """pluggy takes a misspelt hook without a word until ``check_pending``, which does not go on to the next plugin."""
    known = [name for name in globals() if name.startswith("recon_")]
    for caller in manager.get_hookcallers(plugin) or []:
        if not caller.has_spec():
            raise PluginError(f"there is no hook '{caller.name}' ({suggestion(caller.name, known)})")
    if isinstance(plugin, ModuleType):
        for name, value in vars(plugin).items():
            if name in known and callable(value) and not hasattr(value, f"{PROJECT}_impl"):
                raise PluginError(f"its function '{name}' lacks the decorator @hookimpl")


def _answers(manager: pluggy.PluginManager, plugin: object, hook: str) -> Iterator[Any]:
    """What one plugin answers to one hook; a generator runs here, inside the caller's guard."""
    others = [other for other in manager.get_plugins() if other is not plugin]
    for answer in manager.subset_hook_caller(hook, remove_plugins=others)():
        if isinstance(answer, str) or not isinstance(answer, Iterable):
            raise PluginError(f"{hook}() returned {type(answer).__name__}, not an iterable; write 'yield'")
        yield from answer


def _marked(module: ModuleType) -> Iterator[Component]:
    """Decorated classes and functions that the module itself defines, not those it imports from elsewhere."""
    for value in vars(module).values():
        own = getattr(value, "__module__", "")
        if not callable(value) or not isinstance(own, str) or not f"{own}.".startswith(f"{module.__name__}."):
            continue
        component = getattr(value, MARKER, None)
        if isinstance(component, Component) and component.target is value:
            yield component


def _kinds(declared: Iterable[object]) -> Iterator[NewKind]:
    for kind in declared:
        if not isinstance(kind, NewKind):
            raise PluginError(f"it declares {kind!r:.80}, which is no NewKind")
        if kind.name in KINDS:
            raise PluginError(f"it declares the kind '{kind.name}', which is the toolkit's")
        yield kind


def _checked(components: Iterable[object]) -> Iterator[Component]:
    seen: dict[tuple[str, str], Component] = {}
    for component in components:
        if not isinstance(component, Component):
            raise PluginError(f"it contributes {component!r:.80}, which is no Component")
        if not component.name or any(letter.isspace() or letter == ":" for letter in component.name):
            raise PluginError(f"'{component.name}' is no name for a component: use letters, digits and hyphens")
        key = (component.kind, component.name)
        if key not in seen:
            yield seen.setdefault(key, component)
        elif seen[key] != component:
            raise PluginError(f"it contributes the {component.kind} '{component.name}' twice")
