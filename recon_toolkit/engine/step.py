"""One training step of a model: its losses one after another, their gradients, and the optimisers that follow them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from recon_toolkit.assembly import MakeOptimizer
from recon_toolkit.config.schema import TrainingConfig
from recon_toolkit.errors import PluginError, ReconError
from recon_toolkit.models import Model, ParameterGroup, Step
from recon_toolkit.structures import Batch, Losses, ModelOutput

#: Begins the model's training step on some images: its losses to come, and what it is told.
Begin = Callable[[Batch], tuple[Iterator[tuple[str, Losses]], Step]]


def split(batch: Batch, parts: int, group_size: int = 1) -> list[Batch]:
    """Cut a batch into ``parts`` of nearly equal size, between groups; fewer if there are fewer."""
    groups = len(batch) // group_size
    bounds = [groups * i // parts * group_size for i in range(parts + 1)]
    return [batch.rows(low, high) for low, high in pairwise(bounds) if low < high]


def check_shardable(model: nn.Module) -> None:
    """Raise ReconError if the model keeps statistics of its batches, or draws random numbers, in its forward pass.

    Threads would write the one at once and share the other in an order that timing decides.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd):
            what = "dropout" if isinstance(module, nn.modules.dropout._DropoutNd) else "batch normalisation"
            raise ReconError(
                f"the model has {what} ({name}), which cannot run on several threads",
                where="training.workers",
                remedy="set it to 1",
            )


@dataclass(frozen=True)
class Gradients:
    """The gradients of one optimiser's parameters are set: by these losses, the mean over shards."""

    optimizer: str
    losses: Losses
    output: ModelOutput | None  # of the first shard, for a look at what the model does


class Gradienter:
    """Takes models through training steps, and stops after each of their losses with its gradients set.

    Args:
        workers: shards of a batch, each on a thread of its own with its share of the cores; 1 for none.
        context: in which models run.
    """

    def __init__(self, workers: int = 1, context: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
        self.workers, self.context = workers, context
        threads = torch.get_num_threads()
        self._inner = max(1, threads // workers)
        # Where fewer threads are given than there are shards, a thread takes several: the result stays the same.
        self._pool = ThreadPoolExecutor(min(workers, threads), thread_name_prefix="shard") if workers > 1 else None

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Give each worker its share of the cores while the block runs."""
        before = torch.get_num_threads()
        torch.set_num_threads(self._inner)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def __call__(
        self, begin: Begin, batch: Batch, parameters: Mapping[str, Sequence[nn.Parameter]], group_size: int = 1
    ) -> Iterator[Gradients]:
        """Yield once for each loss of a step, when its gradients are set in the optimiser's parameters.

        Args:
            begin: begins the model's step.
            batch: all images of it.
            parameters: of each optimiser.
            group_size: images that stay in one shard.

        Raises:
            PluginError: the model names an optimiser that it does not have, or shards name different ones.
        """
        shards = split(batch, self.workers, group_size) if self._pool is not None else [batch]
        begun = [begin(shard) for shard in shards]
        shares = [len(shard) / len(batch) for shard in shards]
        while True:
            found = self._next(begun, parameters)
            names = {name for name, _, _ in found}
            if names == {None}:
                return
            if len(names) > 1:
                raise PluginError("the model's training_step yields different optimisers for parts of one batch")
            name = next(iter(names))
            assert name is not None
            losses = [loss for _, loss, _ in found if loss is not None]
            if self._pool is not None:
                _set_mean(parameters[name], [gradients for _, _, gradients in found], shares)
            yield Gradients(name, _mean(losses, shares) if len(losses) > 1 else losses[0], begun[0][1].output)

    def _next(
        self,
        begun: Sequence[tuple[Iterator[tuple[str, Losses]], Step]],
        parameters: Mapping[str, Sequence[nn.Parameter]],
    ) -> list[tuple[str | None, Losses | None, tuple[Tensor | None, ...]]]:
        def work(at: int) -> tuple[str | None, Losses | None, tuple[Tensor | None, ...]]:
            with self.context():
                name, losses = next(begun[at][0], (None, None))
            if name is None or losses is None:
                return None, None, ()
            if name not in parameters:
                raise PluginError(
                    f"the model's training_step yields losses for the optimiser '{name}', which it does not have",
                    remedy=f"it has {', '.join(parameters)}",
                )
            if self._pool is None:
                for parameter in parameters[name]:
                    parameter.grad = None
                torch.autograd.backward(losses.total, inputs=list(parameters[name]))
                return name, losses, ()
            return name, losses, torch.autograd.grad(losses.total, list(parameters[name]), allow_unused=True)

        if self._pool is None:
            return [work(0)]
        with self.threads():
            return list(self._pool.map(work, range(len(begun))))

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


def begin_step(model: Model, number: int, epoch: float, losses: Callable[[ModelOutput, Batch], Losses]) -> Begin:
    """How a model begins a training step on some images."""

    def begin(batch: Batch) -> tuple[Iterator[tuple[str, Losses]], Step]:
        step = Step(number, epoch, losses)
        return iter(model.training_step(batch, step)), step

    return begin


def _mean(losses: Sequence[Losses], shares: Sequence[float]) -> Losses:
    total = torch.stack([s * loss.total.detach() for s, loss in zip(shares, losses, strict=True)]).sum()
    terms = {
        name: torch.stack([s * loss.terms[name] for s, loss in zip(shares, losses, strict=True)]).sum()
        for name in losses[0].terms
    }
    return Losses(total, terms)


def _set_mean(
    parameters: Sequence[nn.Parameter], gradients: Sequence[Sequence[Tensor | None]], shares: Sequence[float]
) -> None:
    """Set gradients to their weighted sum over shards, in the shards' order; None where a shard has none."""
    for parameter in parameters:
        parameter.grad = None
    reached = [p for p, *found in zip(parameters, *gradients, strict=True) if all(g is not None for g in found)]
    columns: list[list[Tensor]] = [[] for _ in gradients]
    for found in zip(*gradients, strict=True):
        if all(gradient is not None for gradient in found):
            for column, gradient in zip(columns, found, strict=True):
                column.append(gradient)
    # Not in place: a gradient may be a view of a single number.
    total = torch._foreach_mul(columns[0], shares[0])
    for column, share in zip(columns[1:], shares[1:], strict=True):
        torch._foreach_add_(total, column, alpha=share)
    for parameter, gradient in zip(reached, total, strict=True):
        # A fused optimiser reads both as they lie in memory, and a convolution's gradient may lie with channels last.
        same = gradient.stride() == parameter.stride()
        parameter.grad = gradient if same else torch.empty_like(parameter).copy_(gradient)


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
