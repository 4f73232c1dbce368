"""Which folders are a data set's splits."""

from __future__ import annotations

import re
from pathlib import Path

from recon_toolkit.data.context import DataContext
from recon_toolkit.data.splits import FOLDER_NAMES, SPLITS, divided, group_of, has_groups, split_called
from recon_toolkit.errors import DataError, MissingSplit

__all__ = ["SPLITS", "check_split", "data_root", "divided", "group_of", "has_groups", "split_folder"]


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
        name = split_called(path.name)
        if name is None:
            continue
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
            + "; ".join("/".join(words[:3]) for words in FOLDER_NAMES.values())
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


def _is_near(name: str) -> bool:
    """Whether a folder's name begins or ends with a split's, or differs from one in letters' order or endings."""
    words = re.split(r"[^a-z]+", name.lower())
    return any(
        word in known or sorted(word) in (sorted(each) for each in known if len(each) > 3) or word.rstrip("s") in known
        for word in words
        if word
        for known in FOLDER_NAMES.values()
    )
