"""What a model asks of the rest of its pipeline: encoders by role, and which image pairs it offers to losses.

A model class may have three class methods, each called with those of the model's options that it names:

- ``encoder_channels(**options) -> {role: (channels in, channels out)}``; without it the model takes no encoders;
- ``optional_encoders(**options)`` → the roles that a pipeline may leave out;
- ``image_pairs(**options)`` → the names that a loss's ``of`` may have; without it any name is taken.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from recon_toolkit.config.document import MOST_PROBLEMS, Entry
from recon_toolkit.config.problems import Problem
from recon_toolkit.nearest import suggestion
from recon_toolkit.registry import describe

if TYPE_CHECKING:
    from recon_toolkit.config.pipeline import ResolvedComponent


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
