"""What a component's own signature says: its options, whether it fits its kind, what a model asks of its pipeline."""

from __future__ import annotations

import dis
import inspect
import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError

from recon_toolkit.components import METRIC, SUPPLIED_ARGUMENTS, Registered, blamed, describe
from recon_toolkit.config.document import MOST_PROBLEMS, Entry, Keys, Place
from recon_toolkit.config.problems import Problem, validation_problems
from recon_toolkit.config.schema import ComponentConfig, LossTermConfig
from recon_toolkit.errors import PluginError, suggestion

if TYPE_CHECKING:
    from recon_toolkit.config.pipeline import ResolvedComponent


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
    supply. A class whose ``__init__`` takes ``**options`` has those of its base besides. Types may be anything that
    pydantic can validate, ``Annotated[float, Field(gt=0)]`` included; an argument without a type has its default's.

    Raises:
        PluginError: the import fails, or a type or a name in the signature cannot be used.
    """
    target = entry.load()
    who = f"{entry.kind} '{entry.name}' of plugin '{entry.provider}'"
    try:
        owned = _init_parameters(target) if inspect.isclass(target) else _parameters_of(target)
    except (TypeError, ValueError) as error:
        raise PluginError(f"the signature of {who} cannot be read: {describe(error)}") from error
    parameters = [parameter for parameter, _ in owned.values()]
    supplied = SUPPLIED_ARGUMENTS.get(entry.kind, entry.supplied)
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    keyword_only = entry.kind in ("loss", "metric") and not inspect.isclass(target)
    options = [parameter for parameter in parameters if _is_option(parameter, supplied, keyword_only)]
    _refuse_core_keys(entry, options, who)
    # Aliases, so that an option may be called as an attribute of pydantic's own is.
    fields: dict[str, Any] = {
        f"option_{number}": (_type_of(option, owned[option.name][1], who), Field(_default(option), alias=option.name))
        for number, option in enumerate(options)
    }
    config = ConfigDict(extra="allow" if open_ended else "forbid", arbitrary_types_allowed=True, strict=True)
    try:
        model = create_model("Options", __config__=config, **fields)
    except (PydanticUserError, TypeError, NameError) as error:
        raise PluginError(f"the options of {who} have a type that cannot be used: {describe(error)}") from error
    taken = supplied & {parameter.name for parameter in parameters}
    return Signature(target, model, tuple(option.name for option in options), supplied if open_ended else taken)


#: Arguments by name, each with the function that it is an argument of.
_Owned = dict[str, tuple[inspect.Parameter, Any]]


def _parameters_of(function: Any) -> _Owned:
    return {name: (parameter, function) for name, parameter in inspect.signature(function).parameters.items()}


def _init_parameters(target: type) -> _Owned:
    """The arguments that a class is built with; ``**options`` of its ``__init__`` are those of the next one."""
    found: _Owned = {}
    for base in target.__mro__:
        function = vars(base).get("__init__")
        if function is None or function is object.__init__:
            continue
        own = dict(list(_parameters_of(function).items())[1:])
        found.pop("options", None)  # a subclass's, which are these
        found = {**own, **found}
        if "options" not in own or own["options"][0].kind is not inspect.Parameter.VAR_KEYWORD:
            return found
    return found


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


def check_contract(entry: Registered) -> None:
    """Import a component and check its attributes and signatures against its kind's contract (docs/write-a-plugin.md).

    Raises:
        PluginError: it cannot be imported, or something is missing or cannot be called as the core does; all of it.
    """
    who = f"{entry.kind} '{entry.name}' of plugin '{entry.provider}'"
    with blamed(who):
        target = signature_of(entry).target
        contract = _CONTRACTS.get(entry.kind)  # of a plugin's kind, that plugin knows it
        faults = list(contract(target)) if contract is not None else []
        if inspect.isclass(target) and inspect.isabstract(target):
            missing: frozenset[str] = getattr(target, "__abstractmethods__", frozenset())
            faults.append(f"it lacks {', '.join(sorted(missing))}")
    if faults:
        raise PluginError(f"{who} does not keep its contract: {'; '.join(faults)}", remedy="see docs/write-a-plugin.md")


def _dataset(target: Any) -> Iterator[str]:
    if not inspect.isclass(target):
        return  # a function that makes one: only its result could tell
    if not _has(target, "splits"):
        yield "it lacks the attribute 'splits', the names of its splits, such as ('train', 'val', 'test')"
    elif isinstance(getattr(target, "splits", None), str):
        yield "'splits' is one word; it is a tuple of them, such as ('train', 'test')"
    yield from _method(target, "open", "split", "size", "context")


def _encoder(target: Any) -> Iterator[str]:
    if inspect.isclass(target):
        yield from _module(target, "image")
    elif not {"in_channels", "out_channels", "image_size"} & _parameters(target):
        yield "it takes none of in_channels, out_channels and image_size"


def _renderer(target: Any) -> Iterator[str]:
    if inspect.isclass(target) and not _defines(target, "render_factors"):
        yield from _callable(target, "canonical_depth", "canonical_image", "view")


def _loss(target: Any) -> Iterator[str]:
    if inspect.isclass(target) and not (_defines(target, "forward") or _defines(target, "__call__")):
        if not (_defines(target, "prepare") and _defines(target, "compare")):
            yield "it cannot be called: it has neither forward nor __call__"
        return
    positional = loss_arguments(target)
    if positional not in (["output"], ["output", "batch"]) and len(positional) != 2:
        yield f"it takes ({', '.join(positional)}); a loss takes (prediction, target), (output) or (output, batch)"


def loss_arguments(target: Any) -> list[str]:
    """The positional arguments of a loss, without ``self``."""
    function: Callable[..., Any] = target
    if inspect.isclass(target):
        function = getattr(target, "forward" if _is_module(target) else "__call__")
    parameters = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    return parameters[1:] if inspect.isclass(target) else parameters


def _metric(target: Any) -> Iterator[str]:
    about = getattr(target, METRIC, None)
    if inspect.isclass(target) or about is None:
        yield "it is no function that the decorator 'metric' has described"
        return
    expected = {
        "depth": ["prediction", "truth", "mask"],
        "image": ["prediction", "target", "mask"],
        "output": ["output", "batch"],
    }
    positional = loss_arguments(target)
    if len(positional) != len(expected[about.of]):
        yield f"it takes ({', '.join(positional)}); a metric of {about.of} takes ({', '.join(expected[about.of])})"


def _model(target: Any) -> Iterator[str]:
    if not inspect.isclass(target):
        return
    kind: Any = target  # whatever a pipeline names
    if not _is_model(kind):
        yield "it is no recon_toolkit.Model; derive it from that class, which is a torch.nn.Module"
        return
    if kind.defines("forward") or not kind.defines("training_step"):
        yield from _module(target, "batch")
    for name in ("encoder_channels", "optional_encoders", "image_pairs"):
        found = inspect.getattr_static(target, name, None)
        if found is not None and not isinstance(found, classmethod | staticmethod):
            yield f"'{name}' is no class method"
    if not kind.defines("encoder_channels") and _reads(target.__init__, "encoders"):
        yield "it uses encoders and lacks the class method 'encoder_channels', which says how many channels they have"


def _sampler(target: Any) -> Iterator[str]:
    if inspect.isclass(target):
        yield from _method(target, "indices", "step")
        yield from _method(target, "epoch", "step")


def _optimizer(target: Any) -> Iterator[str]:
    if "parameters" not in _parameters(target):
        yield "it does not take the argument 'parameters', groups of parameters as torch.optim takes them"


def _detector(target: Any) -> Iterator[str]:
    if inspect.isclass(target):
        yield from _callable(target, "image")
    elif not _fits(target, ["image"], options=True):
        yield "it does not take an image"


def _importer(target: Any) -> Iterator[str]:
    if not {"tensors", "path"} & _parameters(target):
        yield "it takes neither tensors nor path"


def _exporter(target: Any) -> Iterator[str]:
    if inspect.isclass(target) or not _fits(target, ["result", "folder"], options=True):
        yield "it is no function of (result, folder)"


def _callback(target: Any) -> Iterator[str]:
    if not inspect.isclass(target) or not any(base.__name__ == "Callback" for base in target.__mro__):
        yield "it is no recon_toolkit.Callback; derive a class from that"
    else:
        for name, arguments in (
            ("begin", ("run", "step", "steps")),
            ("log", ("kind", "step", "values")),
            ("end", ("run", "summary")),
        ):
            if _defines(target, name):
                yield from _method(target, name, *arguments)


def _command(target: Any) -> Iterator[str]:
    import typer

    if inspect.isclass(target):
        yield "it is a class; a command is a function"
        return
    app = typer.Typer(add_completion=False)
    app.command("command")(target)
    typer.main.get_command(app)  # raises where an annotation is none that a command line can have


_CONTRACTS: dict[str, Callable[[Any], Iterator[str]]] = {
    "encoder": _encoder,
    "renderer": _renderer,
    "loss": _loss,
    "dataset": _dataset,
    "metric": _metric,
    "sampler": _sampler,
    "model": _model,
    "optimizer": _optimizer,
    "callback": _callback,
    "detector": _detector,
    "importer": _importer,
    "exporter": _exporter,
    "command": _command,
}


#: Modules whose classes define ``forward`` without doing anything.
_ABSTRACT = ("torch.nn.modules.module", "recon_toolkit.models.model")


def _is_module(target: type) -> bool:
    torch = sys.modules.get("torch")  # without it there are no modules, and listing plugins stays quick
    return torch is not None and issubclass(target, torch.nn.Module)


def _is_model(target: Any) -> bool:
    models = sys.modules.get("recon_toolkit.models")  # without it there are no models
    return models is not None and issubclass(target, models.Model)


def _module(target: type, *arguments: str) -> Iterator[str]:
    if not _is_module(target):
        yield "it is no torch.nn.Module"
    elif not any("forward" in vars(base) for base in target.__mro__ if base.__module__ not in _ABSTRACT):
        yield "it lacks the method 'forward'"
    elif not _fits(getattr(target, "forward", None), [None, *arguments]):
        yield f"its forward cannot be called with ({', '.join(arguments)})"


def _callable(target: type, *arguments: str) -> Iterator[str]:
    if _is_module(target):
        yield from _module(target, *arguments)
    elif not _defines(target, "__call__"):
        yield f"it cannot be called: it lacks __call__(self, {', '.join(arguments)})"
    elif not _fits(target.__call__, [None, *arguments]):
        yield f"it cannot be called with ({', '.join(arguments)})"


def _method(target: type, name: str, *arguments: str) -> Iterator[str]:
    method = inspect.getattr_static(target, name, None)
    bound = [] if isinstance(method, classmethod | staticmethod) else [None]
    if method is None:
        if not _has(target, name):
            yield f"it lacks the method {name}({', '.join(arguments)})"
    elif not callable(getattr(target, name)):
        yield f"'{name}' is no method"
    elif not _fits(getattr(target, name), [*bound, *arguments]):
        yield f"its {name} cannot be called with ({', '.join(arguments)})"


def _defines(target: type, name: str) -> bool:
    """Whether a class or a base of it has the method; every class has its type's ``__call__`` otherwise."""
    return any(name in vars(base) for base in target.__mro__)


