"""Components: named parts of one kind, and the decorators that name them.

A component is a plain class or function with typed keyword arguments. Nothing here imports torch, so that
plugins can be listed quickly; a component is imported only when a pipeline names it.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

Kind = Literal["encoder", "renderer", "loss", "dataset", "model", "detector", "importer", "command"]
KINDS: tuple[Kind, ...] = get_args(Kind)

#: Arguments that the core supplies when it builds a component of a kind; a pipeline cannot set them.
SUPPLIED_ARGUMENTS: dict[Kind, frozenset[str]] = {
    "encoder": frozenset({"in_channels", "out_channels", "image_size"}),
    "renderer": frozenset({"camera", "depth_range"}),
    "loss": frozenset({"prediction", "target", "output", "batch"}),
    "dataset": frozenset(),
    "model": frozenset({"encoders", "renderer", "camera", "image_size"}),
    "detector": frozenset({"image"}),
    "importer": frozenset({"tensors", "path"}),
    "command": frozenset({"context"}),
}

MARKER = "__recon_component__"
T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True)
class Component:
    """A named part that a plugin contributes.

    Args:
        kind: one of :data:`KINDS`.
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


encoder = _decorator("encoder")
renderer = _decorator("renderer")
loss = _decorator("loss")
dataset = _decorator("dataset")
model = _decorator("model")
detector = _decorator("detector")
importer = _decorator("importer")
command = _decorator("command")
