"""From a pipeline's name to everything a run needs to know, validated in one pass."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from recon_toolkit.components import Kind, Registered, describe, is_fault
from recon_toolkit.config.document import MOST_PROBLEMS, Entry, Keys, Place, merge, parse_override, parse_scalar
from recon_toolkit.config.problems import (
    Problem,
    causes_of,
    first_of,
    given_overrides,
    name_overrides,
    validation_problems,
)
from recon_toolkit.config.schema import Pipeline
from recon_toolkit.config.signatures import (
    Signature,
    absolute,
    check_pairs,
    check_roles,
    core_keys,
    plain_value,
    signature_of,
    validate_options,
)
from recon_toolkit.config.sources import (
    FILES,
    find_pipeline,
    gather,
    is_stored,
    own_providers,
    preferred_providers,
    refuse,
)
from recon_toolkit.errors import ConfigError, PluginError, ReconError, suggestion
from recon_toolkit.plugins import PluginHost, load_plugins
from recon_toolkit.progress import Progress

#: Keys that change neither the trained weights nor what they mean, so that a run can continue without them.
_NOT_IN_FINGERPRINT = ("name", "description", "plugins", "evaluation", "metrics", "callbacks")
_NOT_IN_TRAINING_FINGERPRINT = (
    "accelerator",
    "checkpoint_every",
    "keep_on_device",
    "log_every",
    "tensorboard",
    "validate_every",
    "validation_images",
)
#: The parts of a pipeline that decide which weights fit the model.
_WEIGHTS = ("model", "encoders", "image_size")


@dataclass(frozen=True)
class ResolvedComponent:
    """A component of a pipeline with every option, ready to be built.

    Args:
        entry: the component and its plugin.
        signature: what it takes.
        options: all options as the component's types ask, defaults included.
        place: where the pipeline names it.
        causes: settings laid over the pipeline that it, or what it is given, depends on.
    """

    entry: Registered
    signature: Signature
    options: Mapping[str, Any]
    place: Place
    causes: tuple[str, ...] = ()

    @property
    def who(self) -> str:
        """What messages call it."""
        return f"{self.entry.kind} '{self.entry.name}' of plugin '{self.entry.provider}'"

    @property
    def where(self) -> str:
        """What messages blame where it fails: what was laid over the pipeline, or the line that names it."""
        return ", ".join(self.causes) or str(self.place)

    @property
    def target(self) -> Callable[..., Any]:
        """The class or function."""
        return self.signature.target

    def build(self, **supplied: Any) -> Any:
        """Call the component with its options and those of the supplied arguments that it takes.

        Raises:
            PluginError: it raises; names component, plugin, cause and place. A ReconError of its own passes through.
        """
        wanted = {name: value for name, value in supplied.items() if name in self.signature.supplied}
        try:
            return self.target(**wanted, **self.options)
        except ReconError as error:
            if error.where is None and self.causes:
                error.where = self.where
            raise
        except BaseException as error:
            if not is_fault(error):
                raise
            raise PluginError(
                f"{self.who} cannot be built: {describe(error)}", where=self.where, remedy="check its options"
            ) from error


@dataclass(frozen=True)
class ResolvedPipeline:
    """A pipeline in which nothing is open.

    Args:
        name: as the pipeline says, or the file's name without its ending.
        source: the file.
        pipeline: the validated contents; component options are all present, as YAML holds them.
        components: by keys, e.g. ``("renderer",)`` or ``("losses", "flipped")``.
        encoder_shapes: (channels in, channels out) by role, for the encoders that the pipeline has.
        host: the plugins it was resolved with.
        trusted: whether the files that its options name may be read: it is the user's own, or was let in.
    """

    name: str
    source: Path
    pipeline: Pipeline
    components: Mapping[tuple[str, ...], ResolvedComponent]
    encoder_shapes: Mapping[str, tuple[int, int]]
    host: PluginHost
    trusted: bool = True

    def section(self, name: str) -> dict[str, ResolvedComponent]:
        """The components of ``encoders`` or ``losses`` by role or term."""
        return {keys[1]: part for keys, part in self.components.items() if len(keys) == 2 and keys[0] == name}

    def to_yaml(self) -> str:
        """The whole pipeline as YAML that needs no other pipeline; reading it gives the same fingerprint.

        Options whose default is an object that YAML cannot hold are left to their default.
        """
        document = self.pipeline.model_dump(mode="json")
        return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)

    def refuse_foreign_files(self, *sections: str) -> None:
        """Raise ConfigError if building the components of some sections would read files of a stranger's choice."""
        if not self.trusted:
            parts = [part for keys, part in self.components.items() if keys[0] in sections]
            named = [value for part in parts for value in part.options.values() if isinstance(value, Path)]
            refuse(named, str(self.source), FILES)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that are equal if two pipelines train to the same result.

        Folders do not count, only the last part of a path: data may move.
        """
        document = self._canonical()
        for key in _NOT_IN_FINGERPRINT:
            document.pop(key, None)
        for key in _NOT_IN_TRAINING_FINGERPRINT:
            document["training"].pop(key, None)
        return _digest(document)

    @property
    def weights_fingerprint(self) -> str:
        """16 hexadecimal digits that are equal if weights of the one fit the other."""
        document = self._canonical()
        return _digest({key: document[key] for key in _WEIGHTS})

    def _canonical(self) -> dict[str, Any]:
        document = self.pipeline.model_dump(mode="json")
        start = document["training"].pop("start_from")  # absent as it was before there was such a key
        if start is not None:
            document["training"]["start_from"] = Path(start).name
        for key in ("optimizer", "sampler"):  # likewise
            if document[key] is None:
                del document[key]
        own = own_providers(self.host)  # the toolkit's components are the same with another plugin's beside them
        for keys, part in self.components.items():
            section = document
            for key in keys:
                section = section[key]
            section["name"] = part.entry.name if part.entry.provider in own else self.host.registry.name_of(part.entry)
            for name in part.options.keys() & section.keys():
                section[name] = plain_value(part.options[name], lambda path: path.name)
        return document


class _Dumper(yaml.SafeDumper):
    """Quotes every word that our reader would take for something else, and writes short lists in one line."""


def _word(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(parse_scalar(text), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _list(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)


_Dumper.add_representer(str, _word)
_Dumper.add_representer(list, _list)


def _digest(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_pipeline(
    name_or_path: str | Path,
    overrides: Sequence[str] = (),
    host: PluginHost | None = None,
    *,
    layers: Sequence[Entry] = (),
    trust: bool | None = None,
    source: str = "",
    generated: bool = False,
) -> ResolvedPipeline:
    """Find, join and validate a pipeline.

    Args:
        name_or_path: an installed pipeline's name, or the path of a YAML file.
        overrides: ``a.b.c=value`` each, applied in order under the same validation.
        host: the plugins; a fresh :func:`~recon_toolkit.plugins.load_plugins` by default. The pipeline's own plugin
            files are loaded in addition.
        layers: trees to lay over the file, in order, before the overrides, as a table does for its rows.
        trust: for a stored pipeline, whether plugin files that it names are executed though somebody else made it;
            not by default (:mod:`recon_toolkit.config.sources`).
        source: what messages call a pipeline that is no file of the user's.
        generated: nobody wrote the file by hand, so that a name that several plugins have is the toolkit's own.

    Raises:
        ConfigError: anything is wrong; every problem at once, each with its file and line, or with the overrides that
            cause it; of more than 50 the first.
    """
    host = load_plugins() if host is None else host
    name = str(name_or_path) if isinstance(name_or_path, str) else str(name_or_path.resolve())
    path = find_pipeline(name, host)
    document = gather(path, overrides, host, layers, trust=trust)
    given = {file.name for file in host.files}  # the same plugin may lie elsewhere on another machine
    foreign = [file for file in document.foreign if file.name not in given]
    if not document.trusted:
        refuse(foreign, source or str(path))
    elif foreign:
        Progress().warn(f"{source or path} is trusted: running {', '.join(map(str, foreign))}")
    host = host.with_files([file for file, _ in document.plugins])
    places = {str(file): place for file, place in document.plugins}
    problems = [*document.problems, *_plugin_problems(host, places)]
    problems += [found for found in _section_problems(document.tree) if document.whole or not found.lack]
    components: dict[tuple[str, ...], ResolvedComponent] = {}
    laid, skipped = given_overrides(overrides), 0
    stored = generated or trust is not None or is_stored(path)
    resolver = _Resolver(document.tree, host, laid, stored=stored)
    for keys, kind in _component_keys(document.tree):
        if len(problems) > MOST_PROBLEMS:
            skipped += 1  # a pipeline of thousands of wrong names is answered at once
            continue
        part, found = resolver.resolve(keys, kind)
        problems += found
        if part is not None:
            components[keys] = part
    shapes: dict[str, tuple[int, int]] = {}
    if ("model",) in components and document.whole and not skipped:
        shapes, found = check_roles(components["model",], document.tree)
        problems += found + check_pairs(components["model",], document.tree)
    if problems:
        name_overrides(problems, laid)
        raise ConfigError(first_of(_in_order(problems), skipped))
    pipeline = _complete(document.tree, components, host)
    pipeline = pipeline.model_copy(update={"name": pipeline.name or path.stem})
    if pipeline.training.start_from is not None:
        place = document.tree.mapping["training"].mapping["start_from"].place
        start = {"start_from": absolute(pipeline.training.start_from, place)}
        pipeline = pipeline.model_copy(update={"training": pipeline.training.model_copy(update=start)})
    return ResolvedPipeline(pipeline.name, path, pipeline, components, shapes, host, document.trusted)


def load_pipeline_text(
    text: str,
    name: str,
    overrides: Sequence[str] = (),
    host: PluginHost | None = None,
    *,
    trust: bool | None = None,
    source: str = "",
) -> ResolvedPipeline:
    """:func:`load_pipeline` for a pipeline that is no file, such as one inside a weights file.

    Args:
        text: YAML.
        name: what messages call the file, without its ending.
        overrides, host, trust, source: as for :func:`load_pipeline`.
    """
    with TemporaryDirectory() as scratch:  # a pipeline is read from a file, so that its messages name lines
        path = Path(scratch) / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            found = load_pipeline(path, overrides, host, trust=trust, source=source, generated=True)
            return replace(found, source=Path(source or path.name))
        except ConfigError as error:  # the scratch file means nothing to anybody
            places = [
                (problem, (problem.where or "").replace(str(path), source or path.name)) for problem in error.problems
            ]
            raise ConfigError([ReconError(p.message, where=where, remedy=p.remedy) for p, where in places]) from error


def resolve_component(kind: Kind, name: str, overrides: Sequence[str], host: PluginHost) -> ResolvedComponent:
    """A component outside of a pipeline, its options validated as there.

    Args:
        kind, name: which.
        overrides: ``option=value`` each, applied in order.
        host: the plugins.

    Raises:
        ConfigError: a plugin file that was asked for cannot be used, or an option is wrong; every problem at once.
        PluginError: there is no such component.
    """
    problems: list[ReconError] = _plugin_problems(host, {})
    if problems:
        raise ConfigError(problems)
    entry = host.registry.get(kind, name)
    signature = signature_of(entry)
    place = Place(None, option=f"{kind} {name}")
    tree = Entry({"name": Entry(name, place)}, place)
    for text in overrides:
        over, found = parse_override(text)
        problems += found
        tree, found = merge(tree, over)
        problems += found
    options, wrong = validate_options(entry, signature, tree, ())
    if problems or wrong:
        raise ConfigError([*problems, *wrong])
    return ResolvedComponent(entry, signature, options, place)


def _plugin_problems(host: PluginHost, places: Mapping[str, Place]) -> list[ReconError]:
    """Plugin files that the user named, some of them at known places, and that cannot be used."""
    return [
        ReconError(
            f"the plugin '{failure.source}' cannot be used: {failure.cause}",
            where=str(places.get(failure.source, f"--plugin {failure.name}")),
        )
        for failure in host.failures
        if failure.requested
    ]


def _section_problems(tree: Entry) -> list[Problem]:
    """What is wrong with the pipeline itself, its components' options aside."""
    try:
        Pipeline.model_validate_json(json.dumps(tree.plain()), strict=True)
    except ValidationError as error:
        problems = validation_problems(error, tree, (), _known_keys)
        return [_nameless(problem, tree) for problem in problems]
    return []


