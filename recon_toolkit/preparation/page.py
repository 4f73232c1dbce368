"""What a prepared folder shows and hands on: contact sheets, a page of its own, and a pipeline that reads it."""

from __future__ import annotations

import html
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from recon_toolkit.export.contact_sheet import write_contact_sheet
from recon_toolkit.export.html import document
from recon_toolkit.files import legible, write_text
from recon_toolkit.preparation.record import KEPT_SHEET, PAGE, PIPELINE, REASONS, RECORD, Prepared
from recon_toolkit.preparation.verdict import lines_of

#: The pipeline that prepared folders are trained with, the side of its images, and how long it trains.
PARENT, PARENT_SIZE, PARENT_STEPS, PARENT_BATCH = "unsup3d-photographs", 64, 6000, 16
#: How often a picture is seen at most: of few pictures, more steps only teach them by heart.
_EPOCHS, _LEAST_STEPS = 40, 1000
_BLOCKS = 10
_STYLE = """
.good { background: #dafbe1; } .may-work { background: #fff3cd; } .will-not-work { background: #ffdcd7; }
.level { padding: .1rem .5rem; border-radius: .3rem; white-space: nowrap; }
.verdict td { text-align: left; vertical-align: top; }
"""


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


def write_page(out: Path, prepared: Prepared, sheets: Sheets) -> None:
    """Write the contact sheets and ``index.html``."""
    parts = [
        f"<h1>{html.escape(legible(out.absolute().name))}</h1>",
        _summary(prepared),
        _verdict(prepared),
        "<h2>Go on</h2>",
        f"<pre>{html.escape(command(out))}</pre>",
        _sheet(out, prepared, sheets, "kept", KEPT_SHEET, "Kept", sum(prepared.kept.values())),
        *(
            _sheet(out, prepared, sheets, reason, sheet_name(reason), f"Left out: {reason}", count)
            for reason, count in prepared.left_out.items()
        ),
        _unread(prepared),
        f'<h2>Files</h2><p><a href="{RECORD}">{RECORD}</a> (every picture and what became of it), '
        f'<a href="{PIPELINE}">{PIPELINE}</a></p>',
    ]
    write_text(
        out / PAGE, document(f"Prepared: {legible(out.name)}", "\n".join(part for part in parts if part), style=_STYLE)
    )


def sheet_name(reason: str) -> str:
    """The file of the contact sheet of what was left out by a reason."""
    return f"left-out-{reason.replace(' ', '-')}.png"


def command(out: Path) -> str:
    """The command that trains on a prepared folder."""
    return f"recon run --pipeline {shlex.quote(legible(out / PIPELINE))} --out runs/mine"


def write_pipeline(out: Path, prepared: Prepared) -> None:
    """Write ``pipeline.yaml``: that for photographs, reading this folder."""
    steps = min(PARENT_STEPS, max(_LEAST_STEPS, round(prepared.kept["train"] * _EPOCHS / PARENT_BATCH, -2)))
    settings: dict[str, object] = {
        "extends": PARENT,
        "description": f"{prepared.kept['train']:,} prepared pictures",
        "dataset": {"name": "prepared", "root": legible(out.absolute())},
    }
    if prepared.options.size < PARENT_SIZE:
        settings["image_size"] = prepared.options.size
    if steps < PARENT_STEPS:
        settings["training"] = {"steps": steps, "validate_every": min(1000, steps)}
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=10_000)
    note = f"# Written by recon data prepare. Its verdict: {prepared.verdict.overall}.\n"
    write_text(out / PIPELINE, note + text)


def _summary(prepared: Prepared) -> str:
    rows = "".join(f"<tr><td>{split}</td><td>{count:,}</td><td></td></tr>" for split, count in prepared.kept.items())
    rows += "".join(
        f"<tr><td>left out: {reason}</td><td>{count:,}</td>"
        f'<td style="text-align: left">{html.escape(REASONS[reason])}</td></tr>'  # type: ignore[index]
        for reason, count in prepared.left_out.items()
    )
    kept, size = sum(prepared.kept.values()), prepared.options.size
    return (
        f"<p>{kept:,} crops of {size} × {size} pixels are kept of {len(prepared.pictures):,} that were looked at.</p>"
        f"<table>{rows}</table>"
    )


def _verdict(prepared: Prepared) -> str:
    def badge(level: str) -> str:
        return f'<span class="level {level.replace(" ", "-")}">{level}</span>'

    rows = "".join(
        f"<tr><td>{html.escape(what)}</td><td>{badge(level)}</td><td>{html.escape(told)}</td></tr>"
        for what, level, told in lines_of(prepared.verdict)
    )
    return f'<h2>Verdict: {badge(prepared.verdict.overall)}</h2><table class="verdict">{rows}</table>'


def _sheet(out: Path, prepared: Prepared, sheets: Sheets, name: str, file: str, title: str, count: int) -> str:
    """Write one contact sheet; its part of the page."""
    shown = sheets.of(name)
    named = "".join(
        f"<li>{html.escape(picture.name)}{': ' + html.escape(picture.detail) if picture.detail else ''}</li>"
        for picture in ([p for p in prepared.pictures if p.reason == name][:20] if name != "kept" else [])
    )
    listed = f"<details><summary>the first of them by name</summary><ul>{named}</ul></details>" if named else ""
    if not shown:
        return f"<h2>{html.escape(title)} ({count:,})</h2>{listed}"
    columns = {"": _images(shown)}
    if name == "double":
        columns = {"left out": columns[""], "kept": _images(sheets.of("double of"))}
    rows = [_caption(prepared, index) for index, _ in shown]
    write_contact_sheet(out / file, columns, rows=rows, blocks=min(_BLOCKS // len(columns), len(shown)))
    some = f", {len(shown)} of them shown" if len(shown) < count else ""
    return (
        f"<h2>{html.escape(title)} ({count:,}{some})</h2>"
        f'<img src="{file}" alt="{html.escape(title)}" loading="lazy">{listed}'
    )


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


def _unread(prepared: Prepared) -> str:
    if not prepared.unread:
        return ""
    rows = "".join(f"<li>{html.escape(item.name)}: {html.escape(item.reason)}</li>" for item in prepared.unread)
    return f"<h2>Could not be read</h2><ul>{rows}</ul>"
