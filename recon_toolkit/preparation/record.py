"""What was asked for, and what became of each picture: the contents of ``prepared.json``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recon_toolkit.data.sampling import SPLITS
from recon_toolkit.errors import DataError
from recon_toolkit.files import json_text

#: The record's file in a prepared folder, and the version of its layout.
RECORD, VERSION = "prepared.json", 1
PAGE, PIPELINE, KEPT_SHEET = "index.html", "pipeline.yaml", "kept.png"

Reason = Literal[
    "unreadable",
    "nothing found",
    "too small",
    "cut off",
    "turned",
    "grey",
    "blurred",
    "several",
    "double",
    "no split",
]
#: In the order in which they are looked for; what the words mean.
REASONS: dict[Reason, str] = {
    "unreadable": "damaged, or no picture",
    "nothing found": "the detector found no object, or none of the label",
    "too small": "the crop has fewer pixels than --min-side",
    "cut off": "too much of the crop lies outside of the picture",
    "turned": "turned further aside than --max-yaw",
    "grey": "without colour",
    "blurred": "without fine detail",
    "several": "one of several objects in a picture",
    "double": "the same picture as another that is kept",
    "no split": "beside folders for splits, in none of them",
}
Level = Literal["good", "may work", "will not work"]
Several = Literal["keep", "leave-out", "best"]


class PrepareOptions(BaseModel):
    """What is cut out of pictures, which are left out, and how they are split.

    Attributes:
        size: side of the crops that are written, in pixels.
        detector: the detector's name; None takes each picture as a crop.
        detector_set: its options, ``name=value`` each.
        label: only objects that the detector calls so.
        crop: without a detector, a square in pixels of the original: a centred side, or left, top and side; the
            largest centred one by default.
        min_side: least side of a crop, in pixels of the original.
        min_sharpness: least :func:`~recon_toolkit.preparation.look.sharpness`.
        min_colour: least :func:`~recon_toolkit.preparation.look.colour`; 0 keeps grey pictures.
        max_outside: the most of a crop that may lie outside of its picture, as a share of its area.
        max_yaw: how far an object may be turned, in degrees, where the detector says it.
        several: what becomes of pictures with several objects that are large enough.
        val, test: shares of the pictures, or of groups of them, for validation and testing.
        every, frames: of a video, every N-th frame, and at most how many.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(128, ge=16, le=1024)
    detector: str | None = "auto"
    detector_set: tuple[str, ...] = ()
    label: str | None = None
    crop: tuple[int, ...] | None = None
    min_side: int = Field(64, ge=1)
    min_sharpness: float = Field(0.15, ge=0)
    min_colour: float = Field(0.0, ge=0)
    max_outside: float = Field(0.2, ge=0, le=1)
    max_yaw: float | None = Field(None, ge=0)
    several: Several = "keep"
    val: float = Field(0.05, ge=0, lt=1)
    test: float = Field(0.05, ge=0, lt=1)
    every: int = Field(10, ge=1)
    frames: int = Field(300, ge=1)

    def check(self) -> None:
        """Raises DataError where options exclude one another."""
        if self.val + self.test >= 1:
            raise DataError(
                f"val {self.val:g} and test {self.test:g} leave nothing for training",
                where="--val, --test",
                remedy="choose shares with a sum below 1",
            )
        if self.crop is not None and (len(self.crop) not in (1, 3) or self.crop[-1] < 1 or min(self.crop) < 0):
            raise DataError("is no square", where="--crop", remedy="give SIDE, or LEFT,TOP,SIDE in pixels")
        if self.detector is not None and self.crop is not None:
            raise DataError("is for pictures without detection", where="--crop", remedy="add --no-detect")
        if self.detector is None and self.label is not None:
            raise DataError("is what a detector says", where="--label", remedy="leave out --no-detect")


