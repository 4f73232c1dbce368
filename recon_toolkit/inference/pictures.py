"""Pictures and videos → crops that a model can take: decode, find the objects, cut them out."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from recon_toolkit.data.decode import Box, CentreCrop, cut, decode_image, read_image, upright_rgb
from recon_toolkit.detection import Detector, crop_box, found_noun, framing_of
from recon_toolkit.errors import DataError
from recon_toolkit.files import printable

#: How far numbers may lie outside of [0, 1], by the rounding of filters that resize.
_SLACK = 1e-2
#: Largest side in pixels of the photograph that is kept for textures and pages.
PHOTO_SIDE = 256


@dataclass(frozen=True)
class Source:
    """A picture to reconstruct: an image file, or a frame of a video.

    Attributes:
        path: the file.
        folder: where its results go, below the output folder.
        frame: the frame's number in a video; None for an image.
    """

    path: Path
    folder: str
    frame: int | None = None

    @property
    def label(self) -> str:
        """What to call it in messages."""
        return printable(self.path) if self.frame is None else f"{printable(self.path)} frame {self.frame}"


@dataclass(frozen=True)
class Crop:
    """A square cut out of a picture.

    Attributes:
        source: the picture.
        name: a name and folder for the result; where a picture has several, it ends in ``-face2`` and so on.
        pixels: (S, S, 3) uint8, what the model sees.
        photo: (P, P, 3) uint8, the same at up to :data:`PHOTO_SIDE` pixels.
        box: x, y, width and height in the picture; None if it was taken as it is.
        label: what the detector says it is.
    """

    source: Source
    name: str
    pixels: NDArray[np.uint8]
    photo: NDArray[np.uint8]
    box: tuple[float, float, float, float] | None
    label: str | None = None


@dataclass(frozen=True)
class Finder:
    """How crops are found in pictures.

    Attributes:
        size: side of the model's images in pixels.
        detector: finds the objects; None takes the largest centred square of each picture as a crop.
        limit: most objects per picture, the best first.
        size_of: side of the images of the model that a label's objects go to, where there are several models.
    """

    size: int
    detector: Detector | None
    limit: int = 50
    size_of: Callable[[str | None], int] | None = None

    @property
    def noun(self) -> str:
        """What to call what is found."""
        return found_noun(self.detector)

    def crops(self, image: NDArray[np.uint8], source: Source) -> list[Crop]:
        """The crops in a picture (H, W, 3) uint8.

        Raises:
            DataError: nothing was found.
        """
        picture = Image.fromarray(image)
        if self.detector is None:
            box = CentreCrop().box(picture.width, picture.height)
            return [self._cut(picture, box, Crop(source, source.folder, image, image, None))]
        found = self.detector(image)[: self.limit]
        if not found:
            raise DataError(
                f"no {self.noun} was found",
                where=source.label,
                remedy=f"crop it by hand so that the {self.noun} fills a square, and add --no-detect",
            )
        crops = []
        for number, detection in enumerate(found, start=1):
            box = crop_box(detection, **framing_of(self.detector))
            name = source.folder if len(found) == 1 else f"{source.folder}-{self.noun}{number}"
            place = (box.x, box.y, box.width, box.height)
            crop = Crop(source, name, image, image, place, detection.label)
            backdrop = getattr(self.detector, "backdrop", None)
            if backdrop is None or detection.mask is None:
                crops.append(self._cut(picture, box, crop))
            else:
                alone, moved = _alone(image, detection.mask, backdrop, box)
                crops.append(self._cut(alone, moved, crop))
        return crops

    def _cut(self, picture: Image.Image, box: Box, crop: Crop) -> Crop:
        """``crop`` with its pixels: the box of a picture."""
        size = self.size if self.size_of is None else self.size_of(crop.label)
        side = min(PHOTO_SIDE, max(size, round(box.width)))
        photo = cut(picture, box, side, crop.source.path)
        pixels = photo if side == size else cut(picture, box, size, crop.source.path)
        return replace(crop, pixels=np.asarray(pixels), photo=np.asarray(photo))


def _alone(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], backdrop: tuple[int, int, int], box: Box
) -> tuple[Image.Image, Box]:
    """An object before a backdrop, which also fills what the box has beyond the picture; and the box in that."""
    painted = np.where(mask[..., None], image, np.asarray(backdrop, dtype=np.uint8))
    height, width = mask.shape
    left, top = max(0, math.ceil(-box.x) + 1), max(0, math.ceil(-box.y) + 1)
    right, bottom = max(0, math.ceil(box.x + box.width - width) + 1), max(0, math.ceil(box.y + box.height - height) + 1)
    canvas = np.empty((top + height + bottom, left + width + right, 3), dtype=np.uint8)
    canvas[:] = backdrop
    canvas[top : top + height, left : left + width] = painted
    return Image.fromarray(canvas), Box(box.x + left, box.y + top, box.width, box.height)


def video_sources(source: Source, *, every: int, limit: int | None) -> Iterator[tuple[Source, NDArray[np.uint8]]]:
    """Every ``every``-th frame of a video, at most ``limit`` of them, each with its picture.

    Raises:
        DataError: the video cannot be read, or breaks off; the frames before that have been yielded.
    """
    from recon_toolkit.data.video import read_frames

    for number, image in read_frames(source.path, every=every, limit=limit):
        yield Source(source.path, f"{source.folder}/frame-{number:06d}", number), image


def pixels_of(picture: Any) -> NDArray[np.uint8]:
    """A picture in any of the usual forms as (H, W, 3) uint8.

    Args:
        picture: a path, an image file as bytes or as an open file, a Pillow image, a NumPy array (H, W), (H, W, 3) or
            (H, W, 4), uint8 or floating in [0, 1], or a tensor (3, H, W) of either.

    Raises:
        DataError: a file cannot be read, or the array has another shape, type or range.
    """
    if isinstance(picture, str | os.PathLike):
        return read_image(os.fsdecode(picture))
    if isinstance(picture, bytes | bytearray | memoryview):
        return decode_image(bytes(picture))
    if hasattr(picture, "read"):
        content = picture.read()
        if not isinstance(content, bytes):
            raise DataError("the file is open for text", remedy="open it with mode 'rb'")
        return decode_image(content, name=str(getattr(picture, "name", "the picture")))
    if isinstance(picture, Image.Image):
        return np.array(upright_rgb(picture))
    if hasattr(picture, "detach"):  # a tensor: channels first
        picture = picture.detach().cpu()
        picture = picture if str(picture.dtype) == "torch.uint8" else picture.float()
        if picture.ndim != 3 or picture.shape[0] != 3:
            raise DataError(f"a tensor {tuple(picture.shape)} is not a picture", remedy="give (3, H, W) in [0, 1]")
        picture = picture.permute(1, 2, 0).numpy()
    array = np.asarray(picture)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] not in (3, 4) or 0 in array.shape:
        raise DataError(f"an array {array.shape} is not a picture", remedy="give (H, W, 3), uint8 or in [0, 1]")
    if array.dtype != np.uint8:
        if not np.issubdtype(array.dtype, np.floating):
            raise DataError(f"an array of {array.dtype} is not a picture", remedy="give uint8, or floats in [0, 1]")
        if not np.isfinite(array).all() or array.min() < -1e-3 or array.max() > 1 + 1e-3:
            raise DataError("the array's values are not all in [0, 1]", remedy="divide by the largest there can be")
        array = np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
    # As in files: transparent parts are laid on white.
    return np.array(upright_rgb(Image.fromarray(np.ascontiguousarray(array))))


def as_batch(images: Any, size: int) -> Tensor:
    """Crops in any of the usual number types as a float32 tensor (B, 3, size, size) in [0, 1].

    Raises:
        ValueError: the shape or the type is another, or a number is not finite or lies outside of [0, 1].
    """
    batch = images.detach() if isinstance(images, Tensor) else torch.as_tensor(np.asarray(images))
    if batch.ndim != 4 or batch.shape[1:] != (3, size, size):
        raise ValueError(f"expected (B, 3, {size}, {size}), got {tuple(batch.shape)}")
    if batch.dtype == torch.uint8:
        return batch.float() / 255
    if not batch.is_floating_point():
        raise ValueError(f"expected uint8, or floating-point numbers in [0, 1], got {batch.dtype}")
    batch = batch.float()
    if batch.numel():
        low, high = (float(bound) for bound in batch.aminmax())
        if not (low >= -_SLACK and high <= 1 + _SLACK):  # so that NaN fails
            hint = "halve and add 0.5" if -1 - _SLACK <= low < 0 and high <= 1 + _SLACK else "divide by 255"
            hint = "check them for NaN" if not math.isfinite(low + high) else hint
            raise ValueError(f"expected numbers in [0, 1], got {low:g} to {high:g}; {hint}")
    return batch