def _has(target: type, name: str) -> bool:
    """Whether instances have the attribute, as far as the class tells: its own, or one that it sets when built."""
    if hasattr(target, name) or _defines(target, "__getattr__"):
        return True
    functions = (vars(base).get("__init__") for base in target.__mro__)
    codes = (getattr(function, "__code__", None) for function in functions)
    annotated = any(name in getattr(base, "__annotations__", {}) for base in target.__mro__)
    return annotated or any(code is not None and name in code.co_names for code in codes)


def _reads(function: Any, name: str) -> bool:
    """Whether a function does anything with its argument of that name."""
    code = getattr(function, "__code__", None)
    if code is None or name not in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
        return False
    return any("LOAD" in step.opname and step.argval == name for step in dis.get_instructions(code))


def _parameters(function: Any) -> set[str]:
    """The names of the arguments; all that the core supplies where it takes any."""
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return {"in_channels", "out_channels", "image_size", "tensors", "path", "parameters"}
    return {parameter.name for parameter in parameters}


def _fits(function: Any, arguments: list[Any], *, options: bool = False) -> bool:
    """Whether a function can be called with these positional arguments; with ``options``, others are set by name."""
    try:
        signature = inspect.signature(function)
        (signature.bind_partial if options else signature.bind)(*arguments)
    except (TypeError, ValueError):
        return False
    return True