def _known_keys(keys: Keys) -> Collection[str]:
    """The keys that the schema has beside the one at ``keys``."""
    fields = Pipeline.model_fields
    if len(keys) > 1 and keys[0] in fields:
        section = fields[str(keys[0])].annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            return section.model_fields
    return [*fields, "extends"]


def _nameless(problem: Problem, tree: Entry) -> Problem:
    """Say which names there are where a component's mapping has no ``name``: it often is a misspelt term or role."""
    for section in ("losses", "encoders"):
        entries = tree.mapping.get(section, Entry(None, tree.place)).mapping
        if len(problem.keys) == 3 and problem.keys[0] == section and problem.keys[2] == "name" and problem.lack:
            key = str(problem.keys[1])
            if key in entries:
                others = [other for other, entry in entries.items() if "name" in entry.mapping]
                text = f"'{section}.{key}' names no component"
                return Problem(text, tree, (section, key), remedy=suggestion(key, others), lack=True)
    return problem


def _component_keys(tree: Entry) -> Iterator[tuple[tuple[str, ...], Kind]]:
    """Keys and kind of everything in the document that has a component's name."""
    single: tuple[Kind, ...] = ("model", "renderer", "dataset", "optimizer", "sampler")
    for kind in single:
        if kind in tree.mapping:
            yield (kind,), kind
    several: tuple[tuple[str, Kind], ...] = (
        *(("encoders", "encoder"), ("losses", "loss")),
        *(("metrics", "metric"), ("callbacks", "callback")),
    )
    for section, kind in several:
        if section in tree.mapping:
            for key in tree.mapping[section].mapping:
                yield (section, key), kind


