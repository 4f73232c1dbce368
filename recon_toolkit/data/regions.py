"""Rectangles of pictures, as (left, top, right, bottom) in pixels: cut out, beyond the edges too, and resized."""

from __future__ import annotations

import numpy as np
from PIL import Image

Rectangle = tuple[float, float, float, float]
PixelRectangle = tuple[int, int, int, int]


def covered(box: Rectangle) -> PixelRectangle:
    """The whole pixels that a rectangle covers, if only in part."""
    return int(np.floor(box[0])), int(np.floor(box[1])), int(np.ceil(box[2])), int(np.ceil(box[3]))


def within(box: PixelRectangle, image: Image.Image) -> bool:
    """Whether a rectangle lies in the image."""
    return min(box[0], box[1]) >= 0 and box[2] <= image.width and box[3] <= image.height


def extended(image: Image.Image, box: PixelRectangle) -> Image.Image:
    """A rectangle of an image whose outermost pixels are repeated beyond its edges; no more than that is ever made.

    Args:
        image: of any mode that NumPy can hold.
        box: where; it may lie beyond the image altogether.
    """
    x0, y0, x1, y1 = box
    if within(box, image) or x0 == x1 or y0 == y1:
        return image.crop(box)
    columns, rows = np.arange(x0, x1).clip(0, image.width - 1), np.arange(y0, y1).clip(0, image.height - 1)
    inner = np.asarray(image.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)))
    return Image.fromarray(inner.take(columns - columns[0], axis=1).take(rows - rows[0], axis=0))


def scaled(inner: Image.Image, box: Rectangle, size: int) -> Image.Image:
    """What a rectangle shows at ``size`` × ``size``, with antialiasing that sees nothing outside.

    Args:
        inner: the pixels that it covers (:func:`covered`).
        box: the rectangle.
        size: in pixels.
    """
    left, top, _, _ = covered(box)
    moved = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    if moved == (0, 0, size, size):
        return inner
    return inner.resize((size, size), Image.Resampling.BILINEAR, box=moved)
