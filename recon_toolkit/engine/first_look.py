"""A look at what every part of a model gives, before training, so that a wrong one is named: what it gave, and what
was expected. Nothing of it stays: a training step costs no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from recon_toolkit.components import blamed, describe, is_fault
from recon_toolkit.config.pipeline import ResolvedComponent, ResolvedPipeline
from recon_toolkit.errors import PluginError, ReconError
from recon_toolkit.structures import ModelOutput, Rendering


@dataclass
class _Seen:
    """What passed through the networks so far."""

    running: list[tuple[str, Any]] = field(default_factory=list)  # role and input of those that have not answered
    answers: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # input and output by role, the last one last


@contextmanager
def watched_parts(model: nn.Module, resolved: ResolvedPipeline) -> Iterator[None]:
    """Name the part of a model that raises in the block, or that gives what cannot be right, with both shapes.

    Raises:
        PluginError: an encoder, the renderer or the model itself failed.
    """
    encoders, parts, seen = encoders_of(model), resolved.section("encoders"), _Seen()
    with ExitStack() as stack:
        for role, network in encoders.items():
            if role in parts:
                _watch(stack, role, network, parts[role], resolved.encoder_shapes.get(role), seen)
        renderer = resolved.components.get(("renderer",))
        if renderer is not None:
            _watch_renderer(stack, model, renderer)
        try:
            yield
        except ReconError:
            raise
        except BaseException as error:
            if not is_fault(error):
                raise
            with blamed(_where(error, model)):  # a lack of memory is nobody's fault
                raise _explained(error, model, resolved, seen) or error from error


@contextmanager
def blamed_part(model: nn.Module) -> Iterator[None]:
    """As :func:`~recon_toolkit.components.blamed`, with the encoder or the renderer that was running; costs nothing."""
    try:
        yield
    except BaseException as error:
        with blamed(_where(error, model)):
            raise


def check_output(output: object, resolved: ResolvedPipeline) -> None:
    """Raise PluginError if a model returned no ``ModelOutput``, or a pair whose pictures differ in shape."""
    part = resolved.components["model",]
    if not isinstance(output, ModelOutput):
        message = f"{part.who} returned {shape_of(output)}; a ModelOutput was expected"
        raise PluginError(message, where=part.where, remedy="let its forward(batch) return one")
    for name, pair in output.pairs.items():
        got, expected = shape_of(pair.prediction), shape_of(pair.target)
        if got != expected:
            # Not a PluginError yet: an encoder that gave too few pixels may be the cause.
            raise ValueError(f"of the image pair '{name}', the prediction is {got} and the target {expected}")


def encoders_of(model: nn.Module) -> dict[str, nn.Module]:
    """A model's networks by role, as far as it keeps them under ``encoders``."""
    found = getattr(model, "encoders", None)
    items = found.items() if isinstance(found, Mapping | nn.ModuleDict) else ()
    return {role: network for role, network in items if isinstance(network, nn.Module)}


def shape_of(value: object) -> str:
    """A tensor's shape, those of several tensors, or the type of anything else."""
    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    if isinstance(value, list | tuple) and value:
        return f"{type(value).__name__} of {', '.join(shape_of(item) for item in value[:4])}"
    return type(value).__name__


