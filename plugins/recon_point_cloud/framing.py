"""Finding an object on a plain background, and framing it as the pictures that models learn from are framed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon_toolkit.detection import Detection
from recon_toolkit.errors import DataError

#: A pixel differs from the background by more than this in some channel, of 255: more than JPEG's noise or a shade.
DIFFERENT = 24
#: The share of the picture's rim that the background has at least.
PLAIN = 0.9
#: Spots below this share of the picture are dirt.
SPOT = 0.0005


class PlainBackground:
    """Finds the object that stands alone before a plain background of any colour, and puts it before a white one.

    Its frame is that of the procedural objects and of ShapeNet's renderings, in which an object has a bounding box
    with a diagonal of the picture's side: measured over 1,715 of them, the mean of a box's height and width is
    0.69 ± 0.05 of that side, and its middle 0.017 below the picture's.
    """

    finds = "object"
    margin, down = 1.446, -0.033
    #: What models have seen behind objects.
    backdrop = (255, 255, 255)

    def __call__(self, image: NDArray[np.uint8], /) -> list[Detection]:
        """The object's box and mask.

        Raises:
            DataError: the background is not plain, or nothing is before it.
        """
        from scipy.ndimage import binary_opening, find_objects, label

        height, width = image.shape[:2]
        if min(height, width) < 8:
            raise DataError(f"the picture has only {width} × {height} pixels", remedy="use a larger one")
        rim = np.concatenate((image[0], image[-1], image[:, 0], image[:, -1])).astype(np.int16)
        background = np.median(rim, axis=0)
        if (np.abs(rim - background).max(axis=1) <= DIFFERENT).mean() < PLAIN:
            raise DataError(
                "the background is not plain, so the object cannot be told from it",
                remedy="cut the object out and put it before white; --no-detect takes the picture as it is",
            )
        object_ = np.abs(image.astype(np.int16) - background).max(axis=2) > DIFFERENT
        # Lines of one pixel are an edge of the scan, or noise, except where the whole picture is small.
        object_ = binary_opening(object_, np.ones((2, 2))) if min(height, width) >= 256 else object_
        labels, count = label(object_, np.ones((3, 3)))
        sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        boxes = [box for box, size in zip(find_objects(labels), sizes, strict=True) if size >= SPOT * object_.size]
        if not boxes:
            raise DataError("nothing stands before the plain background", remedy="use a picture of an object")
        # Legs may be apart from the seat where they are as bright as the background: all pieces are one object.
        top, left = (min(box[axis].start for box in boxes) for axis in (0, 1))
        bottom, right = (max(box[axis].stop for box in boxes) for axis in (0, 1))
        place = (float(left), float(top), float(right - left), float(bottom - top))
        return [Detection(*place, score=1.0, label="object", mask=object_)]