def check_roles(model: ResolvedComponent, tree: Entry) -> tuple[dict[str, tuple[int, int]], list[Problem]]:
    """Channels by role for the encoders of the pipeline, and the roles that are missing or not asked for."""
    try:
        channels = _ask(model, "encoder_channels") or {}
        asked = {role: (int(inwards), int(outwards)) for role, (inwards, outwards) in channels.items()}
        optional = frozenset(_ask(model, "optional_encoders") or ())
    except Exception as error:
        return {}, [_cannot_say(model, tree, "encoders", error)]
    given = tree.mapping["encoders"].mapping if "encoders" in tree.mapping else {}
    who = f"model '{model.entry.name}'"
    problems = []
    for role in sorted(asked.keys() - given.keys() - optional):
        text = f"{who} needs an encoder for '{role}'"
        problems.append(
            Problem(text, tree, ("encoders", role), remedy=f"add encoders.{role}", lack=True, depends=[("model",)])
        )
    unused = sorted(given.keys() - asked.keys())
    for role in unused[: MOST_PROBLEMS + 1]:  # looking for the nearest name takes a while
        remedy = f"{suggestion(role, asked)}; 'encoders.{role}: null' takes it away"
        text = f"{who} has no use for an encoder '{role}'"
        problems.append(Problem(text, tree, ("encoders", role), remedy=remedy, depends=[("model",)]))
    return {role: asked[role] for role in given if role in asked}, problems


