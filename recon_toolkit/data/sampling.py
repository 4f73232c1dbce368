"""Which images belong to which split, and which a training step sees."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from recon_toolkit.data.packed import PackedImages
from recon_toolkit.errors import ReconError

SPLITS = ("train", "val", "test")
#: What folders of splits are called, in lower case.
FOLDER_NAMES = {
    "train": ("train", "training", "trainset"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "testset"),
}
#: How many sub-folders with images there must be for whole sub-folders to be given to splits: one for each.
GROUPS = 3


def split_called(folder: str) -> str | None:
    """The split that a folder's name stands for, in any case; None for other names."""
    return next((split for split, words in FOLDER_NAMES.items() if folder.lower() in words), None)


def group_of(name: str) -> str:
    """The unit that goes to one split: an image's first sub-folder, or the image itself where it lies in none."""
    folder, _, file = name.partition("/")
    return folder + "/" if file else name


def divided(names: Iterable[str], fractions: dict[str, float]) -> dict[str, str]:
    """The split of each name.

    By a hash of the name, so that it stays when others come or go. A split of a fraction above 0 gets at least one name
    as long as one is left for training: of the names that would be trained on, the one whose hash lies nearest.

    Args:
        names: of images or of groups of them.
        fractions: shares of ``test`` and ``val``; the rest is for training.
    """
    positions = {name: _position(name) for name in names}
    found = {name: _split_at(position, fractions) for name, position in positions.items()}
    for split in ("test", "val"):
        if fractions[split] > 0 and split not in found.values():
            trained = sorted((position, name) for name, position in positions.items() if found[name] == "train")
            if len(trained) > 1:
                found[trained[0][1]] = split
    return found


def has_groups(names: Collection[str]) -> bool:
    """Whether names lie in enough sub-folders for these to be given to splits as a whole."""
    return len({group_of(name) for name in names if "/" in name}) >= GROUPS


