"""One picture → its objects: found, cut out, measured, and judged as far as one picture alone tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recon_toolkit.data.decode import Box, CentreCrop
from recon_toolkit.data.quality import Measures, measure
from recon_toolkit.detection import Detection, Detector, crop_box, framing_of
from recon_toolkit.errors import ReconError
from recon_toolkit.inference.pictures import Crop, Finder, Source
from recon_toolkit.preparation.record import Picture, PrepareOptions, Reason
from recon_toolkit.preparation.sources import Item

#: Most objects of a picture that are looked at.
OBJECTS = 50
#: Side in pixels of the pictures on contact sheets.
THUMB = 96


@dataclass(frozen=True)
class Seen:
    """An object in a picture, or a picture without one.

    Attributes:
        picture: its record.
        thumb: (96, 96, 3) uint8; None where the picture could not be read.
        pixels: (S, S, 3) uint8, the crop; None where it is left out already.
        measures: likewise.
    """

    picture: Picture
    thumb: NDArray[np.uint8] | None = None
    pixels: NDArray[np.uint8] | None = None
    measures: Measures | None = None


class _Given:
    """A detector that has found already: what it found, framed as another frames it."""

    def __init__(self, detector: Detector | None, found: Sequence[Detection]) -> None:
        framing = framing_of(detector) if detector is not None else {"margin": 1.0, "down": 0.0}
        self.margin, self.down = framing.get("margin"), framing.get("down")
        self.backdrop = getattr(detector, "backdrop", None)
        self._found = list(found)

    def __call__(self, image: NDArray[np.uint8], /) -> list[Detection]:
        return self._found


def look(item: Item, options: PrepareOptions, detector: Detector | None) -> list[Seen]:
    """What is in a picture; at least one answer.

    Args:
        item: the picture.
        options: what is cut out and what is left out.
        detector: finds the objects; None takes a square of each picture.
    """
    if item.load is None:
        return [Seen(item.picture)]
    try:
        image = item.load()
        found = _squares(image, options) if detector is None else detector(image)[:OBJECTS]
        return _seen(item.picture, image, found, options, detector)
    except ReconError as error:  # a detector's own fault too: the other pictures may still go well
        return [Seen(_left(item.picture, "unreadable", error.message))]


def _seen(
    plain: Picture, image: NDArray[np.uint8], found: Sequence[Detection], options: PrepareOptions, detector: Any
) -> list[Seen]:
    wanted = [each for each in found if options.label in (None, each.label)]
    if not wanted:
        others = sorted({each.label for each in found})
        detail = f"shows {', '.join(others)}" if others else None
        return [Seen(_left(plain, "nothing found", detail), _whole(image))]
    given = _Given(detector, wanted)
    crops = Finder(options.size, given, OBJECTS).crops(image, Source(Path(plain.source), "crop"))
    seen: list[Seen] = []
    large = 0
    for number, (detection, crop) in enumerate(zip(wanted, crops, strict=True), start=1):
        record = _described(plain, image, detection, crop_box(detection, **framing_of(given)), number)
        if detector is None:
            record = record.model_copy(update={"label": None, "score": None})
        one = _judged(record, crop, options)
        if one.picture.reason != "too small":
            large += 1
            if options.several == "best" and large > 1 and one.picture.reason is None:
                one = Seen(_left(one.picture, "several", "not the surest of its picture"), one.thumb)
        seen.append(one)
    if options.several == "leave-out" and large > 1:
        seen = [
            Seen(_left(one.picture, "several", f"{large} objects"), one.thumb) if one.picture.reason is None else one
            for one in seen
        ]
    return seen


def _squares(image: NDArray[np.uint8], options: PrepareOptions) -> list[Detection]:
    """The square of a picture that counts without a detector; none where it does not fit."""
    height, width = image.shape[:2]
    match options.crop:
        case None:
            box = CentreCrop().box(width, height)
        case (side,):
            if side > min(width, height):
                return []
            box = CentreCrop(side).box(width, height)
        case (left, top, side):
            if left + side > width or top + side > height:
                return []
            box = Box(left, top, side, side)
        case _:
            return []
    return [Detection(box.x, box.y, box.width, box.height, 1.0, "object")]


def _described(plain: Picture, image: NDArray[np.uint8], detection: Detection, box: Box, number: int) -> Picture:
    height, width = image.shape[:2]
    across = max(0.0, min(box.x + box.width, width) - max(box.x, 0.0))
    down = max(0.0, min(box.y + box.height, height) - max(box.y, 0.0))
    return plain.model_copy(
        update={
            "object": number,
            "label": detection.label,
            "score": round(float(detection.score), 4),
            "box": tuple(round(float(value), 2) for value in (box.x, box.y, box.width, box.height)),
            "outside": round(float(1 - across * down / (box.width * box.height)), 4),
            "yaw": None if detection.yaw is None else round(float(detection.yaw), 2),
            "roll": None if detection.roll is None else round(float(detection.roll), 2),
        }
    )


def _judged(record: Picture, crop: Crop, options: PrepareOptions) -> Seen:
    thumb = _small(Image.fromarray(crop.photo))
    side = record.box[2] if record.box is not None else 0.0
    if side < options.min_side:
        return Seen(_left(record, "too small", f"{side:.0f} pixels"), thumb)
    if (record.outside or 0) > options.max_outside:
        return Seen(_left(record, "cut off", f"{100 * (record.outside or 0):.0f} % lie outside"), thumb)
    if options.max_yaw is not None and record.yaw is not None and abs(record.yaw) > options.max_yaw:
        return Seen(_left(record, "turned", f"by {record.yaw:.0f} degrees"), thumb)
    # The crop at its own size: one that is enlarged for training has less detail, which is another matter.
    own = min(max(1, round(side)), len(crop.photo))
    photo = Image.fromarray(crop.photo)
    measures = measure(np.asarray(photo if own == photo.width else photo.resize((own, own), Image.Resampling.BOX)))
    record = record.model_copy(
        update={
            "sharpness": round(measures.sharpness, 4),
            "colour": round(measures.colour, 3),
            "asymmetry": round(float(measures.asymmetry), 4),
        }
    )
    if measures.colour < options.min_colour:
        return Seen(_left(record, "grey", f"colour {measures.colour:.1f}"), thumb)
    if measures.sharpness < options.min_sharpness:
        return Seen(_left(record, "blurred", f"sharpness {measures.sharpness:.2f}"), thumb)
    return Seen(record, thumb, np.asarray(crop.pixels), measures)


def _left(picture: Picture, reason: Reason, detail: str | None) -> Picture:
    return picture.model_copy(update={"reason": reason, "detail": detail})


def _small(picture: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(picture.resize((THUMB, THUMB), Image.Resampling.BOX))


def _whole(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A whole picture in the middle of a grey square."""
    sheet = Image.new("RGB", (THUMB, THUMB), (210, 210, 210))
    picture = Image.fromarray(image)
    picture.thumbnail((THUMB, THUMB), Image.Resampling.BOX)
    sheet.paste(picture, ((THUMB - picture.width) // 2, (THUMB - picture.height) // 2))
    return np.asarray(sheet)
