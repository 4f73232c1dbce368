"""Components: named parts of one kind, the decorators that name them, and the registry that finds them."""

from __future__ import annotations

import dis
import importlib
import inspect
import signal
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from recon_toolkit.errors import PluginError, ReconError, suggestion

#: What a component is: one of :data:`KINDS`, or a kind that a plugin declares.
Kind = str
KINDS: tuple[Kind, ...] = (
    "encoder", "renderer", "loss", "metric", "dataset", "sampler", "model", "optimizer", "callback",
    "detector", "importer", "exporter", "command",
)  # fmt: skip

#: Arguments that the core supplies when it builds a component of a kind; a pipeline cannot set them.
SUPPLIED_ARGUMENTS: dict[Kind, frozenset[str]] = {
    "encoder": frozenset({"in_channels", "out_channels", "image_size"}),
    "renderer": frozenset({"camera", "depth_range"}),
    "loss": frozenset({"prediction", "target", "output", "batch"}),
    "metric": frozenset({"prediction", "truth", "target", "mask", "output", "batch"}),
    "dataset": frozenset(),
    "sampler": frozenset({"data", "batch_size", "group_size", "seed"}),
    "model": frozenset({"encoders", "renderer", "camera", "image_size"}),
    "optimizer": frozenset({"parameters", "learning_rate"}),
    "callback": frozenset(),
    "detector": frozenset({"image"}),
    "importer": frozenset({"tensors", "path"}),
    "exporter": frozenset({"result", "folder"}),
    "command": frozenset({"context"}),
}


@dataclass(frozen=True)
class NewKind:
    """A kind of components that a plugin declares (hook ``recon_kinds``), for itself and for others to fill.

    Args:
        name: what components of it say, lower case with hyphens.
        supplied: arguments that the plugin supplies when it builds or calls one; all others are options.
        summary: one line for listings.
    """

    name: Kind
    supplied: frozenset[str] = frozenset()
    summary: str = ""


MARKER = "__recon_component__"
T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True)
class Component:
    """A named part that a plugin contributes.

    Args:
        kind: one of :data:`KINDS`, or one that a plugin declares.
        name: the name a pipeline uses, lower case with hyphens.
        target: ``"module:Name"``, imported when first needed, or the object itself.
        summary: one line for listings; taken from the docstring where the target is an object.
    """

    kind: Kind
    name: str
    target: str | Callable[..., Any] = field(repr=False)
    summary: str = ""

    def load(self) -> Callable[..., Any]:
        """Import the target and return it (the class or function itself)."""
        if not isinstance(self.target, str):
            return self.target
        module_name, _, attribute = self.target.partition(":")
        loaded: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            loaded = getattr(loaded, part)
        if not callable(loaded):
            raise TypeError(f"{self.target} is not a class or a function")
        component: Callable[..., Any] = loaded
        return component


def _decorator(kind: Kind) -> Callable[[str], Callable[[T], T]]:
    def named(name: str) -> Callable[[T], T]:
        def mark(target: T) -> T:
            own = target.__doc__  # not a base class's
            summary = (inspect.getdoc(target) or "").partition("\n")[0] if own else ""
            setattr(target, MARKER, Component(kind, name, target, summary))
            return target

        return mark

    named.__name__ = kind
    named.__doc__ = f"Name a {kind}: ``@{kind}('my-{kind}')``. Its keyword arguments become its pipeline options."
    return named


MetricKind = Literal["depth", "image", "output"]
METRIC = "__recon_metric__"


@dataclass(frozen=True)
class MetricDescription:
    """What a metric says of itself; see :func:`metric`."""

    label: str
    digits: int
    better: Literal["lower", "higher", "one"]
    of: MetricKind
    fields: tuple[str, ...]


def metric(
    name: str,
    *,
    label: str = "",
    digits: int = 3,
    better: Literal["lower", "higher", "one"] = "lower",
    of: MetricKind = "depth",
    fields: tuple[str, ...] = (),
) -> Callable[[T], T]:
    """Name a metric: a function that gives one number an image. Its keyword-only arguments become its options.

    Args:
        name: what pipelines call it.
        label: as a heading shows it, with its unit; the pipeline's name for it if empty.
        digits: decimals to print.
        better: which way is better; ``one`` means that 1 is right.
        of: what it is called with, in float64: ``depth``: (prediction, truth, mask), each (B, H, W), in the input view;
            ``image``: (prediction, target, mask), (B, 3, H, W) in [0, 1] and (B, H, W); ``output``: (output, batch).
        fields: what an image of the data set must have besides; depth for metrics of depth goes without saying.
    """
    for value, known in ((better, ("lower", "higher", "one")), (of, ("depth", "image", "output"))):
        if value not in known:
            raise ValueError(f"the metric '{name}' says {value!r}; known are {', '.join(known)}")
    marked = _decorator("metric")(name)

    def mark(target: T) -> T:
        setattr(target, METRIC, MetricDescription(label, digits, better, of, fields))
        return marked(target)

    return mark


