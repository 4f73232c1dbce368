"""Gradients of one batch on several CPU threads: each takes a part of the images through the whole model.

Small networks leave a CPU's cores idle when every operation is split among them; whole passes side by side do not,
and they do not stall when another program takes a core. The result depends on the number of shards, not on timing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn

from recon_toolkit.errors import ReconError
from recon_toolkit.structures import Batch, ModelOutput
from recon_toolkit.training.objective import Losses

#: Computes a model's output and the losses of some images.
Forward = Callable[[Batch], tuple[ModelOutput, Losses]]


def split(batch: Batch, parts: int) -> list[Batch]:
    """Cut a batch into ``parts`` of nearly equal size; fewer if there are fewer images."""
    bounds = [len(batch) * i // parts for i in range(parts + 1)]
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


class ShardedGradients:
    """Runs shards of a batch on threads of their own, each with its share of the cores.

    Args:
        workers: shards; 2 or more.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        threads = torch.get_num_threads()
        self._inner = max(1, threads // workers)
        # Where fewer threads are given than there are shards, a thread takes several: the result stays the same.
        self._pool = ThreadPoolExecutor(min(workers, threads), thread_name_prefix="shard")

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
        self,
        forward: Forward,
        batch: Batch,
        parameters: Sequence[nn.Parameter],
    ) -> tuple[ModelOutput, Losses]:
        """Set the parameters' gradients to the mean over shards, weighted by their images.

        Returns:
            The first shard's output, for a look at what the model does, and the mean losses.
        """
        shards = split(batch, self.workers)

        def work(shard: Batch) -> tuple[ModelOutput, Losses, tuple[Tensor | None, ...]]:
            output, losses = forward(shard)
            return output, losses, torch.autograd.grad(losses.total, parameters, allow_unused=True)

        with self.threads():
            results = list(self._pool.map(work, shards))
        shares = [len(shard) / len(batch) for shard in shards]
        _set_mean(parameters, [result[2] for result in results], shares)
        losses = [result[1] for result in results]
        total = torch.stack([s * loss.total.detach() for s, loss in zip(shares, losses, strict=True)]).sum()
        terms_mean = {
            name: torch.stack([s * loss.terms[name] for s, loss in zip(shares, losses, strict=True)]).sum()
            for name in losses[0].terms
        }
        return results[0][0], Losses(total, terms_mean)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def _set_mean(
    parameters: Sequence[nn.Parameter], gradients: Sequence[Sequence[Tensor | None]], shares: Sequence[float]
) -> None:
    """Set gradients to their weighted sum over shards, in the shards' order; None where a shard has none."""
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
