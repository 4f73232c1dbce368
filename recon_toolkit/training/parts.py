"""The networks of a model by name, and the optimisers that train them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from recon_toolkit.assembly import MakeOptimizer
from recon_toolkit.config.schema import TrainingConfig
from recon_toolkit.errors import PluginError, ReconError
from recon_toolkit.models import Model, ParameterGroup


def named_parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The trained networks of a model by name: the members of its module dictionaries, else its children."""
    for name, child in model.named_children():
        if isinstance(child, nn.ModuleDict):
            yield from child.items()
        elif any(p.requires_grad for p in child.parameters()):
            yield name, child


def make_optimizers(model: Model, config: TrainingConfig, make: MakeOptimizer) -> dict[str, Optimizer]:
    """The optimisers that a model asks for, by name.

    Their groups have, besides what torch knows, ``rate``, the factor on the learning rate, and ``warmup``, steps.

    Raises:
        PluginError: a parameter is in two groups, an optimiser has none, or the model asks for no optimiser.
        ReconError: ``training.part_warmup_steps`` names a network that the model does not have.
    """
    asked = model.optimizers()
    if not asked:
        raise PluginError(f"{type(model).__name__}.optimizers() names no optimiser", remedy="name at least one")
    for name, groups in asked.items():
        if not any(len(group.parameters) for group in groups):
            raise PluginError(f"the optimiser '{name}' of {type(model).__name__} has no parameters to train")
    members = [p for groups in asked.values() for group in groups for p in group.parameters]
    if len({id(p) for p in members}) < len(members):
        raise PluginError(
            f"{type(model).__name__}.optimizers() has a parameter in two groups", remedy="train each by one optimiser"
        )
    return {
        name: make([values for group in groups for values in parameter_groups(model, group, config)])
        for name, groups in asked.items()
    }


def parameter_groups(model: nn.Module, group: ParameterGroup, config: TrainingConfig) -> list[dict[str, Any]]:
    """A group as torch takes it, divided by warm-up: one for each network that has its own, and one for the rest."""
    parts = dict(named_parts(model))
    unknown = sorted(config.part_warmup_steps.keys() - parts.keys())
    if unknown:
        raise ReconError(
            f"the model has no network '{unknown[0]}'",
            where="training.part_warmup_steps",
            remedy=f"it has {', '.join(sorted(parts))}",
        )
    decay = config.weight_decay if group.weight_decay is None else group.weight_decay
    common = {"rate": group.rate, "weight_decay": decay}
    wanted = {id(p) for p in group.parameters}
    groups: list[dict[str, Any]] = []
    for name, steps in config.part_warmup_steps.items():
        own = [p for p in parts[name].parameters() if p.requires_grad and id(p) in wanted]
        wanted -= {id(p) for p in own}
        groups += [{"params": own, "warmup": max(steps, group.warmup), **common}] if own else []
    rest = [p for p in group.parameters if id(p) in wanted]
    return [*groups, {"params": rest, "warmup": group.warmup, **common}] if rest or not groups else groups


def gradient_norm(module: nn.Module) -> float:
    """Norm of a module's gradient; 0 where it has none."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))) if gradients else 0.0
