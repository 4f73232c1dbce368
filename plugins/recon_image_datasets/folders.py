"""Folders of images, and images with ground-truth depth beside them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar, Literal

from recon_toolkit.data.decode import DEPTH_SUFFIXES, IMAGE_SUFFIXES, DepthScale, crop_from_option
from recon_toolkit.data.packed import PackedImages
from recon_toolkit.data.packing import DataContext, Skipped, Source, find_files, find_images, named, pack_sources
from recon_toolkit.data.sampling import FOLDER_NAMES, SPLITS, divided, group_of, has_groups, split_called
from recon_toolkit.errors import DataError, MissingSplit
from recon_toolkit.files import printable
from recon_toolkit.progress import QUIET

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


#: Images below which a run says what would do.
FEW = 1000


class ImageFolder:
    """A folder of images, split by sub-folders or by their names.

    Sub-folders ``train``, ``val`` and ``test`` (in any case; also ``training``, ``valid``, ``validation``, ``testing``)
    are the splits where there are any. Otherwise three or more sub-folders are given to splits as a whole, by a hash of
    their names, so that a person with a folder is in one split only; and without them each image is. A hash stays as it
    is when images are added. Of few images, each split gets one at least.

    Cropping narrows the field of view: an image of W pixels seen at ``fov`` and cropped to w pixels is seen at
    2·atan(tan(fov/2)·(w−1)/(W−1)). A pipeline's ``camera.fov`` is that of the *cropped* image.

    Args:
        root: the folder; ``--data DIR`` goes before it.
        crop: side of a centred square in pixels of the original, or a box (x0, y0, width, height); by default the
            largest centred square.
        split: ``auto``, as above, or ``all``: every image is trained on, and validated and tested with.
        val_fraction: share of the images for validation, where there are no sub-folders.
        test_fraction: share of the images for testing, likewise.
        group: ``folder``: the images of a folder belong together, as those of one person, for samplers and methods that
            look at several images of one object.
    """

    splits: ClassVar[tuple[str, ...]] = SPLITS

    def __init__(
        self,
        *,
        root: Path | None = None,
        crop: int | tuple[int, int, int, int] | None = None,
        split: Literal["auto", "all"] = "auto",
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        group: Literal["none", "folder"] = "none",
    ) -> None:
        if min(val_fraction, test_fraction) < 0 or val_fraction + test_fraction >= 1:
            raise DataError(
                f"val_fraction {val_fraction} and test_fraction {test_fraction} leave nothing for training",
                where="dataset",
                remedy="choose fractions of 0 or more with a sum below 1",
            )
        self.root = root
        self.crop = crop_from_option(crop, option="dataset.crop")
        self.split, self.group = split, group
        self.fractions = {"val": val_fraction, "test": test_fraction}

    def open(self, split: str, size: int, context: DataContext) -> PackedImages:
        """The images of ``split`` at ``size`` × ``size`` pixels, packed into the cache at the first use.

        Raises:
            DataError: the folder is missing or empty, has no such split, or none of its images can be used.
        """
        check_split(split)
        root = data_root(self.root, context, "image-folder")
        folder = split_folder(root, split, context) if self.split == "auto" else None
        every = named(root, find_images(root, context.progress if split == "train" else QUIET))
        names = self._of_split(root, folder, every, split, context)
        if split == "train" and len(names) < FEW:
            context.progress.warn(
                f"{root}: {len(names)} images to train on are few: a shape is learned from some thousand, so few are "
                "rather remembered. More photographs would do, or a model that is trained already: recon reconstruct"
            )
        sources = [
            Source(name, path, self.crop, group=name.rpartition("/")[0] or "." if self.group == "folder" else None)
            for name, path in names.items()
        ]
        return pack_sources(sources, dataset="image-folder", split=split, size=size, context=context)

    def _of_split(
        self, root: Path, folder: Path | None, every: dict[str, Path], split: str, context: DataContext
    ) -> dict[str, Path]:
        """The images of a split by name, of all by name."""
        if self.split == "all":
            if split == "train":
                context.progress.warn(f"{root}: every image is trained on (split: all), so no score is of unseen ones")
            return every
        if folder is not None:
            found = {name: path for name, path in every.items() if path.is_relative_to(folder)}
            if not found:
                raise DataError("the folder holds no images", where=str(folder), remedy="put images there")
            return found
        groups = has_groups(every)
        units = {name: group_of(name) if groups else name for name in every}
        splits = divided(dict.fromkeys(units.values()), self.fractions)
        if groups and split == "train":
            counts = ", ".join(f"{list(splits.values()).count(each)} for {each}" for each in SPLITS)
            context.progress.say(f"{root}: split by its {len(splits)} sub-folders: {counts}")
        found = {name: path for name, path in every.items() if splits[units[name]] == split}
        if not found:
            option = f"raise dataset.{split}_fraction" if split != "train" else "lower the other fractions"
            raise MissingSplit(
                f"none of its {len(every)} images fell to the split '{split}'",
                where=str(root),
                remedy=f"{option}, add images, or set dataset.split=all",
            )
        return found


class DepthPairs:
    """Images with ground-truth depth, in the layout of Wu et al.'s synthetic faces.

    ``{train,val,test}/image/...`` and ``{train,val,test}/depth/...`` hold files whose paths differ in the words
    ``image`` and ``depth`` (and in the suffix, if need be). Depth is a PNG of 8 or 16 bits, depth = offset + slope ·
    value with value in [0, 1], or ``.npy`` with the depth itself. What lies before a map's furthest value is the
    object. Files without a partner are left out and counted.

    Cropping narrows the field of view: W pixels at ``fov`` cropped to w are seen at 2·atan(tan(fov/2)·(w−1)/(W−1)),
    so 256 pixels at 10° cropped to 170 are seen at 6.6°. The pipeline's ``camera.fov`` is that of the *cropped*
    image; with another one, ground-truth normals and predictions disagree in scale. (The original treats its
    170-pixel crops as seen at 10°.)

    Args:
        root: the folder; ``--data DIR`` goes before it.
        crop: side of a centred square in pixels of the original, or a box (x0, y0, width, height); by default the
            largest centred square. The published synthetic faces want 170.
        depth_offset: depth of a zero in an integer depth image.
        depth_slope: change of depth from the smallest to the largest value; negative where bright is near.
    """

    splits: ClassVar[tuple[str, ...]] = SPLITS

    def __init__(
        self,
        *,
        root: Path | None = None,
        crop: int | tuple[int, int, int, int] | None = None,
        depth_offset: float = 1.1,
        depth_slope: float = -0.2,
    ) -> None:
        if depth_slope == 0 or min(depth_offset, depth_offset + depth_slope) <= 0:
            raise DataError(
                f"offset {depth_offset} and slope {depth_slope} do not give depths above 0",
                where="dataset.depth_offset",
                remedy="the published synthetic faces have 1.1 and -0.2",
            )
        self.root = root
        self.crop = crop_from_option(crop, option="dataset.crop")
        self.scale = DepthScale(depth_offset, depth_slope)

    def open(self, split: str, size: int, context: DataContext) -> PackedImages:
        """The pairs of ``split`` at ``size`` × ``size`` pixels, packed into the cache at the first use.

        Raises:
            DataError: the folder is missing, empty, without pairs, or none of its files can be used.
        """
        check_split(split)
        root = data_root(self.root, context, "depth-pairs")
        folder = split_folder(root, split, context)
        if folder is None:
            raise DataError(
                "has no folders train, val and test",
                where=str(root),
                remedy="arrange the files as {train,val,test}/{image,depth}/...",
            )
        sources, skipped = self._pairs(root, folder)
        return pack_sources(
            sources, dataset="depth-pairs", split=split, size=size, context=context, scale=self.scale, skipped=skipped
        )

    def _pairs(self, root: Path, folder: Path) -> tuple[list[Source], list[Skipped]]:
        """The pairs below ``folder``, and the files without a partner."""
        for name in ("image", "depth"):
            if not (folder / name).is_dir():
                raise DataError(
                    f"has no folder '{name}'",
                    where=str(folder),
                    remedy="arrange the files as {train,val,test}/{image,depth}/..., or use image-folder without depth",
                )
        images = {_key(path, folder, "image"): path for path in find_files(folder / "image", IMAGE_SUFFIXES)}
        depths = {_key(path, folder, "depth"): path for path in find_files(folder / "depth", DEPTH_SUFFIXES)}
        if not images:
            raise DataError("the folder holds no images", where=str(folder / "image"), remedy="put the images there")
        paired = images.keys() & depths.keys()
        if not paired:
            example = next(iter(images.values())).relative_to(folder).as_posix()
            raise DataError(
                f"none of the {len(images)} images has a depth map among {len(depths)}",
                where=str(folder),
                remedy=f"{example} goes with {example.replace('image', 'depth')}",
            )
        skipped = [
            Skipped(printable(path.relative_to(root).as_posix()), f"no {other} belongs to it")
            for files, other in ((images, "depth map"), (depths, "image"))
            for key, path in files.items()
            if key not in paired
        ]
        sources = [
            Source(printable(path.relative_to(root).as_posix()), path, self.crop, depths[key])
            for key, path in images.items()
            if key in paired
        ]
        return sources, skipped


def _key(path: Path, folder: Path, word: str) -> str:
    """What an image and its depth map have in common: the path with ``image`` or ``depth`` taken out, no suffix."""
    return path.relative_to(folder).with_suffix("").as_posix().replace(word, "*")
