"""A folder of images without ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from recon_image_datasets.splits import SPLITS, check_split, data_root, split_folder, split_of
from recon_toolkit.data.context import DataContext
from recon_toolkit.data.decode import crop_from_option
from recon_toolkit.data.packed import PackedImages
from recon_toolkit.data.packing import Source, find_images, pack_sources
from recon_toolkit.errors import DataError, MissingSplit


class ImageFolder:
    """A folder of images, split by sub-folders or by their names.

    Sub-folders ``train``, ``val`` and ``test`` are the splits where there are any; otherwise each image is given to
    a split by a hash of its name, so that it stays there when images are added.

    Cropping narrows the field of view: an image of W pixels seen at ``fov`` and cropped to w pixels is seen at
    2·atan(tan(fov/2)·(w−1)/(W−1)). A pipeline's ``camera.fov`` is that of the *cropped* image.

    Args:
        root: the folder; ``--data DIR`` goes before it.
        crop: side of a centred square in pixels of the original, or a box (x0, y0, width, height); by default the
            largest centred square.
        val_fraction: share of the images for validation, where there are no sub-folders.
        test_fraction: share of the images for testing, likewise.
    """

    splits: ClassVar[tuple[str, ...]] = SPLITS

    def __init__(
        self,
        *,
        root: Path | None = None,
        crop: int | tuple[int, int, int, int] | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
    ) -> None:
        if min(val_fraction, test_fraction) < 0 or val_fraction + test_fraction >= 1:
            raise DataError(
                f"val_fraction {val_fraction} and test_fraction {test_fraction} leave nothing for training",
                where="dataset",
                remedy="choose fractions of 0 or more with a sum below 1",
            )
        self.root = root
        self.crop = crop_from_option(crop, option="dataset.crop")
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction

    def open(self, split: str, size: int, context: DataContext) -> PackedImages:
        """The images of ``split`` at ``size`` × ``size`` pixels, packed into the cache at the first use.

        Raises:
            DataError: the folder is missing or empty, has no such split, or none of its images can be used.
        """
        check_split(split)
        root = data_root(self.root, context, "image-folder")
        folder = split_folder(root, split)
        if folder is not None:
            names = {path.relative_to(root).as_posix(): path for path in find_images(folder)}
        else:
            every = {path.relative_to(root).as_posix(): path for path in find_images(root)}
            names = {
                name: path
                for name, path in every.items()
                if split_of(name, self.val_fraction, self.test_fraction) == split
            }
            if not names:
                raise MissingSplit(
                    f"none of its {len(every)} images fell to the split '{split}'",
                    where=str(root),
                    remedy=f"make sub-folders train, val and test, or raise dataset.{split}_fraction"
                    if split != "train"
                    else "lower dataset.val_fraction and dataset.test_fraction",
                )
        sources = [Source(name, path, self.crop) for name, path in names.items()]
        return pack_sources(sources, dataset="image-folder", split=split, size=size, context=context)
