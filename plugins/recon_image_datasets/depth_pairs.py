"""Images with ground-truth depth beside them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from recon_image_datasets.splits import SPLITS, check_split, data_root, split_folder
from recon_toolkit.data.context import DataContext
from recon_toolkit.data.decode import DEPTH_SUFFIXES, IMAGE_SUFFIXES, DepthScale, crop_from_option
from recon_toolkit.data.packed import PackedImages
from recon_toolkit.data.packing import Skipped, Source, find_files, pack_sources
from recon_toolkit.errors import DataError
from recon_toolkit.files import legible


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
            Skipped(legible(path.relative_to(root).as_posix()), f"no {other} belongs to it")
            for files, other in ((images, "depth map"), (depths, "image"))
            for key, path in files.items()
            if key not in paired
        ]
        sources = [
            Source(legible(path.relative_to(root).as_posix()), path, self.crop, depths[key])
            for key, path in images.items()
            if key in paired
        ]
        return sources, skipped


def _key(path: Path, folder: Path, word: str) -> str:
    """What an image and its depth map have in common: the path with ``image`` or ``depth`` taken out, no suffix."""
    return path.relative_to(folder).with_suffix("").as_posix().replace(word, "*")
