"""What to expect of training on prepared pictures, and the page that shows them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from recon_toolkit.files import printable, write_text
from recon_toolkit.io.contact_sheet import write_contact_sheet
from recon_toolkit.pages import page
from recon_toolkit.preparation.record import (
    KEPT_SHEET,
    PAGE,
    PIPELINE,
    REASONS,
    RECORD,
    Judgement,
    Level,
    Picture,
    Prepared,
    PrepareOptions,
    Verdict,
)

#: Pictures to train on: below the first no shape is learned, from the second on there are enough.
FEW, ENOUGH = 500, 4000
#: Standard deviation of yaw in degrees: below the first all look the same way, from the second on they turn enough.
STILL, TURNING = 4.0, 8.0
#: Median asymmetry, where no yaw is known. Synthetic faces that all look straight ahead have 0.16 with light from the
#: front and 0.27 with light from aside; with a yaw of 20 degrees 0.33; photographs of faces 0.31, of cats 0.33.
MIRRORED, UNEVEN = 0.05, 0.2
#: Correlation of the mean crop with its mirror image: below the first the object is not symmetric.
LOPSIDED, SYMMETRIC = 0.7, 0.9
#: Median side of the crops over the side that is written.
COARSE, SHARP = 0.5, 0.75
#: Shares of doubles and of what was left out.
SOME_DOUBLES, MOSTLY_DOUBLES, MANY_LEFT_OUT = 0.3, 0.8, 0.5
#: Yaw counts where the detector says it of this share.
_KNOWN = 0.5


def judge(
    pictures: Sequence[Picture],
    kept: Mapping[str, int],
    left_out: Mapping[str, int],
    options: PrepareOptions,
    mean_crop: NDArray[np.float64],
) -> Verdict:
    """The verdict on a prepared set.

    Args:
        pictures: all records.
        kept: how many crops each split has, one at least.
        left_out: how many were left out, by reason.
        options: what was asked for.
        mean_crop: the mean of the kept crops in grey, (16, 16).

    Returns:
        One line a subject, and the worst of them as the whole; what only may work makes nothing worse than that.
    """
    chosen = [picture for picture in pictures if picture.reason is None]
    lines = [
        _enough_images(kept),
        _doubles(sum(kept.values()), left_out),
        _turn(chosen),
        _symmetry(mean_crop, len(chosen)),
        _resolution(chosen, options),
        _shares(pictures, left_out),
        _splits(kept),
    ]
    order: list[Level] = ["good", "may work", "will not work"]
    return Verdict(overall=max((line.level for line in lines), key=order.index), lines=lines)


def _level(value: float, low: float, high: float) -> Level:
    return "will not work" if value < low else "may work" if value < high else "good"


def _enough_images(kept: Mapping[str, int]) -> Judgement:
    count = kept["train"]
    level = _level(count, FEW, ENOUGH)
    remedy = {
        "will not work": "so few are remembered, and no shape is learned: some thousand photographs of one kind of "
        "object would do, frames of many videos too; or a model that is trained already: recon reconstruct --refine",
        "may work": "about 1,000 are little, and 5,000 are good: more photographs give more shape",
    }
    return Judgement(what="images", level=level, found=f"{count:,} to train on", remedy=remedy.get(level))


def _doubles(count: int, left_out: Mapping[str, int]) -> Judgement:
    doubles = left_out.get("double", 0)
    share = doubles / (count + doubles)
    level: Level = "good" if share < SOME_DOUBLES else "may work" if share < MOSTLY_DOUBLES else "will not work"
    found = f"{100 * share:.0f} % of the usable crops repeat another"
    if level == "will not work":
        found += "; these are few pictures, over and over" if count > 1 else "; this is one picture, over and over"
    remedy = None if level == "good" else "different photographs would do; of videos, fewer frames of more of them"
    return Judgement(what="doubles", level=level, found=found, remedy=remedy)


def _turn(chosen: Sequence[Picture]) -> Judgement:
    known = [picture.yaw for picture in chosen if picture.yaw is not None]
    remedy = "photographs from more sides would do: shape is learned from objects that are turned"
    if len(known) >= _KNOWN * len(chosen):
        spread = float(np.std(known))
        level = _level(spread, STILL, TURNING)
        found = f"yaw spreads by {spread:.0f} degrees (standard deviation, of {len(known):,} where it is known)"
        return Judgement(what="turn", level=level, found=found, remedy=None if level == "good" else remedy)
    median = float(np.median([picture.asymmetry or 0.0 for picture in chosen]))
    level = _level(median, MIRRORED, UNEVEN)
    found = (
        f"no yaw is known; crops differ from their mirror images by {median:.2f} in the median, 0 being not at all. "
        "Light and background count in this as well, so that it only tells pictures that all look straight ahead"
    )
    return Judgement(what="turn", level=level, found=found, remedy=None if level == "good" else remedy)


def _symmetry(mean_crop: NDArray[np.float64], count: int) -> Judgement:
    centred = mean_crop - mean_crop.mean()
    norm = float((centred**2).sum())
    found = float((centred * centred[:, ::-1]).sum()) / norm if norm > 1e-6 else 1.0
    level = _level(found, LOPSIDED, SYMMETRIC)
    if count < FEW and level == "will not work":  # light and backgrounds do not cancel out in the mean of few
        level = "may work"
    remedy = (
        "shape is learned from the object's symmetry: frame it so that its middle is the crop's middle, or photograph "
        "it from the front; objects without a plane of symmetry are not for this method"
    )
    return Judgement(
        what="symmetry",
        level=level,
        found=f"the mean crop correlates with its mirror image by {found:.2f}",
        remedy=None if level == "good" else remedy,
    )


def _resolution(chosen: Sequence[Picture], options: PrepareOptions) -> Judgement:
    side = float(np.median([picture.box[2] for picture in chosen if picture.box is not None]))
    level: Level = "good" if side >= SHARP * options.size else "may work"
    fitting = max(16, round(side / 16) * 16)
    remedy = (
        f"--size {fitting} would say all there is" if side < COARSE * options.size else "larger photographs would do"
    )
    return Judgement(
        what="resolution",
        level=level,
        found=f"crops have {side:.0f} pixels a side in the median and are written with {options.size}",
        remedy=None if level == "good" else remedy,
    )


def _shares(pictures: Sequence[Picture], left_out: Mapping[str, int]) -> Judgement:
    count = sum(left_out.values()) - left_out.get("double", 0)
    share = count / max(1, len(pictures))
    level: Level = "good" if share < MANY_LEFT_OUT else "may work"
    most = max((reason for reason in left_out if reason != "double"), key=lambda reason: left_out[reason], default="")
    remedies = {
        "nothing found": "look whether --no-detect or another --detector finds more",
        "too small": "lower --min-side, or give larger photographs",
        "blurred": "look at them, and lower --min-sharpness where they are good",
        "cut off": "look at them, and raise --max-outside where they are good",
    }
    remedy = remedies.get(most, "look at them on the page")
    return Judgement(
        what="left out",
        level=level,
        found=f"{100 * share:.0f} % of what was looked at, doubles aside" + (f"; most often: {most}" if most else ""),
        remedy=None if level == "good" else remedy,
    )


def _splits(kept: Mapping[str, int]) -> Judgement:
    total = sum(kept.values())
    empty = [split for split, count in kept.items() if not count]
    share = kept["train"] / total
    found = f"{kept['train']:,} to train on, {kept['val']:,} for validation, {kept['test']:,} for testing"
    if not kept["train"]:
        return Judgement(what="splits", level="will not work", found=found, remedy="put pictures into the folder train")
    if empty or share < 0.5:
        remedy = (
            "without these, nothing is measured on unseen pictures: give more folders or more pictures"
            if empty
            else "most pictures fell to the other splits with their folders: lower --val and --test"
        )
        return Judgement(what="splits", level="may work", found=found, remedy=remedy)
    return Judgement(what="splits", level="good", found=found)


def lines_of(verdict: Verdict) -> list[tuple[str, str, str]]:
    """(subject, level, what was found and what would do) a line, for tables of text."""
    return [
        (line.what, line.level, line.found + (f" ({line.remedy})" if line.remedy else "")) for line in verdict.lines
    ]


#: The pipeline that prepared folders are trained with, the side of its images, and how long it trains.
PARENT, PARENT_SIZE, PARENT_STEPS, PARENT_BATCH = "unsup3d-photographs", 64, 6000, 16
#: How often a picture is seen at most: of few pictures, more steps only teach them by heart.
_EPOCHS, _LEAST_STEPS = 40, 1000
_BLOCKS = 10


class Sheets:
    """Gathers the pictures of contact sheets from a stream of all of them.

    Args:
        wanted: name of a sheet → indices of its pictures, in order.
    """

    def __init__(self, wanted: Mapping[str, Sequence[int]]) -> None:
        self._wanted = {name: list(indices) for name, indices in wanted.items()}
        self._all = {index for indices in wanted.values() for index in indices}
        self._found: dict[int, NDArray[np.uint8]] = {}

    def offer(self, index: int, thumb: NDArray[np.uint8]) -> None:
        """A picture (T, T, 3) uint8 of an index; it is kept if a sheet shows it."""
        if index in self._all:
            self._found[index] = thumb

    def of(self, name: str) -> list[tuple[int, NDArray[np.uint8]]]:
        """(index, picture) of a sheet; those that were never offered have none."""
        return [(index, self._found[index]) for index in self._wanted.get(name, ()) if index in self._found]


@dataclass(frozen=True)
class _Sheet:
    """One contact sheet on the page; without a file, there is nothing to show."""

    title: str
    counted: str
    file: str
    named: Sequence[str]


def write_page(out: Path, prepared: Prepared, sheets: Sheets) -> None:
    """Write the contact sheets and ``index.html``."""
    counts = [(split, f"{count:,}", "") for split, count in prepared.kept.items()]
    counts += [
        (f"left out: {reason}", f"{count:,}", REASONS[reason])  # type: ignore[index]
        for reason, count in prepared.left_out.items()
    ]
    kept = sum(prepared.kept.values())
    text = page(
        "recon_toolkit",
        "prepared.html",
        title=f"Prepared: {printable(out.name)}",
        name=printable(out.absolute().name),
        kept=f"{kept:,}",
        size=prepared.options.size,
        looked_at=f"{len(prepared.pictures):,}",
        counts=counts,
        overall=prepared.verdict.overall,
        verdict=lines_of(prepared.verdict),
        command=command(out),
        sheets=[
            _sheet(out, prepared, sheets, "kept", KEPT_SHEET, "Kept", kept),
            *(
                _sheet(out, prepared, sheets, reason, sheet_name(reason), f"Left out: {reason}", count)
                for reason, count in prepared.left_out.items()
            ),
        ],
        unread=prepared.unread,
        record=RECORD,
        pipeline=PIPELINE,
    )
    write_text(out / PAGE, text)


def sheet_name(reason: str) -> str:
    """The file of the contact sheet of what was left out by a reason."""
    return f"left-out-{reason.replace(' ', '-')}.png"


def command(out: Path) -> str:
    """The command that trains on a prepared folder."""
    return f"recon run --pipeline {shlex.quote(printable(out / PIPELINE))} --out runs/mine"


def write_pipeline(out: Path, prepared: Prepared) -> None:
    """Write ``pipeline.yaml``: that for photographs, reading this folder."""
    steps = min(PARENT_STEPS, max(_LEAST_STEPS, round(prepared.kept["train"] * _EPOCHS / PARENT_BATCH, -2)))
    settings: dict[str, object] = {
        "extends": PARENT,
        "description": f"{prepared.kept['train']:,} prepared pictures",
        "dataset": {"name": "prepared", "root": printable(out.absolute())},
    }
    if prepared.options.size < PARENT_SIZE:
        settings["image_size"] = prepared.options.size
    if steps < PARENT_STEPS:
        settings["training"] = {"steps": steps, "validate_every": min(1000, steps)}
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=10_000)
    note = f"# Written by recon data prepare. Its verdict: {prepared.verdict.overall}.\n"
    write_text(out / PIPELINE, note + text)


def _sheet(out: Path, prepared: Prepared, sheets: Sheets, name: str, file: str, title: str, count: int) -> _Sheet:
    """Write one contact sheet; what the page says of it."""
    shown = sheets.of(name)
    named = [
        f"{picture.name}: {picture.detail}" if picture.detail else picture.name
        for picture in ([p for p in prepared.pictures if p.reason == name][:20] if name != "kept" else [])
    ]
    if not shown:
        return _Sheet(title, f"{count:,}", "", named)
    columns = {"": _images(shown)}
    if name == "double":
        columns = {"left out": columns[""], "kept": _images(sheets.of("double of"))}
    rows = [_caption(prepared, index) for index, _ in shown]
    write_contact_sheet(out / file, columns, rows=rows, blocks=min(_BLOCKS // len(columns), len(shown)))
    some = f", {len(shown)} of them shown" if len(shown) < count else ""
    return _Sheet(title, f"{count:,}{some}", file, named)


def _images(shown: Sequence[tuple[int, NDArray[np.uint8]]]) -> torch.Tensor:
    """Pictures as a tensor (N, 3, T, T) in [0, 1]."""
    return torch.from_numpy(np.stack([thumb for _, thumb in shown])).permute(0, 3, 1, 2).float() / 255


def _caption(prepared: Prepared, index: int) -> str:
    """What is written below a picture on a sheet."""
    picture = prepared.pictures[index]
    detail = picture.detail or ""
    if picture.reason is None or picture.reason == "double":
        detail = "" if picture.sharpness is None else f"{picture.sharpness:.2f}"
        detail += "" if picture.yaw is None else f", {picture.yaw:.0f}°"
    return detail
