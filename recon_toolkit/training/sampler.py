"""Which images a step sees, and which of them mirrored: a pure function of the seed and the step.

Nothing has to be saved to continue a run: step n asks for its images and gets the same ones.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_toolkit.data.fields import NAMED_FIELDS
from recon_toolkit.errors import ReconError
from recon_toolkit.structures import Batch


@dataclass(frozen=True)
class Sampler:
    """Endless seeded permutations of a data set, cut into batches.

    Args:
        count: images in the data set.
        batch_size: images per step, over all processes.
        seed: any non-negative integer.
        rank, world: this process and the number of processes; each takes its slice of every batch.
    """

    count: int
    batch_size: int
    seed: int
    rank: int = 0
    world: int = 1

    def indices(self, step: int) -> NDArray[np.int64]:
        """Images of this process at a step (0, 1, …)."""
        position = np.arange(step * self.batch_size, (step + 1) * self.batch_size)[self.rank :: self.world]
        epochs, places = position // self.count, position % self.count
        out = np.empty(len(position), dtype=np.int64)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            out[chosen] = _permutation(self.seed, int(epoch), self.count)[places[chosen]]
        return out

    def mirrored(self, step: int) -> Tensor:
        """Which of this process's images (bool) are mirrored at a step."""
        draws = np.random.default_rng([self.seed, step, 1]).random(self.batch_size) < 0.5
        return torch.from_numpy(draws[self.rank :: self.world])

    def draws(self, step: int) -> Tensor:
        """A random number (int64 ≥ 0) for each of this process's images at a step."""
        draws = np.random.default_rng([self.seed, step, 2]).integers(2**62, size=self.batch_size)
        return torch.from_numpy(draws[self.rank :: self.world])

    def epoch(self, step: int) -> float:
        """Epochs seen before a step."""
        return step * self.batch_size / self.count


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch, 0]).permutation(count)


def check_mirrorable(fields: Collection[str]) -> None:
    """Raise ReconError if there is a field among these whose mirror image :func:`mirror` does not know."""
    strange = sorted(set(fields) - NAMED_FIELDS)
    if strange:
        raise ReconError(
            f"images cannot be mirrored together with {', '.join(strange)}, whose mirror image is not known",
            where="training.augment_flip",
            remedy="set it to false",
        )


def mirror(batch: Batch, chosen: Tensor) -> Batch:
    """The batch with the chosen images (B,) mirrored left to right, and their ground truth with them."""
    pick = chosen.to(batch.image.device)

    def flipped(tensor: Tensor | None, sign: Tensor | None = None) -> Tensor | None:
        if tensor is None:
            return None
        other = tensor.flip(-1) if tensor.ndim > 2 else tensor
        if sign is not None:
            other = other * sign.to(other)
        return torch.where(pick.reshape(-1, *[1] * (tensor.ndim - 1)), other, tensor)

    image = flipped(batch.image)
    assert image is not None
    return replace(
        batch,
        image=image,
        depth=flipped(batch.depth),
        mask=flipped(batch.mask),
        albedo=flipped(batch.albedo),
        normals=flipped(batch.normals, torch.tensor([-1.0, 1, 1])[:, None, None]),
        light=flipped(batch.light, torch.tensor([1.0, 1, -1, 1, 1])),
        view=flipped(batch.view, torch.tensor([1.0, -1, -1, -1, 1, 1])),
    )