class _Resolver:
    """Finds the components that a pipeline names, and validates their options."""

    def __init__(self, tree: Entry, host: PluginHost, overrides: dict[Keys, str], *, stored: bool) -> None:
        self.tree, self.host, self.overrides, self.stored = tree, host, overrides, stored
        self._signatures: dict[Registered, Signature] = {}  # reading one takes a millisecond

    def resolve(self, keys: tuple[str, ...], kind: Kind) -> tuple[ResolvedComponent | None, list[Problem]]:
        """The component at ``keys``, or what is wrong with it."""
        entry = self.tree
        for key in keys:
            entry = entry.mapping[key]
        name = entry.mapping.get("name")
        if name is None or not isinstance(name.value, str):
            return None, []  # the schema reports it
        try:
            registered = self.host.registry.get(kind, name.value, prefer=self._preferred(name.place.file))
            if registered not in self._signatures:
                self._signatures[registered] = signature_of(registered)
            signature = self._signatures[registered]
        except PluginError as error:
            return None, [Problem(error.message, self.tree, (*keys, "name"), remedy=error.remedy)]
        options, problems = validate_options(registered, signature, self.tree, keys)
        if problems:
            return None, problems
        causes = causes_of(self.tree, keys, kind, self.overrides, lambda file: bool(self._preferred(file)))
        return ResolvedComponent(registered, signature, options, name.place, causes), []

    def _preferred(self, file: Path | None) -> tuple[frozenset[str], ...]:
        """Whose component a file means by a name that several plugins have; nobody's where a user wrote it."""
        stored = self.stored and file is not None
        return (own_providers(self.host),) if stored else preferred_providers(file, self.host)


