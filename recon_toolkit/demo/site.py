"""A folder of results as a small site: which page to begin with, and which files belong to it."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from recon_toolkit.errors import DataError
from recon_toolkit.export.html import document

PAGE, SHEET = "index.html", "contact_sheet.png"
#: Where tables of ``recon bench`` keep their runs, beside the tables' own folders, and what tells a table's folder.
_RUNS, _TABLE = "runs", "results.json"
#: Subfolders that are looked into and listed at most.
_LISTED = 500


@dataclass(frozen=True)
class Site:
    """What is served of the disk.

    Attributes:
        root: a folder, resolved. Only files below it are served.
        start: the first page below it, with slashes; empty for a list of ``pages``.
        pages: further pages below it, where it has no first one.
    """

    root: Path
    start: str
    pages: tuple[str, ...] = ()

    def file(self, place: str) -> Path | None:
        """The file at a place of the site, as it stands in an address; None if there is none that may be served.

        Hidden files and links that lead out of the folder may not.
        """
        parts = unquote(place).split("/")
        if any(part.startswith(".") or not part for part in parts):
            return None
        try:
            path = self.root.joinpath(*parts).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            return None
        inside = path.is_relative_to(self.root) and not any(
            part.startswith(".") for part in path.relative_to(self.root).parts
        )
        return path if inside and path.is_file() else None

    def listing(self) -> str:
        """A page with links to all pages."""
        links = "".join(f'<li><a href="{html.escape(quote(page))}">{html.escape(page)}</a></li>' for page in self.pages)
        name = html.escape(self.root.name)
        return document(self.root.name, f"<main><h1>{name}</h1><ul>{links}</ul></main>")


def site_of(path: str | Path) -> Site:
    """The site of a run folder, a folder of results, a folder of tables, or a page.

    Args:
        path: a folder with an ``index.html`` or a contact sheet in it, or in the folders directly below; or an HTML
            file, which is served with what lies beside it.

    Raises:
        DataError: there is no such path, or nothing to look at.
    """
    path = Path(path).expanduser()
    remedy = "name a run, results of recon reconstruct or recon bench, or an HTML file"
    try:
        found = path.resolve(strict=True)
        if found.is_file():
            if found.suffix.lower() not in (".html", ".htm"):
                raise DataError("is no HTML file", where=str(path), remedy=remedy)
            return Site(found.parent, found.name)
        first = _first(found)
        if first is not None:
            beside = found.parent / _RUNS
            if (found / _TABLE).is_file() and beside.is_dir():  # a table: its page links to its runs
                return Site(found.parent, f"{found.name}/{first}")
            return Site(found, first)
        pages = _below(found)
    except FileNotFoundError:
        raise DataError("no such file or folder", where=str(path), remedy="check the path") from None
    except (OSError, RuntimeError, ValueError) as error:  # a link in a circle, a name too long, a null byte
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot be read: {reason}", where=str(path)[:200], remedy="check the path") from None
    if not pages:
        raise DataError(f"there is nothing to look at: no {PAGE} and no {SHEET}", where=str(path), remedy=remedy)
    return Site(found, pages[0] if len(pages) == 1 else "", tuple(pages))


def _first(folder: Path) -> str | None:
    return next((name for name in (PAGE, SHEET) if (folder / name).is_file()), None)


def _below(folder: Path) -> list[str]:
    folders = sorted(entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_dir())
    found = ((entry.name, _first(entry)) for entry in folders[:_LISTED])
    return [f"{name}/{page}" for name, page in found if page is not None]
