"""Which images belong to which split."""

from __future__ import annotations

import hashlib
from pathlib import Path

from recon_toolkit.data.context import DataContext
from recon_toolkit.errors import DataError, MissingSplit

SPLITS = ("train", "val", "test")


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


def split_folder(root: Path, split: str) -> Path | None:
    """The sub-folder of ``split``, or None where ``root`` has no sub-folders for splits at all.

    Raises:
        MissingSplit: other splits have a sub-folder, this one has none.
    """
    present = [name for name in SPLITS if (root / name).is_dir()]
    if not present:
        return None
    if split not in present:
        raise MissingSplit(
            f"has sub-folders for {', '.join(present)}, none for '{split}'",
            where=str(root),
            remedy=f"make a folder '{split}' there, or name another split",
        )
    return root / split


def split_of(name: str, val_fraction: float, test_fraction: float) -> str:
    """The split of an image by a hash of its name: it stays the same when other images come or go."""
    position = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    if position < test_fraction:
        return "test"
    return "val" if position < test_fraction + val_fraction else "train"
