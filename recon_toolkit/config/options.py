"""A component's options, from its own signature: there is no second description that could drift."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError

from recon_toolkit.components import SUPPLIED_ARGUMENTS
from recon_toolkit.config.document import Entry, Keys, Place
from recon_toolkit.config.problems import Problem, validation_problems
from recon_toolkit.config.schema import ComponentConfig, LossTermConfig
from recon_toolkit.errors import PluginError
from recon_toolkit.registry import Registered, describe

#: Keys of a component's mapping that are the core's, by kind; a component cannot have an option of that name.
_TERM_KEYS = frozenset(LossTermConfig.model_fields)
_NAME_KEY = frozenset(ComponentConfig.model_fields)


def core_keys(kind: str) -> frozenset[str]:
    """The keys beside a component's own options that its mapping in a pipeline may have."""
    return _TERM_KEYS if kind == "loss" else _NAME_KEY


@dataclass(frozen=True)
class Signature:
    """What a component takes.

    Args:
        target: the class or function.
        options: a pydantic model of its options, unknown ones forbidden.
        names: the options' names, in the order of the signature.
        supplied: the arguments that the core gives it.
    """

    target: Callable[..., Any]
    options: type[BaseModel]
    names: tuple[str, ...]
    supplied: frozenset[str]


def signature_of(entry: Registered) -> Signature:
    """Import a component and read its options off its signature.

    A function loss has its keyword-only arguments as options; everything else, all arguments that the core does not
    supply. Types may be anything that pydantic can validate, ``Annotated[float, Field(gt=0)]`` included; an argument
    without a type has its default's.

    Raises:
        PluginError: the import fails, or a type or a name in the signature cannot be used.
    """
    target = entry.load()
    who = f"{entry.kind} '{entry.name}' of plugin '{entry.provider}'"
    function = target.__init__ if inspect.isclass(target) else target
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise PluginError(f"the signature of {who} cannot be read: {describe(error)}") from error
    if inspect.isclass(target):
        parameters = [] if function is object.__init__ else parameters[1:]
    supplied = SUPPLIED_ARGUMENTS.get(entry.kind, entry.supplied)
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    keyword_only = entry.kind in ("loss", "metric") and not inspect.isclass(target)
    options = [parameter for parameter in parameters if _is_option(parameter, supplied, keyword_only)]
    _refuse_core_keys(entry, options, who)
    # Aliases, so that an option may be called as an attribute of pydantic's own is.
    fields: dict[str, Any] = {
        f"option_{number}": (_type_of(option, function, who), Field(_default(option), alias=option.name))
        for number, option in enumerate(options)
    }
    config = ConfigDict(extra="allow" if open_ended else "forbid", arbitrary_types_allowed=True, strict=True)
    try:
        model = create_model("Options", __config__=config, **fields)
    except (PydanticUserError, TypeError, NameError) as error:
        raise PluginError(f"the options of {who} have a type that cannot be used: {describe(error)}") from error
    taken = supplied & {parameter.name for parameter in parameters}
    return Signature(target, model, tuple(option.name for option in options), supplied if open_ended else taken)


def _is_option(parameter: inspect.Parameter, supplied: frozenset[str], keyword_only: bool) -> bool:
    if parameter.name in supplied:
        return False
    if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
        return not keyword_only
    return parameter.kind is parameter.KEYWORD_ONLY


def _refuse_core_keys(entry: Registered, options: Sequence[inspect.Parameter], who: str) -> None:
    for option in options:
        if option.name in core_keys(entry.kind):
            raise PluginError(
                f"the option '{option.name}' of {who} has the name of a key that pipelines use themselves",
                remedy="rename the argument",
            )


def _default(parameter: inspect.Parameter) -> Any:
    return ... if parameter.default is parameter.empty else parameter.default


def _type_of(parameter: inspect.Parameter, function: Any, who: str) -> Any:
    annotation = parameter.annotation
    if annotation is parameter.empty:
        simple = type(parameter.default)
        return simple if simple in (bool, int, float, str) else Any
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, dict(getattr(inspect.unwrap(function), "__globals__", {})))
    except Exception as error:
        raise PluginError(
            f"the type '{annotation}' of the option '{parameter.name}' of {who} is not known: {describe(error)}",
            remedy="import it at the top of the component's module, not under TYPE_CHECKING",
        ) from error


def validate_options(
    entry: Registered, signature: Signature, tree: Entry, keys: Keys
) -> tuple[dict[str, Any], list[Problem]]:
    """The options that the mapping at ``keys`` gives the component, with defaults; or what is wrong with them.

    A relative path is taken from the folder of the file that it is written in; on the command line, from the working
    folder.
    """
    mapping = _mapping(tree, keys)
    given = {key: item.plain() for key, item in mapping.items() if key not in core_keys(entry.kind)}
    try:
        # By way of JSON, where strict means what YAML means: a list may be a tuple, a word a path, "abc" no number.
        valid = signature.options.model_validate_json(json.dumps(given), strict=True)
    except ValidationError as error:
        owner = f"{entry.kind} '{entry.name}'"
        return {}, validation_problems(error, tree, keys, lambda _: signature.names, owner)
    options = {name: getattr(valid, f"option_{number}") for number, name in enumerate(signature.names)}
    options |= valid.model_extra or {}
    for name in given.keys() & options.keys():
        options[name] = absolute(options[name], mapping[name].place)
    return options, []


def _mapping(tree: Entry, keys: Keys) -> Mapping[str, Entry]:
    for key in keys:
        tree = tree.mapping[str(key)]
    return tree.mapping


def absolute(value: Any, place: Place) -> Any:
    """A path, or those in a list, from the folder of the file that names it, or from the working folder."""
    if isinstance(value, Path):
        base = place.file.parent if place.file is not None else Path.cwd()
        return (base / value.expanduser()).resolve()
    if isinstance(value, list | tuple) and any(isinstance(item, Path) for item in value):
        return type(value)(absolute(item, place) for item in value)
    return value


def plain_value(value: Any, path_as: Callable[[Path], str] = str) -> Any:
    """A validated option as YAML and JSON can hold it.

    Raises:
        TypeError: it is an object that neither can hold.
    """
    if value is None or (isinstance(value, str | bool | int | float) and not isinstance(value, Enum)):
        return value
    if isinstance(value, Path):
        return path_as(value)
    if isinstance(value, Enum):
        return plain_value(value.value, path_as)
    if isinstance(value, Mapping):
        return {str(key): plain_value(item, path_as) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(item, path_as) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(plain_value(item, path_as) for item in value)
    if isinstance(value, BaseModel):
        return plain_value(value.model_dump(), path_as)
    if is_dataclass(value) and not isinstance(value, type):
        return plain_value(asdict(value), path_as)
    raise TypeError(f"{type(value).__name__} cannot be written to a file")
