"""A packed data set as image and depth files, in the layout of Wu et al.'s synthetic faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon_toolkit.data.packed import PackedImages
from recon_toolkit.errors import DataError
from recon_toolkit.export.pictures import write_depth_png, write_picture
from recon_toolkit.files import writing
from recon_toolkit.progress import QUIET, Progress

BATCH = 64


def write_dataset(
    folder: Path,
    images: PackedImages,
    *,
    count: int | None = None,
    depth_as_png: bool = True,
    progress: Progress = QUIET,
) -> int:
    """Write ``image/image_000000.png`` and, with depth, ``depth/depth_000000.png`` (or ``.npy``) and so on.

    Args:
        folder: where; made if missing.
        images: the data set.
        count: how many at most; all by default.
        depth_as_png: 16 bits, depth = 1.1 − 0.2 · value, background 0; otherwise ``.npy``, float32, background NaN.
        progress: where to show progress.

    Returns:
        How many images were written.

    Raises:
        DataError: a depth lies outside [0.9, 1.1], which the PNG cannot say, or the disk is full.
    """
    total = min(count or len(images), len(images))
    with progress.task(f"writing {folder.name}", total, "img") as task:
        for start in range(0, total, BATCH):
            batch = images.batch(np.arange(start, min(start + BATCH, total)))
            for row in range(len(batch)):
                number = f"{start + row:06d}"
                write_picture(folder / "image" / f"image_{number}.png", batch.image[row])
                if batch.depth is not None:
                    depth = batch.depth[row].numpy()
                    mask = np.isfinite(depth) if batch.mask is None else batch.mask[row].numpy()
                    _write_depth(folder / "depth" / f"depth_{number}", depth, mask, depth_as_png)
            task.advance(len(batch))
    return total


def _write_depth(path: Path, depth: NDArray[np.float32], mask: NDArray[np.bool_], as_png: bool) -> None:
    if not as_png:
        with writing(path.with_suffix(".npy")) as file:
            np.save(file, np.where(mask, depth, np.nan).astype(np.float32), allow_pickle=False)
        return
    inside = depth[mask]
    if inside.size and (inside.min() < 0.9 - 1e-5 or inside.max() > 1.1 + 1e-5):
        raise DataError(
            f"depths from {inside.min():.3f} to {inside.max():.3f} do not fit the PNG's range from 0.9 to 1.1",
            where=str(path),
            remedy="write them with --depth npy",
        )
    write_depth_png(path.with_suffix(".png"), depth, mask, plain=True)
