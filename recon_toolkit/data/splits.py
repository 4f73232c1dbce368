"""Which images belong to which split, by their names alone."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

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
