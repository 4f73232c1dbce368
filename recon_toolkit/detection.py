"""Finding objects, such as faces, in photographs, and the crop around each that a model expects.

A detector is a component of the kind ``detector``: from an image to :class:`Detection` objects. Whatever it uses to
find them, its boxes follow one convention, so that :func:`crop_box` frames them all alike.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from recon_toolkit.components import blamed
from recon_toolkit.errors import PluginError

if TYPE_CHECKING:
    from recon_toolkit.config.pipeline import ResolvedComponent
    from recon_toolkit.data.decode import Box


#: The reference's crop: its side over the box's mean side, and its centre below the box's, in halves of a side.
_MARGIN, _DOWN = 1.1, 0.15
#: Width over height of a face's box.
_ASPECT = 0.745


class Framing(TypedDict, total=False):
    """How a detector's objects are framed: arguments of :func:`crop_box`."""

    margin: float
    down: float


@dataclass(frozen=True)
class Detection:
    """An object that was found, in pixels of the upright image; pixel (u, v) covers [u, u + 1) × [v, v + 1).

    The box is tight around the object. Of a face: from where the forehead meets the hair to the chin, and from cheek
    to cheek. It may reach beyond the image's edges where the object is cut there.

    Args:
        x, y: the box's left and upper edge.
        width, height: the box's size, above 0.
        score: how sure the detector is; higher is surer, comparable within one detector only.
        label: what it is, e.g. ``human`` or ``cat``.
        mask: (H, W) bool, where in the image it is; None where the detector does not say.
        yaw: how far it is turned about the vertical axis, in degrees, positive towards the picture's right; None where
            the detector does not say.
        roll: how far it is tilted in the picture, in degrees, clockwise; None likewise.
    """

    x: float
    y: float
    width: float
    height: float
    score: float
    label: str
    mask: NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)
    yaw: float | None = None
    roll: float | None = None

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the box, (x, y)."""
        return self.x + self.width / 2, self.y + self.height / 2


class Detector(Protocol):
    """What a component of the kind ``detector`` is, once its options are set.

    One detector may be called from several threads at once, so whatever a call changes must be its own or locked. Its
    class may have attributes: ``finds``, what to call an object that it finds, ``face`` for example; ``margin`` and
    ``down``, how :func:`crop_box` frames it; ``backdrop``, the colour (red, green, blue; 0 to 255) that
    replaces all that is not in a detection's mask.
    """

    def __call__(self, image: NDArray[np.uint8], /) -> list[Detection]:
        """Find objects, whatever other threads search at the same time.

        Args:
            image: (H, W, 3) RGB, upright, of any size from one pixel on.

        Returns:
            One :class:`Detection` an object, the best first; empty where there is none.
        """
        ...


def crop_box(detection: Detection, *, margin: float = _MARGIN, down: float = _DOWN) -> Box:
    """The square around a detection that the reference's models expect (Wu et al. 2020, demo).

    Its side is ``margin`` times the mean of the box's height and width, and its centre that of the box, moved down by
    ``down`` of half a side. It may reach beyond the image: :func:`recon_toolkit.data.decode.read_image` repeats the
    edges there.

    Args:
        detection: what was found.
        margin: the side, as a multiple of the box's mean side.
        down: share of half a side.
    """
    from recon_toolkit.data.decode import Box

    side = margin * (detection.height + detection.width) / 2
    x, y = detection.centre
    return Box(x - side / 2, y + down * side / 2 - side / 2, side, side)


def face_in_crop(
    x: float,
    y: float,
    side: float,
    score: float,
    label: str,
    *,
    yaw: float | None = None,
    roll: float | None = None,
) -> Detection:
    """The detection whose :func:`crop_box`, framed as usual, is the square of ``side`` pixels around (x, y).

    Its box has the shape of a face's, 0.745 times as wide as high: MTCNN's on average (0.72 to 0.78 on eight people).
    """
    height = 2 * (side / _MARGIN) / (1 + _ASPECT)
    width = _ASPECT * height
    middle = y - _DOWN * side / 2
    return Detection(x - width / 2, middle - height / 2, width, height, score, label, yaw=yaw, roll=roll)


def check_image(image: NDArray[np.uint8]) -> None:
    """Raise ValueError where an image for a detector is not (H, W, 3) uint8."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"an image is (H, W, 3) uint8, not {image.shape} {image.dtype}")


