"""Whether a component is what its kind asks for, as far as can be told without building it."""

from __future__ import annotations

import dis
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

from recon_toolkit.components import METRIC
from recon_toolkit.config.options import signature_of
from recon_toolkit.errors import PluginError
from recon_toolkit.registry import Registered, blamed


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
    "detector": _detector,
    "importer": _importer,
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
