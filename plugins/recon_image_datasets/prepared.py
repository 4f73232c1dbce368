"""The data set ``prepared``: a folder that ``recon data prepare`` has written."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recon_image_datasets.folders import SPLITS, check_split, data_root
from recon_toolkit.data.fields import field_specs
from recon_toolkit.data.packed import INDEX, PackedImages, PackWriter
from recon_toolkit.data.packing import DataContext, open_cached
from recon_toolkit.errors import DataError, MissingSplit
from recon_toolkit.threads import given

#: What every prepared folder has.
_RECORD = "prepared.json"
#: Images that are resized between two writes.
_CHUNK = 1024


class PreparedPhotographs:
    """Photographs that ``recon data prepare`` has found, cut out, sorted and divided.

    At the size that they were prepared with they are read as they are; for smaller images they are averaged over areas,
    once, into the cache.

    Args:
        root: the folder; ``--data DIR`` goes before it.
    """

    splits: ClassVar[tuple[str, ...]] = SPLITS

    def __init__(self, *, root: Path | None = None) -> None:
        self.root = root

    def open(self, split: str, size: int, context: DataContext) -> PackedImages:
        """The crops of ``split`` at ``size`` × ``size`` pixels.

        Raises:
            MissingSplit: no crop fell to the split.
            DataError: the folder is missing, is no prepared one, or has smaller crops.
        """
        check_split(split)
        root = data_root(self.root, context, "prepared")
        if not (root / _RECORD).is_file():
            raise DataError(
                "is not prepared, or not to its end",
                where=str(root),
                remedy=f"prepare photographs there: recon data prepare PHOTOS --out {root}",
            )
        if not (root / split / INDEX).is_file():
            raise MissingSplit(
                f"no picture fell to the split '{split}'",
                where=str(root),
                remedy=f"prepare again with a larger --{split}, or with more pictures",
            )
        packed = PackedImages.open(root / split)
        if packed.image_size == size:
            return packed
        if packed.image_size < size:
            raise DataError(
                f"was prepared with {packed.image_size} pixels a side, and {size} are wanted",
                where=str(root),
                remedy=f"prepare again with --size {size}, or set image_size={packed.image_size}",
            )
        return _smaller(packed, split, size, context)


def _smaller(packed: PackedImages, split: str, size: int, context: DataContext) -> PackedImages:
    """The same images at fewer pixels, from the cache where they are there."""
    folder = context.cache / "prepared" / f"{split}-{size}px-{packed.fingerprint[:16]}"
    cached = open_cached(folder, context, "packed")
    if cached is not None:
        return cached
    count = len(packed)
    with (
        PackWriter(folder, count, size, field_specs(size)) as writer,
        context.progress.task(f"resizing prepared {split}", count, "img") as task,
        ThreadPoolExecutor(given().count) as pool,
    ):
        for start, images in _chunks(packed):
            resized = list(pool.map(lambda image: _averaged(image, size), images))
            writer.write(start, image=np.stack(resized))
            task.advance(len(images))
        return writer.finish(packed.names, {"dataset": "prepared", "split": split, "of": packed.fingerprint})


def _chunks(packed: PackedImages) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    for start in range(0, len(packed), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(packed)))
        yield start, packed.raw_batch(rows, ("image",))["image"].numpy()


def _averaged(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(3, S, S) → (3, size, size), each pixel the mean of the area that it covers."""
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    return np.asarray(picture.resize((size, size), Image.Resampling.BOX)).transpose(2, 0, 1)
