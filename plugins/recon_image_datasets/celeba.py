"""CelebA: faces in the wild, by the crop list of Wu et al. or from a folder that is cropped already."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from recon_image_datasets.folders import SPLITS, check_split, data_root, split_folder
from recon_toolkit.data.decode import Box, CentreCrop, Crop, crop_from_option
from recon_toolkit.data.packed import PackedImages
from recon_toolkit.data.packing import DataContext, Skipped, Source, find_images, named, pack_sources
from recon_toolkit.errors import DataError, MissingSplit

CROP_LIST = "celeba_crop_bbox.txt"  # as Wu et al. publish it
PARTITION = "list_eval_partition.txt"  # as CelebA publishes it
#: As it is redistributed with commas and a heading.
PARTITION_TABLE = "list_eval_partition.csv"
IMAGE_FOLDERS = ("img_celeba", "img_align_celeba")
#: In the aligned 178×218 images the eyes are at about (69, 111) and (108, 111): the face fills this box, with the
#: eyes a little above its middle.
ALIGNED_FACE = Box(32, 64, 114, 114)
LEAST_SIDE = 10  # smaller crops are left out, as the original does


class CelebA:
    """CelebA faces: originals with a crop list, or a folder already cropped.

    The folder is one of:

    - images in ``img_celeba/`` (in the wild) and ``celeba_crop_bbox.txt`` with lines ``name split x0 y0 w h``,
      split 0, 1, 2 for train, val, test. A box that reaches beyond the image repeats its edge, as the original does;
    - images in ``img_align_celeba/`` (aligned, 178×218) and ``list_eval_partition.txt`` with lines ``name split``, or
      the ``.csv`` with commas and a heading; ``img_align_celeba/img_align_celeba/`` is as good;
    - ``train/``, ``val/`` and ``test/`` with faces that are cropped already.

    Nothing is known of the photographs' field of view; the pipeline's ``camera.fov`` is a guess about the crop.

    Args:
        root: the folder; ``--data DIR`` goes before it.
        crop_list: the list of crops, where it lies elsewhere or has another name.
        crop: instead of the list's boxes: side of a centred square in pixels, or a box (x0, y0, width, height).
    """

    splits: ClassVar[tuple[str, ...]] = SPLITS

    def __init__(
        self,
        *,
        root: Path | None = None,
        crop_list: Path | None = None,
        crop: int | tuple[int, int, int, int] | None = None,
    ) -> None:
        self.root = root
        self.crop_list = crop_list
        self.crop = None if crop is None else crop_from_option(crop, option="dataset.crop")

    def open(self, split: str, size: int, context: DataContext) -> PackedImages:
        """The faces of ``split`` at ``size`` × ``size`` pixels, packed into the cache at the first use.

        Raises:
            DataError: the folder or the list is missing, empty or malformed, or none of its images can be used.
        """
        check_split(split)
        root = data_root(self.root, context, "celeba")
        skipped: list[Skipped] = []
        listed = self._list_file(root)
        if listed is not None:
            sources, skipped = self._listed(root, listed, split)
        else:
            folder = split_folder(root, split, context)
            if folder is None:
                raise DataError(
                    f"holds neither {CROP_LIST}, nor {PARTITION}, nor folders train, val and test",
                    where=str(root),
                    remedy="see the data set's documentation for the layouts, or give dataset.crop_list",
                )
            crop = self.crop or CentreCrop()
            sources = [
                Source(name, path, crop) for name, path in named(root, find_images(folder, context.progress)).items()
            ]
        return pack_sources(sources, dataset="celeba", split=split, size=size, context=context, skipped=skipped)

    def _list_file(self, root: Path) -> Path | None:
        if self.crop_list is not None:
            path = self.crop_list.expanduser()
            path = path if path.is_absolute() or path.exists() else root / path
            if not path.is_file():
                raise DataError("no such crop list", where=str(path), remedy="check dataset.crop_list")
            return path
        return next((root / name for name in (CROP_LIST, PARTITION, PARTITION_TABLE) if (root / name).is_file()), None)

    def _listed(self, root: Path, listed: Path, split: str) -> tuple[list[Source], list[Skipped]]:
        images = next((root / name for name in IMAGE_FOLDERS if (root / name).is_dir()), root)
        # Redistributed archives hold the folder inside a folder of its name.
        images = images / images.name if (images / images.name).is_dir() else images
        wanted = SPLITS.index(split)
        sources: list[Source] = []
        skipped: list[Skipped] = []
        try:
            lines = listed.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot be read: {error}", where=str(listed), remedy="give a text file") from None
        for number, line in enumerate(lines, 1):
            words = line.replace(",", " ").split()
            if not words or words[0].startswith("#"):
                continue
            numbers = _integers(words[1:])
            if numbers is None and number <= 2:  # a heading
                continue
            if numbers is None or len(numbers) not in (1, 5) or numbers[0] not in (0, 1, 2):
                raise DataError(
                    f"'{line.strip()[:80]}' is not 'name split' or 'name split x0 y0 w h' with split 0, 1 or 2",
                    where=f"{listed}:{number}",
                    remedy="correct or remove the line",
                )
            if numbers[0] != wanted:
                continue
            box = numbers[1:]
            if self.crop is None and box and min(box[2:]) <= LEAST_SIDE:
                skipped.append(Skipped(words[0], f"its crop is only {box[2]}×{box[3]} pixels"))
                continue
            sources.append(Source(words[0], images / words[0], self._crop(box)))
        if not sources:
            raise MissingSplit(f"lists no images of the split '{split}'", where=str(listed), remedy="check the list")
        if not any(source.path.exists() for source in sources):
            raise DataError(
                f"none of the {len(sources)} images listed in {listed.name} are there",
                where=str(images),
                remedy=f"unpack the images into {root / IMAGE_FOLDERS[0]}",
            )
        return sources, skipped

    def _crop(self, box: list[int]) -> Crop:
        if self.crop is not None:
            return self.crop
        return Box(*box) if box else ALIGNED_FACE


def _integers(words: list[str]) -> list[int] | None:
    try:
        return [int(word) for word in words] or None
    except ValueError:
        return None
