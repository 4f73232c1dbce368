"""A picture seen at any size, turned and stretched, and the way back from places in such a view."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon_opencv.cascades import opencv


@dataclass(frozen=True)
class Pose:
    """How a view differs from the picture: turned by ``angle`` degrees, made wider by ``stretch``."""

    angle: float = 0.0
    stretch: float = 1.0


UPRIGHT = Pose()


@dataclass(frozen=True)
class View:
    """A part of a picture, resampled.

    Args:
        grey: (H, W) uint8.
        centre: the view's centre in the picture, in pixels from its corner.
        basis: (2, 2), from pixels of the view to pixels of the picture.
        stretch: how much wider than in the picture everything is.
    """

    grey: NDArray[np.uint8]
    centre: NDArray[np.float64]
    basis: NDArray[np.float64]
    stretch: float

    def back(self, crops: NDArray[np.float64]) -> NDArray[np.float64]:
        """Crops (N, 3), centre and side in pixels of the view → of the picture."""
        height, width = self.grey.shape
        places = self.centre + (crops[:, :2] - (width / 2, height / 2)) @ self.basis.T
        # A stretched crop is a rectangle in the picture; its mean side counts.
        scale = np.linalg.norm(self.basis[:, 1]) * (1 + 1 / self.stretch) / 2
        return np.column_stack([places, crops[:, 2] * scale])


class Pyramid:
    """A grey picture at all sizes, from which views are sampled without aliasing.

    Args:
        grey: (H, W) uint8.
    """

    def __init__(self, grey: NDArray[np.uint8]) -> None:
        cv2 = opencv()
        self.height, self.width = grey.shape
        self._levels = [grey]
        while min(self._levels[-1].shape) >= 32:
            height, width = self._levels[-1].shape
            half = ((width + 1) // 2, (height + 1) // 2)
            self._levels.append(cv2.resize(self._levels[-1], half, interpolation=cv2.INTER_AREA))

    def view(self, centre: tuple[float, float], scale: float, size: tuple[int, int], pose: Pose = UPRIGHT) -> View:
        """Sample a view; beyond the picture its edge pixels are repeated.

        Args:
            centre: what is in the middle of the view, in pixels from the picture's corner.
            scale: pixels of the picture in a pixel of the view.
            size: the view's width and height.
            pose: how it is turned and stretched.
        """
        cv2 = opencv()
        cosine, sine = math.cos(math.radians(pose.angle)), math.sin(math.radians(pose.angle))
        basis = scale * np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([1 / pose.stretch, 1.0])
        level = self._levels[min(max(0, math.floor(math.log2(scale))), len(self._levels) - 1)]
        ratio = np.array([level.shape[1] / self.width, level.shape[0] / self.height])
        middle = np.array(size) / 2
        # From the centre of a pixel of the view (index + 0.5) to that of one of the level, as an index again.
        linear = ratio[:, None] * basis
        offset = ratio * np.array(centre) - linear @ (middle - 0.5) - 0.5
        grey = cv2.warpAffine(
            level,
            np.column_stack([linear, offset]),
            size,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return View(grey, np.array(centre, dtype=np.float64), basis, pose.stretch)