encoder = _decorator("encoder")
renderer = _decorator("renderer")
loss = _decorator("loss")
dataset = _decorator("dataset")
sampler = _decorator("sampler")
model = _decorator("model")
optimizer = _decorator("optimizer")
callback = _decorator("callback")
detector = _decorator("detector")
importer = _decorator("importer")
exporter = _decorator("exporter")
command = _decorator("command")


@dataclass(frozen=True)
class PluginFailure:
    """A plugin that could not be used, and why.

    Args:
        name: the plugin's name.
        source: the distribution or file it came from.
        cause: one line.
        traceback: the whole traceback as text, empty if there was none.
        requested: named by the user (``--plugin`` or a pipeline's ``plugins``) rather than found installed.
    """

    name: str
    source: str
    cause: str
    traceback: str = ""
    requested: bool = False


@dataclass(frozen=True)
class Registered:
    """A component and the plugin that provides it."""

    component: Component
    provider: str
    #: Arguments that are no options: what the core, or the plugin that declares the kind, supplies.
    supplied: frozenset[str] = frozenset()

    @property
    def kind(self) -> Kind:
        return self.component.kind

    @property
    def name(self) -> str:
        return self.component.name

    def load(self) -> Callable[..., Any]:
        """Import the class or function.

        Raises:
            PluginError: the import fails; names component, plugin and cause.
        """
        try:
            return self.component.load()
        except BaseException as error:
            if not is_fault(error):
                raise
            raise PluginError(
                f"{self.kind} '{self.name}' of plugin '{self.provider}' cannot be loaded: {describe(error)}",
                remedy="--debug shows where; fix the plugin or use another component",
            ) from error


@dataclass(frozen=True)
class Conflict:
    """Several plugins provide the same kind and name."""

    kind: Kind
    name: str
    providers: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}' is provided by the plugins {', '.join(self.providers)}"

    @property
    def remedy(self) -> str:
        choices = " or ".join(f"'{provider}:{self.name}'" for provider in self.providers)
        return f"write {choices}, or leave a plugin out with --disable-plugin"


#: Packages and modules of the toolkit that have another name since its layout became that of docs/architecture.md.
_MOVED = {
    "bench": "recon_bench", "cache": "recon_toolkit.files", "conformance": "recon_conformance", "demo": "recon_demo",
    "evaluation": "recon_toolkit.metrics", "export": "recon_toolkit.shapes, .io or .viewer",
    "hookspecs": "recon_toolkit.plugins", "interrupt": "recon_toolkit.threads", "nearest": "recon_toolkit.errors",
    "objective": "recon_toolkit.losses", "registry": "recon_toolkit.components", "training": "recon_toolkit.engine",
    "unpickle": "recon_toolkit.io.torch_files",
}  # fmt: skip


def describe(error: BaseException) -> str:
    """An exception in one line: ``ImportError: No module named 'x'``; of a module that has moved, also where it is."""
    first = str(error).strip().partition("\n")[0]
    if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("recon_toolkit."):
        new = _MOVED.get((error.name or "").split(".")[1])
        first += f"; it is {new} now" if new else "; docs/architecture.md says where things are now"
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def is_fault(error: BaseException) -> bool:
    """Whether what a plugin's code let out is its fault: ``sys.exit`` is, a person's Ctrl-C is not."""
    return not isinstance(error, GeneratorExit) and not (isinstance(error, KeyboardInterrupt) and is_interrupt(error))


def is_interrupt(error: BaseException | None) -> bool:
    """Whether a KeyboardInterrupt is of a signal, or follows from one, rather than raised by somebody's code.

    Python's own handler of SIGINT raises it in the middle of whatever runs, where there is no ``raise``.
    """
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            trace = error.__traceback__
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            if trace is None:
                return True
            code = trace.tb_frame.f_code
            handlers = (signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM))
            if any(getattr(handler, "__code__", None) is code for handler in handlers):
                return True
            if code.co_code[trace.tb_lasti] != dis.opmap["RAISE_VARARGS"]:
                return True
        error = error.__context__
    return False