class Picture(BaseModel):
    """An object in a picture, or a picture without one, and what became of it.

    Attributes:
        source: the file, the archive and its member, or the video, printable.
        input: which of the inputs it came from, from 0; files that were named one by one are one input.
        place: its path below that input.
        frame: of a video.
        object: its number in the picture, from 1, the surest first; 0 where there is none.
        split, group: where it went, and what went there with it; None where it was left out.
        label, score: what the detector says.
        box: x, y, width and height of the crop in the picture, in pixels.
        outside: share of the crop's area that lies outside of the picture.
        yaw, roll: in degrees, where the detector says them.
        sharpness, colour, asymmetry: see :mod:`recon_toolkit.preparation.look`.
        reason, detail: why it was left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    input: int
    place: str
    frame: int | None = None
    object: int = 0
    split: str | None = None
    group: str | None = None
    label: str | None = None
    score: float | None = None
    box: tuple[float, float, float, float] | None = None
    outside: float | None = None
    yaw: float | None = None
    roll: float | None = None
    sharpness: float | None = None
    colour: float | None = None
    asymmetry: float | None = None
    reason: Reason | None = None
    detail: str | None = None

    @property
    def name(self) -> str:
        """What to call it in lists."""
        frame = "" if self.frame is None else f" frame {self.frame}"
        return self.source + frame + (f" #{self.object}" if self.object > 1 else "")


class Unread(BaseModel):
    """An argument that names nothing, or an archive or video that could not be read to its end; and why."""

    model_config = ConfigDict(frozen=True)

    name: str
    reason: str


class Judgement(BaseModel):
    """One line of the verdict.

    Attributes:
        what: its subject, e.g. ``images``.
        level: how it stands.
        found: what was found, with its number.
        remedy: what would do, where it does not stand well.
    """

    model_config = ConfigDict(frozen=True)

    what: str
    level: Level
    found: str
    remedy: str | None = None


class Verdict(BaseModel):
    """Whether training on the pictures can be expected to work, before any of it."""

    model_config = ConfigDict(frozen=True)

    overall: Level
    lines: list[Judgement]


class Prepared(BaseModel):
    """The contents of ``prepared.json``.

    Attributes:
        version: of the layout.
        options: what was asked for.
        inputs: digest of the names, sizes and times of the files that were read.
        kept: how many crops each split has.
        left_out: how many were left out, by reason.
        unread: what could not be read at all.
        verdict: what to expect.
        pictures: every picture, in the order in which they were read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = VERSION
    options: PrepareOptions
    inputs: str
    kept: dict[str, int]
    left_out: dict[str, int]
    unread: list[Unread]
    verdict: Verdict
    pictures: list[Picture]

    @property
    def complete(self) -> bool:
        """Whether everything could be read."""
        return not self.unread and "unreadable" not in self.left_out


def counted(pictures: Iterable[Picture]) -> tuple[dict[str, int], dict[str, int]]:
    """How many each split has, and how many were left out by reason, in the orders of the splits and of REASONS."""
    kept = dict.fromkeys(SPLITS, 0)
    left: dict[str, int] = dict.fromkeys(REASONS, 0)
    for picture in pictures:
        if picture.reason is not None:
            left[picture.reason] += 1
        elif picture.split is not None:
            kept[picture.split] += 1
    return kept, {reason: count for reason, count in left.items() if count}


def read_record(folder: Path) -> Prepared:
    """What was written into a prepared folder.

    Raises:
        DataError: there is no record, or it is damaged or of another version.
    """
    path = folder / RECORD
    try:
        return Prepared.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            "not a prepared folder", where=str(folder), remedy="make one: recon data prepare PHOTOS --out FOLDER"
        ) from None
    except (OSError, ValidationError):
        raise DataError(
            "cannot be read, or is of another version", where=str(path), remedy="delete the folder and prepare again"
        ) from None


def record_text(prepared: Prepared) -> str:
    """The text of ``prepared.json``: one line a picture, without what it does not have."""
    head = prepared.model_dump(mode="json", exclude={"pictures"})
    lines = (json_text(picture.model_dump(mode="json", exclude_defaults=True)) for picture in prepared.pictures)
    return json_text(head, indent=1)[:-2] + ',\n "pictures": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"


def said(left_out: dict[str, int], separator: str = ", ") -> str:
    """Counts by reason in words: ``3 too small, 1 double``."""
    return separator.join(f"{count:,} {reason}" for reason, count in left_out.items())


def changed(before: PrepareOptions, now: PrepareOptions) -> Sequence[str]:
    """The options that differ, in words."""
    old, new = before.model_dump(), now.model_dump()
    return [f"{name} is now {new[name]!r}, was {old[name]!r}" for name in new if old[name] != new[name]]
