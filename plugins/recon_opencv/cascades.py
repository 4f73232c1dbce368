"""OpenCV's cascade classifiers, and an image seen at any size, turned and stretched, for them to look at."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_toolkit.errors import DataError, PluginError

_WHERE = "detector haar-faces"
_REMEDY = "pip install 'opencv-python-headless>=4.8,<5' (OpenCV 5 comes without cascades)"


@dataclass(frozen=True)
class Framing:
    """Where the crop of a face lies (:func:`recon_toolkit.detection.crop_box`), in sides of a window that found it.

    Args:
        side: the crop's side.
        down: how far its centre is below the window's.
        right: and to the right of it.
    """

    side: float
    down: float
    right: float = 0.0


# Measured on crops of Wu et al.'s demo, eight people and eight cats: there the crop is known. Standard deviation
# between people: 0.03 of the side (a detector's own, MTCNN's, is 0.03 too), between cats 0.08.
FRONTAL = Framing(side=1.056, down=0.067)
PROFILE = Framing(side=1.03, down=0.077, right=-0.05)
CAT = Framing(side=1.215, down=-0.115)


@dataclass(frozen=True)
class Cascade:
    """A cascade and what its windows mean.

    Args:
        file: its name within OpenCV's folder, or the path of another.
        framing: of its windows.
        mirrored: whether to search the mirror image; for profiles, which are seen from one side only.
    """

    file: str | Path
    framing: Framing
    mirrored: bool = False


def opencv() -> Any:
    """The module ``cv2``.

    Raises:
        PluginError: it is not installed, or cannot be imported.
    """
    try:
        import cv2
    except ImportError as error:
        raise PluginError(f"OpenCV cannot be imported: {error}", where=_WHERE, remedy=_REMEDY) from error
    return cv2


def load(file: str | Path) -> Any:
    """A ``cv2.CascadeClassifier``.

    Args:
        file: a name within OpenCV's own folder, or the path of a cascade (XML) of one's own.

    Raises:
        PluginError: OpenCV or its folder of cascades is missing.
        DataError: a file of one's own is missing, or no cascade that can be used.
    """
    cv2 = opencv()
    if isinstance(file, Path):
        return _own(cv2, file.expanduser())
    folder = getattr(getattr(cv2, "data", None), "haarcascades", None)
    if folder is None or not Path(folder, file).is_file():
        raise PluginError(f"OpenCV {cv2.__version__} lacks the cascade {file}", where=_WHERE, remedy=_REMEDY)
    return cv2.CascadeClassifier(str(Path(folder, file)))


def _own(cv2: Any, path: Path) -> Any:
    remedy = "give an XML file of OpenCV's cascade classifiers"
    if not path.is_file():
        raise DataError("there is no such file", where=str(path), remedy=remedy)
    try:
        found = cv2.CascadeClassifier(str(path))
        usable = not found.empty()
    except (cv2.error, SystemError) as error:  # the latter where its parser gives up
        cause = getattr(error, "err", None) or error
        raise DataError(f"is no cascade: {cause}", where=str(path), remedy=remedy) from None
    if not usable:
        raise DataError("is no cascade", where=str(path), remedy=remedy)
    return found


class Classifiers(threading.local):
    """The classifiers of some cascade files, for each thread its own: OpenCV's must not be shared while they search.

    A thread loads its own when it first asks for one (about 10 ms a file).

    Args:
        files: as for :func:`load`.

    Raises:
        PluginError, DataError: as :func:`load`, at once or, where a file has gone since, in the thread that loads it.
    """

    def __init__(self, files: Iterable[str | Path]) -> None:  # called anew in each thread, with the same files
        self._loaded = {file: load(file) for file in files}

    def __reduce__(self) -> tuple[type[Classifiers], tuple[list[str | Path]]]:
        return Classifiers, (list(self._loaded),)

    def __getitem__(self, file: str | Path) -> Any:
        return self._loaded[file]


def crops(
    classifier: Any, cascade: Cascade, grey: NDArray[np.uint8], *, smallest: float, largest: float, step: float
) -> NDArray[np.float64]:
    """The crops around all windows that the cascade takes for faces, many for each face.

    Args:
        classifier: the cascade, loaded.
        cascade: what its windows mean.
        grey: the picture (H, W).
        smallest, largest: sides of the crops to look for, in pixels.
        step: factor from one size to the next, above 1.

    Returns:
        (N, 3): centre x, centre y and side, in pixels from the picture's corner.
    """
    low, high = (max(1, round(side / cascade.framing.side)) for side in (smallest, largest))
    searched = np.ascontiguousarray(grey[:, ::-1]) if cascade.mirrored else grey
    # No grouping (0 neighbours): how many windows agree is what tells a face from a chance.
    windows = classifier.detectMultiScale(searched, step, 0, 0, (low, low), (high, high))
    boxes = np.asarray(windows, dtype=np.float64).reshape(-1, 4)
    boxes = boxes[np.lexsort(boxes.T)]  # several threads find them in any order
    side = boxes[:, 2]
    x = boxes[:, 0] + side * (0.5 + cascade.framing.right)
    if cascade.mirrored:
        x = grey.shape[1] - x
    return np.stack([x, boxes[:, 1] + side * (0.5 + cascade.framing.down), side * cascade.framing.side], axis=1)


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