def distinct(detections: Iterable[Detection], *, overlap: float = 0.4, smallest: float = 0.0) -> list[Detection]:
    """Without repetitions: of boxes that cover one another, the one with the highest score stays, whatever its label.

    Args:
        detections: in any order.
        overlap: two boxes are of one object where they share more than this part of the *smaller* one. So a box
            inside another counts as the same object, and faces side by side do not.
        smallest: boxes with a mean side below this many pixels are left out.

    Returns:
        The best first; equal scores by position, from the left.
    """
    order = sorted(detections, key=lambda found: (-found.score, found.x, found.y, found.width, found.label))
    kept: list[Detection] = []
    for candidate in order:
        if (candidate.width + candidate.height) / 2 < smallest:
            continue
        if all(_shared(candidate, other) <= overlap for other in kept):
            kept.append(candidate)
    return kept


def _shared(a: Detection, b: Detection) -> float:
    """The common area, as a share of the smaller box."""
    width = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    height = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    smaller = min(a.width * a.height, b.width * b.height)
    return max(width, 0.0) * max(height, 0.0) / smaller if smaller > 0 else 0.0


def found_noun(detector: Detector | None) -> str:
    """What to call an object that a detector finds: its attribute ``finds``, or ``object``, as without a detector."""
    return str(getattr(detector, "finds", "object"))


def framing_of(detector: Detector | None) -> Framing:
    """What a detector says of how its objects are framed."""
    found = Framing()
    if (margin := getattr(detector, "margin", None)) is not None:
        found["margin"] = float(margin)
    if (down := getattr(detector, "down", None)) is not None:
        found["down"] = float(down)
    return found


def build_detector(part: ResolvedComponent) -> Detector:
    """A detector with its options set, whose answers are checked and whose faults name it.

    A class is built with its options and then called with images; a function takes the image and its options together.

    >>> from recon_toolkit.config.pipeline import resolve_component
    >>> from recon_toolkit.detection import build_detector
    >>> from recon_toolkit.plugins import load_plugins
    >>> part = resolve_component("detector", "haar-faces", ["kinds=human"], load_plugins())
    >>> find = build_detector(part)  # find(image) -> list of Detection

    Args:
        part: from :func:`recon_toolkit.config.pipeline.resolve_component`.

    Raises:
        PluginError: it cannot be built; or, when called, it raises or returns something that is no detection.
            A ReconError of its own passes through.
    """
    return _Checked(part)


class _Checked:
    """A detector whose answers are checked and whose faults name it."""

    def __init__(self, part: ResolvedComponent) -> None:
        self._who = f"detector '{part.entry.name}' of plugin '{part.entry.provider}'"
        # Not the part itself, which no pool of processes could pass on.
        self._find: Callable[..., object] = (
            part.build() if inspect.isclass(part.target) else partial(part.target, **part.options)
        )
        own: Any = self._find if inspect.isclass(part.target) else part.target
        self.finds, framing = found_noun(own), framing_of(own)
        self.margin, self.down = framing.get("margin"), framing.get("down")
        self.backdrop = getattr(own, "backdrop", None)

    def __call__(self, image: NDArray[np.uint8], /) -> list[Detection]:
        with blamed(self._who):
            return _checked(self._find(image), self._who)


def _checked(answer: object, who: str) -> list[Detection]:
    if not isinstance(answer, Sequence) or not all(isinstance(item, Detection) for item in answer):
        raise PluginError(f"{who} returned {answer!r:.80}", remedy="a detector returns a list of Detection")
    for item in answer:
        numbers = (item.x, item.y, item.width, item.height, item.score)
        if not all(map(math.isfinite, numbers)) or min(item.width, item.height) <= 0:
            raise PluginError(f"{who} returned {item}", remedy="boxes are finite and have a width and a height")
    return sorted(answer, key=lambda item: -item.score)