def _position(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def _split_at(position: float, fractions: dict[str, float]) -> str:
    if position < fractions["test"]:
        return "test"
    return "val" if position < fractions["test"] + fractions["val"] else "train"


Indices = NDArray[np.int64]


class Sampler(Protocol):
    """The contract of a sampler, a component of the kind ``sampler``.

    It is built with those of ``data`` (the packed images), ``batch_size`` (images of a step, over all processes),
    ``group_size`` (the model's: batches are made of that many images of one group, one after another) and ``seed``
    that it takes; its other keyword arguments are its options.
    """

    def indices(self, step: int) -> Indices:
        """The images (batch_size,) of a step 0, 1, …, the same whenever it is asked."""
        ...

    def epoch(self, step: int) -> float:
        """How often the images were seen before a step."""
        ...


class Shuffled:
    """Endless permutations of a data set, cut into batches.

    Args:
        data: what is drawn from; only its length matters.
        batch_size: images of a step.
        seed: 0 or more.
    """

    def __init__(self, data: PackedImages, batch_size: int, seed: int) -> None:
        self.count, self.batch_size, self.seed = len(data), batch_size, seed

    def indices(self, step: int) -> Indices:
        return endless(step * self.batch_size, self.batch_size, self.count, (self.seed,))

    def epoch(self, step: int) -> float:
        return step * self.batch_size / self.count


class Grouped:
    """Several images of one group together: of a person, a video, an object.

    An epoch shows each group's images once, in sets of ``group_size``; what is left over in a group waits for another
    epoch, in which the sets are others.

    Args:
        data: with a field of whole numbers that says each image's group.
        batch_size: images of a step, a multiple of ``group_size``.
        group_size: images of a set.
        seed: 0 or more.
        by: the field.
        singles: a group's images that fit into no set of an epoch ``wait``, so that a group with fewer than
            ``group_size`` is left out; or they ``repeat``: an image fills the rest of its set.

    Raises:
        ReconError: the data has no such field, no group has enough images, or the batch cannot be divided.
    """

    def __init__(
        self,
        data: PackedImages,
        batch_size: int,
        group_size: int,
        seed: int,
        *,
        by: str = "group",
        singles: Literal["wait", "repeat"] = "wait",
    ) -> None:
        if batch_size % group_size:
            raise ReconError(
                f"a batch of {batch_size} images cannot be divided into groups of {group_size}",
                where="training.batch_size",
                remedy=f"make it a multiple of {group_size}",
            )
        self.labels, self.singles = data.labels(by), singles
        counts = np.unique(self.labels, return_counts=True)[1]
        self.sets = int((-(-counts // group_size) if singles == "repeat" else counts // group_size).sum())
        if not self.sets:
            raise ReconError(
                f"no {by} has {group_size} images", where="sampler", remedy="use data with more images of each"
            )
        self.batch_size, self.group_size, self.seed = batch_size, group_size, seed
        self._epochs = lru_cache(maxsize=2)(self.sets_of)

    def sets_of(self, epoch: int) -> Indices:
        """The sets (n, group_size) of an epoch, in their order."""
        rng = np.random.default_rng([self.seed, epoch, 3])
        order = np.lexsort((rng.random(len(self.labels)), self.labels))  # by group, at random within
        starts, counts = np.unique(self.labels[order], return_index=True, return_counts=True)[1:]
        place = np.arange(len(order)) - np.repeat(starts, counts)
        if self.singles == "repeat":  # the last of a group fills its set
            repeats = np.where(place == np.repeat(counts - 1, counts), np.repeat(-counts % self.group_size, counts), 0)
            order = np.repeat(order, 1 + repeats)
        else:
            order = order[place < np.repeat(counts // self.group_size * self.group_size, counts)]
        sets = order.reshape(-1, self.group_size)
        return np.asarray(sets[rng.permutation(len(sets))], dtype=np.int64)

    def indices(self, step: int) -> Indices:
        each = self.batch_size // self.group_size
        positions = np.arange(step * each, (step + 1) * each)
        return np.concatenate([self._epochs(int(p // self.sets))[p % self.sets] for p in positions])

    def epoch(self, step: int) -> float:
        return step * self.batch_size / (self.sets * self.group_size)


def in_groups(data: PackedImages, group_size: int) -> Indices:
    """All images in an order in which every ``group_size`` of them are of one group; those that fit into none are left.

    Without groups, as they are; none where no group has enough images, or the data does not say them.
    """
    if group_size == 1:
        return np.arange(len(data))
    try:
        return Grouped(data, group_size, group_size, 0).sets_of(0).reshape(-1)
    except ReconError:
        return np.empty(0, dtype=np.int64)


def default_sampler(data: PackedImages, batch_size: int, group_size: int, seed: int) -> Sampler:
    """What a pipeline without ``sampler`` has."""
    if group_size > 1:
        return Grouped(data, batch_size, group_size, seed)
    return Shuffled(data, batch_size, seed)


def random_numbers(seed: int, step: int, count: int) -> Indices:
    """A random number (count,) ≥ 0 for each image of a step."""
    return np.random.default_rng([seed, step, 2]).integers(2**62, size=count)


def mirrored(seed: int, step: int, count: int, group_size: int = 1) -> NDArray[np.bool_]:
    """Which images (count,) of a step are mirrored: a group as a whole, or not."""
    chosen = np.random.default_rng([seed, step, 1]).random(count) < 0.5
    return np.repeat(chosen[::group_size], group_size)


def share_of(values: NDArray[Any], rank: int, world: int, group_size: int = 1) -> NDArray[Any]:
    """One process's part of what a step has for each image: whole groups."""
    return values.reshape(-1, group_size)[rank::world].reshape(-1)


def endless(start: int, length: int, count: int, key: tuple[int, ...]) -> Indices:
    """Places ``start`` … ``start + length`` − 1 of endless permutations of 0 … ``count`` − 1, seeded by ``key``."""
    position = np.arange(start, start + length)
    epochs, places = position // count, position % count
    out = np.empty(length, dtype=np.int64)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        out[chosen] = _permutation(count, (*key, int(epoch), 0))[places[chosen]]
    return out


@lru_cache(maxsize=16)
def _permutation(count: int, seed: tuple[int, ...]) -> Indices:
    return np.random.default_rng(list(seed)).permutation(count)