def _complete(tree: Entry, components: Mapping[tuple[str, ...], ResolvedComponent], host: PluginHost) -> Pipeline:
    """The pipeline with every option of every component."""
    document = tree.plain()
    for keys, part in components.items():
        section = document
        for key in keys[:-1]:
            section = section[key]
        given = section[keys[-1]]
        own = {key: value for key, value in given.items() if key in core_keys(part.entry.kind)}
        own["name"] = host.registry.name_of(part.entry)
        options: dict[str, Any] = {}
        for name, value in part.options.items():
            try:
                options[name] = plain_value(value)
            except TypeError:  # an object that only its default can be, or that was made from what is given
                if name in given:
                    options[name] = given[name]
        section[keys[-1]] = own | options
    document["plugins"] = [str(file.resolve()) for file in host.files]
    return Pipeline.model_validate_json(json.dumps(document), strict=True)


def _in_order(problems: Sequence[ReconError]) -> list[ReconError]:
    """Problems by line within a file; files and the command line in the order they were met."""
    files: dict[str, int] = {}

    def order(problem: ReconError) -> tuple[bool, int, int]:
        file, _, line = (problem.where or "").rpartition(":")
        is_line = bool(file) and line.isdigit()
        rank = files.setdefault(file if is_line else problem.where or "", len(files))
        return (not is_line and (problem.where or "").startswith("--"), rank, int(line) if is_line else 0)

    unique = {str(problem): problem for problem in problems}
    return sorted(unique.values(), key=order)