def check_pairs(model: ResolvedComponent, tree: Entry) -> list[Problem]:
    """Loss terms that compare an image pair which the model does not make."""
    try:
        pairs: Collection[str] | None = _ask(model, "image_pairs")
    except Exception as error:
        return [_cannot_say(model, tree, "image pairs", error)]
    if pairs is None or "losses" not in tree.mapping:
        return []
    problems = []
    for term, entry in tree.mapping["losses"].mapping.items():
        pair = entry.mapping["of"].value if "of" in entry.mapping else "plain"
        if isinstance(pair, str) and pair not in pairs:
            text = f"model '{model.entry.name}' makes no image pair '{pair}' with these options"
            problems.append(
                Problem(text, tree, ("losses", term, "of"), remedy=suggestion(pair, pairs), depends=[("model",)])
            )
    return problems


def _ask(model: ResolvedComponent, method: str) -> Any:
    """What the model's class answers; None if it has no such method."""
    function = getattr(model.target, method, None)  # a function that makes a model says nothing
    if function is None or not inspect.isroutine(function):
        return None
    parameters = inspect.signature(function).parameters
    everything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return function(**{name: value for name, value in model.options.items() if everything or name in parameters})


def _cannot_say(model: ResolvedComponent, tree: Entry, what: str, error: Exception) -> Problem:
    who = f"model '{model.entry.name}' of plugin '{model.entry.provider}'"
    return Problem(f"{who} cannot say which {what} it has: {describe(error)}", tree, ("model",))