class Registry:
    """Components by (kind, name).

    Args:
        components: everything that plugins provide; order does not matter.
        failures: plugins that could not be used, to be named where something is missing.
    """

    def __init__(self, components: Iterable[Registered] = (), failures: Iterable[PluginFailure] = ()) -> None:
        self.failures = tuple(failures)
        self._entries: dict[tuple[Kind, str], list[Registered]] = {}
        for entry in sorted(components, key=_order):
            self._entries.setdefault((entry.kind, entry.name), []).append(entry)

    def all(self) -> list[Registered]:
        """Every component, by kind, name and provider."""
        return [entry for entries in self._entries.values() for entry in entries]

    def names(self, kind: Kind) -> list[str]:
        """The names of a kind, sorted."""
        return [name for entry_kind, name in self._entries if entry_kind == kind]

    @property
    def conflicts(self) -> list[Conflict]:
        """Names that several plugins provide; using one is an error, having them is not."""
        return [
            Conflict(kind, name, tuple(entry.provider for entry in entries))
            for (kind, name), entries in self._entries.items()
            if len(entries) > 1
        ]

    def name_of(self, entry: Registered) -> str:
        """What a stored pipeline calls a component: ``provider:name`` only where several plugins have its name."""
        alone = len(self._entries.get((entry.kind, entry.name), ())) < 2
        return entry.name if alone else f"{entry.provider}:{entry.name}"

    def get(
        self, kind: Kind, name: str, *, where: str | None = None, prefer: Sequence[Collection[str]] = ()
    ) -> Registered:
        """The component called ``name``, or ``provider:name`` where several plugins provide it.

        Args:
            where: the place that names it, for the message.
            prefer: groups of plugins, the first first: of several components of a name, the only one of a group is
                meant. For pipelines that come with these plugins, which know of no other.

        Raises:
            PluginError: nothing, or more than one thing, has that name.
        """
        provider, _, plain = name.rpartition(":")
        entries = self._entries.get((kind, plain), [])
        if provider:
            entries = [entry for entry in entries if entry.provider == provider]
        if len(entries) == 1:
            return entries[0]
        for group in prefer:
            preferred = [entry for entry in entries if entry.provider in group]
            if len(preferred) == 1:
                return preferred[0]
        if entries:
            conflict = Conflict(kind, plain, tuple(entry.provider for entry in entries))
            raise PluginError(str(conflict), where=where, remedy=conflict.remedy)
        raise PluginError(f"there is no {kind} '{name}'", where=where, remedy=self._remedy(kind, name))

    def _remedy(self, kind: Kind, name: str) -> str:
        provider, _, plain = name.rpartition(":")
        qualified = [f"{entry.provider}:{entry.name}" for entry in self.all() if entry.kind == kind]
        remedy = suggestion(name, qualified) if provider else suggestion(plain, self.names(kind))
        other = [entry.kind for entry in self.all() if entry.name == plain and entry.kind != kind]
        if other:
            remedy += f"; '{plain}' is a {other[0]}"
        broken = [f"'{failure.name}' ({failure.cause})" for failure in self.failures]
        if broken:
            remedy += f"; or it belongs to a plugin that is not working: {', '.join(broken)}"
        return remedy


def _order(entry: Registered) -> tuple[int, str, str, str]:
    """The toolkit's kinds first, in their order."""
    rank = KINDS.index(entry.kind) if entry.kind in KINDS else len(KINDS)
    return rank, entry.kind, entry.name, entry.provider


@contextmanager
def blamed(component: str) -> Iterator[None]:
    """Turn an exception of a component in use into a PluginError that names it; a ReconError passes through.

    ``sys.exit`` and a KeyboardInterrupt of the component's own are among them; a person's Ctrl-C passes through.

    Args:
        component: what is running, e.g. ``the loss of losses.edges``.
    """
    try:
        yield
    except ReconError:
        raise
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
            raise PluginError(f"{component} raised {describe(error)}", remedy="--debug shows where") from error
        raise ReconError(
            f"there is not enough memory: {describe(error)}", remedy="lower training.batch_size or the image size"
        ) from error
    except BaseException as error:
        if not is_fault(error):
            raise
        raise PluginError(f"{component} raised {describe(error)}", remedy="--debug shows where") from error
