"""A folder of images without ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from recon_image_datasets.splits import SPLITS, check_split, data_root, divided, group_of, has_groups, split_folder
from recon_toolkit.data.context import DataContext
from recon_toolkit.data.decode import crop_from_option
from recon_toolkit.data.packed import PackedImages
from recon_toolkit.data.packing import Source, find_images, named, pack_sources
from recon_toolkit.errors import DataError, MissingSplit
from recon_toolkit.progress import QUIET

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
