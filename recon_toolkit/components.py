"""Components: named parts of one kind, and the decorators that name them.

A component is a plain class or function with typed keyword arguments. Nothing here imports torch, so that
plugins can be listed quickly; a component is imported only when a pipeline names it.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

#: What a component is: one of :data:`KINDS`, or a kind that a plugin declares.
Kind = str
KINDS: tuple[Kind, ...] = (
    "encoder", "renderer", "loss", "metric", "dataset", "sampler", "model", "optimizer", "detector", "importer",
    "command",
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
    "detector": frozenset({"image"}),
    "importer": frozenset({"tensors", "path"}),
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
            summary = (inspect.getdoc(target) or "").partition("\n")[0]
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
detector = _decorator("detector")
importer = _decorator("importer")
command = _decorator("command")