def _watch(
    stack: ExitStack,
    role: str,
    network: nn.Module,
    part: ResolvedComponent,
    channels: tuple[int, int] | None,
    seen: _Seen,
) -> None:
    def before(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
        seen.running.append((role, arguments[0] if arguments else None))

    def after(_module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        seen.running.remove(next(item for item in reversed(seen.running) if item[0] == role))
        image = arguments[0] if arguments else None
        seen.answers.pop(role, None)
        seen.answers[role] = (image, output)
        if not isinstance(image, Tensor) or image.ndim != 4 or channels is None:
            return
        several = isinstance(output, list | tuple) and all(isinstance(item, Tensor) for item in output)
        if isinstance(output, Tensor):
            if output.ndim < 2 or output.shape[:2] != (len(image), channels[1]):
                raise _wrong(role, part, output, image, channels[1])
        elif output is None or isinstance(output, str | int | float) or (isinstance(output, list) and not several):
            raise _wrong(role, part, output, image, channels[1])

    stack.callback(network.register_forward_pre_hook(before).remove)
    stack.callback(network.register_forward_hook(after).remove)


def _wrong(role: str, part: ResolvedComponent, output: object, image: Tensor, channels: int) -> PluginError:
    count, _, *size = image.shape
    expected = f"{(count, channels, *size)}, or {(count, channels)} where the model asks for numbers,"
    return PluginError(
        f"{part.who} returned {shape_of(output)}; {expected} was expected", where=_place(f"encoders.{role}", part)
    )


def _place(key: str, part: ResolvedComponent) -> str:
    return f"{key} ({', '.join(part.causes)})" if part.causes else key


def _explained(error: BaseException, model: nn.Module, resolved: ResolvedPipeline, seen: _Seen) -> PluginError | None:
    """The part that an error came from, and what it was given or gave; None where nothing passed an encoder."""
    if "memory" in str(error).lower():
        return None
    parts = resolved.section("encoders")
    if seen.running:
        role, image = seen.running[-1]
        message = f"{parts[role].who} raised {describe(error)} for an input {shape_of(image)}"
        return PluginError(message, where=_place(f"encoders.{role}", parts[role]), remedy="--debug shows where")
    for role, (image, output) in seen.answers.items():
        if not isinstance(image, Tensor) or not isinstance(output, Tensor) or image.ndim != 4 or output.ndim == 2:
            continue
        if output.shape[2:] != image.shape[2:]:
            wrong = _wrong(role, parts[role], output, image, resolved.encoder_shapes[role][1])
            wrong.remedy = f"what came of it: {describe(error)}"
            return wrong
    renderer = resolved.components.get(("renderer",))
    if renderer is not None and _where(error, model) == "the renderer":
        message = f"{renderer.who} raised {describe(error)}"
        return PluginError(message, where=_place("renderer", renderer), remedy="--debug shows where")
    part = resolved.components["model",]
    answers = ", ".join(f"encoders.{role} {shape_of(output)}" for role, (_, output) in seen.answers.items())
    given = f"; its encoders had returned: {answers}" if answers else ""
    return PluginError(
        f"{part.who} raised {describe(error)}{given}", where=_place("model", part), remedy="--debug shows where"
    )


def _where(error: BaseException, model: nn.Module) -> str:
    """The encoder or the renderer in whose code an exception was raised, or the model."""
    parts = {id(network): f"the encoder of encoders.{role}" for role, network in encoders_of(model).items()}
    renderer = getattr(model, "renderer", None)
    if renderer is not None:
        parts[id(renderer)] = "the renderer"
    trace = error.__traceback__
    while trace is not None:
        name = parts.get(id(trace.tb_frame.f_locals.get("self")))
        if name is not None:
            return name
        trace = trace.tb_next
    return "the model"


class _WatchedRenderer:
    """Stands in for a renderer that is no module."""

    def __init__(self, renderer: Any, check: Callable[..., None], names: tuple[str, ...]) -> None:
        self._renderer, self._check = renderer, check
        for name in names:
            setattr(self, name, self._checked(getattr(renderer, name)))

    def _checked(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **more: Any) -> Any:
            found = function(*arguments, **more)
            self._check(found, *arguments)
            return found

        return called

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        return self._checked(self._renderer)(*arguments, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._renderer, name)


def _watch_renderer(stack: ExitStack, model: nn.Module, part: ResolvedComponent) -> None:
    renderer: Any = getattr(model, "renderer", None)
    if renderer is None:
        return

    def check(found: object, *arguments: Any) -> None:
        _check_rendering(found, arguments, part)

    if isinstance(renderer, nn.Module):
        handle = renderer.register_forward_hook(lambda _module, arguments, found: check(found, *arguments))
        stack.callback(handle.remove)
        if hasattr(renderer, "render_factors"):  # it is called by that, past the hooks
            watched = _WatchedRenderer(renderer, check, ("render_factors",))
            renderer.render_factors = watched.render_factors
            stack.callback(delattr, renderer, "render_factors")
        return
    factors = ("render_factors",) if hasattr(renderer, "render_factors") else ()
    model.renderer = _WatchedRenderer(renderer, check, factors)  # type: ignore[assignment]
    stack.callback(setattr, model, "renderer", renderer)


def _check_rendering(found: object, arguments: tuple[Any, ...], part: ResolvedComponent) -> None:
    """Raise PluginError if a renderer's answer is not of the size of the canonical depth that it was given."""
    depth = arguments[0] if arguments else None
    if not isinstance(depth, Tensor) or depth.ndim != 3:
        return
    place = _place("renderer", part)
    if not isinstance(found, Rendering):
        raise PluginError(f"{part.who} returned {shape_of(found)}; a Rendering was expected", where=place)
    count, height, width = depth.shape
    channels = arguments[1].shape[1] if len(arguments) > 1 and isinstance(arguments[1], Tensor) else 3
    expected = {
        "image": (count, channels, height, width),
        "depth": (count, height, width),
        "mask": (count, height, width),
    }
    for name, shape in expected.items():
        got = shape_of(getattr(found, name))
        if got != str(shape):
            raise PluginError(f"{part.who} returned the {name} {got}; {shape} was expected", where=place)
