"""The page of a table: one HTML file beside its results, with scores, curves and all contact sheets in a row."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from recon_bench.curves import write_bars, write_curves
from recon_bench.layout import footnotes, grids, notes
from recon_bench.report import RowReport, TableReport
from recon_bench.tables import CSV, JSON, LATEX, MARKDOWN
from recon_toolkit.files import write_text, writing
from recon_toolkit.pages import page

PAGE, CURVES, BARS, SHEETS = "index.html", "curves.png", "bars.png", "sheets"
CONTACT_SHEET = "contact_sheet.png"
#: Pixels of the longer side of a contact sheet on the page.
SHEET_SIZE = 1200


@dataclass(frozen=True)
class _Sheet:
    """The contact sheet of a row, and the page of its run, if there is one."""

    row: str
    title: str
    file: str
    width: int
    height: int
    page: str


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
    taken: set[str] = set()
    text = page(
        "recon_bench",
        "table.html",
        title=report.name,
        report=report,
        grids=grids(report),
        footnotes=footnotes(report),
        pictures=pictures,
        sheets=[sheet for row in report.rows if (sheet := _sheet(row, folder, taken)) is not None],
        notes=notes(report),
        files=[name for name in (MARKDOWN, LATEX, CSV, JSON) if (folder / name).is_file()],
    )
    write_text(folder / PAGE, text)
    return folder / PAGE


def _sheet(row: RowReport, folder: Path, taken: set[str]) -> _Sheet | None:
    """A copy of the contact sheet of the first training that has one, small enough for a page."""
    seed = next((seed for seed in row.seeds if (folder / seed.run / CONTACT_SHEET).is_file()), None)
    if seed is None:
        return None
    try:
        with Image.open(folder / seed.run / CONTACT_SHEET) as image:
            picture = image.convert("RGB")
    except OSError:  # another process is at it, or it was cut off: the page goes on without
        return None
    picture.thumbnail((SHEET_SIZE, SHEET_SIZE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=88)
    place = f"{SHEETS}/{_slug(row.name, taken)}.jpg"
    with writing(folder / place) as file:
        file.write(buffer.getvalue())
    has_page = seed.status == "done" or (folder / seed.run / PAGE).is_file()  # a run has its page at the end only
    return _Sheet(
        row=row.name,
        title=row.name if len(row.seeds) == 1 else f"{row.name}, seed {seed.seed}",
        file=place,
        width=picture.width,
        height=picture.height,
        page=quote(f"{seed.run}/{PAGE}") if has_page else "",
    )


def _slug(name: str, taken: set[str]) -> str:
    """A file name for a row, of letters, digits and hyphens, that no other row has."""
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "row"
    slug = next(
        found for count in range(1, len(taken) + 2) if (found := f"{stem}-{count}".removesuffix("-1")) not in taken
    )
    taken.add(slug)
    return slug
