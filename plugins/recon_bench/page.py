"""The page of a table: one HTML file beside its results, with scores, curves and all contact sheets in a row."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from recon_bench.curves import write_bars, write_curves
from recon_bench.layout import Cell, Column, Grid, Line, footnotes, grids, notes
from recon_bench.report import RowReport, TableReport
from recon_bench.tables import CSV, JSON, LATEX, MARKDOWN
from recon_toolkit.files import write_text, writing
from recon_toolkit.viewer.page import document

PAGE, CURVES, BARS, SHEETS = "index.html", "curves.png", "bars.png", "sheets"
CONTACT_SHEET = "contact_sheet.png"
#: Pixels of the longer side of a contact sheet on the page.
SHEET_SIZE = 1200

_STYLE = """
.scroll > table { white-space: nowrap; }
.prose th, .prose td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.prose td { min-width: 14rem; }
thead th { vertical-align: bottom; color: var(--soft); font-weight: 500; }
thead th[colspan] { text-align: center; color: var(--ink); font-weight: 600; }
tbody th { font-weight: 500; position: sticky; left: 0; background: #fff; min-width: 7rem; white-space: normal; }
.edge { padding-left: 1rem; border-left: 1px solid var(--line); }
.base > * { background: var(--wash); }
.baseline { font-style: italic; color: var(--soft); }
tbody .baseline th { font-weight: 400; }
.faint { color: var(--soft); }
.failed { color: #b42318; }
.notes { color: var(--soft); font-size: .9375rem; }
.strip { display: flex; gap: 1.25rem; overflow-x: auto; padding-bottom: .75rem; scroll-snap-type: x proximity; }
.strip figure { flex: 0 0 min(34rem, 88vw); margin: 0; scroll-snap-align: start; }
.strip figcaption { font-weight: 600; color: var(--ink); margin-bottom: .35rem; overflow-wrap: anywhere; }
.strip img { display: block; border: 1px solid var(--line); }
"""


def write_page(report: TableReport, folder: Path) -> Path:
    """Write ``index.html`` with its pictures into the folder of the results; return its path.

    Args:
        report: the table.
        folder: of the results: the runs lie below it, as :attr:`~recon_bench.report.SeedResult.run` says.

    Raises:
        DataError: the disk is full or cannot be written.
    """
    pictures = []
    if write_curves(report, folder, folder / CURVES):
        pictures.append((CURVES, "Validation scores over steps; thick lines are means over seeds, thin ones the seeds"))
    if write_bars(report, folder / BARS):
        pictures.append(
            (BARS, "Final scores; bars are the standard deviation over seeds, hollow dots do not differ significantly")
        )
    tables = {grid.key: _table(grid) for grid in grids(report)}
    parts = [
        f"<h1>{html.escape(report.name)}</h1>",
        f"<p>{html.escape(report.description)}</p>" if report.description else "",
        tables.get("scores", ""),
        _footnotes(report),
        tables.get("differences", ""),
        *(_figure(name, caption) for name, caption in pictures),
        _strip(report, folder),
        tables.get("cost", ""),
        tables.get("settings", ""),
        '<h2>How this was made</h2><div class="notes">'
        + "".join(f"<p>{html.escape(text)}</p>" for text in notes(report))
        + "</div>",
        _files(folder),
    ]
    write_text(folder / PAGE, document(report.name, "\n".join(part for part in parts if part), style=_STYLE))
    return folder / PAGE


def _table(grid: Grid) -> str:
    kind = ' class="prose"' if grid.prose else ""
    head = "".join(f"<tr>{row}</tr>" for row in _headings(grid.columns))
    body = "".join(_row(grid, line) for line in grid.lines)
    return (
        f'<div class="scroll"><table{kind} id="{grid.key}"><caption>{html.escape(grid.caption)}</caption>'
        f"<thead>{head}</thead>\n<tbody>{body}</tbody></table></div>"
    )


def _headings(columns: tuple[Column, ...]) -> Iterable[str]:
    def plain(column: Column, extra: str = "") -> str:
        return f'<th scope="col"{extra}>{html.escape(column.label)}</th>'

    if not any(column.group for column in columns):
        yield "".join(plain(column) for column in columns)
        return
    upper = ""
    for group, members in groupby(columns, key=lambda column: column.group):
        found = list(members)
        if group:
            upper += f'<th scope="colgroup" colspan="{len(found)}" class="edge">{html.escape(group)}</th>'
        else:
            upper += "".join(plain(column, ' rowspan="2"') for column in found)
    yield upper
    yield "".join(
        plain(column, _class("edge" * edge))
        for column, edge in zip(columns, _edges(columns), strict=True)
        if column.group
    )


def _edges(columns: tuple[Column, ...]) -> list[bool]:
    """Whether a group of columns begins at each."""
    before = [columns[0].group, *(column.group for column in columns)]
    return [bool(column.group) and column.group != left for column, left in zip(columns, before, strict=False)]


def _row(grid: Grid, line: Line) -> str:
    kind = _class("base" if line.base else "baseline" if line.baseline else "")
    name, *cells = line.cells
    data = "".join(
        f"<td{_class('edge' * edge, 'faint' * cell.faint, 'failed' * (cell.text == 'failed'))}>{_cell(cell)}</td>"
        for cell, edge in zip(cells, _edges(grid.columns)[1:], strict=True)
    )
    return f'<tr{kind}><th scope="row">{_cell(name)}</th>{data}</tr>\n'


def _cell(cell: Cell) -> str:
    text = html.escape(cell.text)
    marks = "".join(f'<sup><a href="#note-{number}">{number}</a></sup>' for number in cell.footnotes)
    return (f"<strong>{text}</strong>" if cell.bold else text) + marks


def _class(*names: str) -> str:
    present = " ".join(name for name in names if name)
    return f' class="{present}"' if present else ""


def _footnotes(report: TableReport) -> str:
    items = "".join(
        f'<li id="note-{place}">{html.escape(text)}</li>' for place, text in enumerate(footnotes(report), start=1)
    )
    return f'<ol class="notes">{items}</ol>' if items else ""


def _figure(name: str, caption: str) -> str:
    text = html.escape(caption)
    return f'<figure><a href="{name}"><img src="{name}" alt="{text}"></a><figcaption>{text}.</figcaption></figure>'


def _strip(report: TableReport, folder: Path) -> str:
    taken: set[str] = set()
    figures = "".join(_sheet(row, folder, taken) for row in report.rows)
    if not figures:
        return ""
    return (
        "<h2>What each row makes of the same images</h2>"
        "<p>The first training of each row; a picture leads to the page of its run.</p>\n"
        f'<div class="strip" tabindex="0" role="region" aria-label="contact sheets">{figures}</div>'
    )


def _sheet(row: RowReport, folder: Path, taken: set[str]) -> str:
    """A copy of the contact sheet of the first training that has one, small enough for a page."""
    seed = next((seed for seed in row.seeds if (folder / seed.run / CONTACT_SHEET).is_file()), None)
    if seed is None:
        return ""
    try:
        with Image.open(folder / seed.run / CONTACT_SHEET) as image:
            picture = image.convert("RGB")
    except OSError:  # another process is at it, or it was cut off: the page goes on without
        return ""
    picture.thumbnail((SHEET_SIZE, SHEET_SIZE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=88)
    place = f"{SHEETS}/{_slug(row.name, taken)}.jpg"
    with writing(folder / place) as file:
        file.write(buffer.getvalue())
    name = html.escape(row.name)
    title = name if len(row.seeds) == 1 else f"{name}, seed {seed.seed}"
    shown = (
        f'<img src="{place}" width="{picture.width}" height="{picture.height}" alt="contact sheet of {name}" '
        'loading="lazy">'
    )
    if seed.status == "done" or (folder / seed.run / PAGE).is_file():  # a run has its page at the end only
        shown = f'<a href="{html.escape(quote(f"{seed.run}/{PAGE}"))}">{shown}</a>'
    return f"<figure><figcaption>{title}</figcaption>{shown}</figure>\n"


def _slug(name: str, taken: set[str]) -> str:
    """A file name for a row, of letters, digits and hyphens, that no other row has."""
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "row"
    slug = next(
        found for count in range(1, len(taken) + 2) if (found := f"{stem}-{count}".removesuffix("-1")) not in taken
    )
    taken.add(slug)
    return slug


def _files(folder: Path) -> str:
    present = [name for name in (MARKDOWN, LATEX, CSV, JSON) if (folder / name).is_file()]
    links = ", ".join(f'<a href="{name}">{name}</a>' for name in present)
    return f"<h2>Files</h2><p>{links}</p>" if links else ""
