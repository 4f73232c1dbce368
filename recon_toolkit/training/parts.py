"""The networks of a model by name, for what is set or watched for each: warm-up and gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from recon_toolkit.errors import ReconError


def named_parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The trained networks of a model by name: the members of its module dictionaries, else its children."""
    for name, child in model.named_children():
        if isinstance(child, nn.ModuleDict):
            yield from child.items()
        elif any(p.requires_grad for p in child.parameters()):
            yield name, child


def parameter_groups(model: nn.Module, warmup: Mapping[str, int]) -> list[dict[str, Any]]:
    """The trained parameters by their warm-up: one group for each network that has its own, and one for the rest."""
    parts = dict(named_parts(model))
    unknown = sorted(warmup.keys() - parts.keys())
    if unknown:
        raise ReconError(
            f"the model has no network '{unknown[0]}'",
            where="training.part_warmup_steps",
            remedy=f"it has {', '.join(sorted(parts))}",
        )
    groups = [
        {"params": [p for p in parts[name].parameters() if p.requires_grad], "warmup": steps}
        for name, steps in warmup.items()
    ]
    own = {id(p) for group in groups for p in group["params"]}  # type: ignore[attr-defined]
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in own]
    return [*groups, {"params": rest, "warmup": 0}]


def gradient_norm(module: nn.Module) -> float:
    """Norm of a module's gradient; 0 where it has none."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))) if gradients else 0.0
