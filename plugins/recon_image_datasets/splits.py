"""Which images belong to which split."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from recon_toolkit.data.context import DataContext
from recon_toolkit.errors import DataError, MissingSplit

SPLITS = ("train", "val", "test")
#: What folders of splits are called, in lower case.
_NAMES = {
    "train": ("train", "training", "trainset"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "testset"),
}
#: How many sub-folders with images there must be for whole sub-folders to be given to splits: one for each.
GROUPS = 3


def data_root(root: Path | str | None, context: DataContext, dataset: str) -> Path:
    """The user's data folder: ``--data`` where given, else the data set's own option.

    Raises:
        DataError: neither is given, or the folder does not exist.
    """
    chosen = context.root or root
    if chosen is None:
        raise DataError(
            f"the data set {dataset} needs a folder", remedy="give --data DIR, or dataset.root in the pipeline"
        )
    path = Path(chosen).expanduser()
    if not path.is_dir():
        problem = "is a file, not a folder" if path.exists() else "no such folder"
        raise DataError(problem, where=str(path), remedy="check the path given with --data or dataset.root")
    return path


def check_split(split: str) -> None:
    """Raises DataError where ``split`` is none of :data:`SPLITS`."""
    if split not in SPLITS:
        raise DataError(f"there is no split '{split}'", remedy=f"choose one of {', '.join(SPLITS)}")


def split_folder(root: Path, split: str, context: DataContext | None = None) -> Path | None:
    """The sub-folder of ``split``, or None where ``root`` has no sub-folders for splits at all.

    Sub-folders are known in any case by the names that are common: train or training; val, valid or validation; test.

    Args:
        root: the data folder.
        split: one of :data:`SPLITS`.
        context: warns, where it is given, of sub-folders whose names look like a split's and are not.

    Raises:
        MissingSplit: other splits have a sub-folder, this one has none.
        DataError: two sub-folders are called after one split.
    """
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    present: dict[str, Path] = {}
    for path in folders:
        for name, words in _NAMES.items():
            if path.name.lower() in words:
                if name in present:
                    raise DataError(
                        f"has two folders for the split '{name}': {present[name].name} and {path.name}",
                        where=str(root),
                        remedy="rename or join them",
                    )
                present[name] = path
    near = [path.name for path in folders if path not in present.values() and _is_near(path.name)]
    if near and context is not None and split == "train":
        context.progress.warn(
            f"{root}: {', '.join(near)} not taken for a split; the names are "
            + "; ".join("/".join(words[:3]) for words in _NAMES.values())
        )
    if not present:
        return None
    if split not in present:
        raise MissingSplit(
            f"has sub-folders for {', '.join(path.name for path in present.values())}, none for '{split}'",
            where=str(root),
            remedy=f"make a folder '{split}' there, or name another split",
        )
    return present[split]


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


def _is_near(name: str) -> bool:
    """Whether a folder's name begins or ends with a split's, or differs from one in letters' order or endings."""
    words = re.split(r"[^a-z]+", name.lower())
    return any(
        word in known or sorted(word) in (sorted(each) for each in known if len(each) > 3) or word.rstrip("s") in known
        for word in words
        if word
        for known in _NAMES.values()
    )
