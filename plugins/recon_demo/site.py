"""A folder of results as a small site on a port of this machine, for reading only."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from recon_demo.server import application
from recon_toolkit.errors import DataError
from recon_toolkit.pages import page

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


#: Pages may show what lies beside them, and neither read it by script nor send anything.
POLICY = (
    "default-src 'none'; img-src 'self' data: blob:; media-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TEXT = "text/plain; charset=utf-8"
#: Types that not every system's table knows.
_TYPES = {
    ".glb": "model/gltf-binary", ".obj": _TEXT, ".mtl": _TEXT, ".stl": "model/stl", ".md": _TEXT, ".yaml": _TEXT,
    ".yml": _TEXT, ".jsonl": _TEXT, ".csv": _TEXT, ".tex": _TEXT, ".log": _TEXT,
    ".json": "application/json; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".mp4": "video/mp4",
    ".webp": "image/webp",
}  # fmt: skip


class _Files(StaticFiles):
    """The files below a folder, without hidden ones; links are followed within it."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """Where a path of the site lies, and what is there; nothing if it may not be served."""
        full, found = super().lookup_path(path)
        parts = () if found is None else (*Path(path).parts, *Path(full).relative_to(self.root).parts)
        hidden = any(part.startswith(".") for part in parts)
        return ("", None) if hidden else (full, found)

    @property
    def root(self) -> str:
        return os.path.realpath(os.fspath(self.directory or ""))

    def file_response(self, full_path: Any, stat_result: os.stat_result, scope: Scope, status_code: int = 200) -> Any:
        """The file, with the types that we know."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        kind = _TYPES.get(Path(full_path).suffix.lower())
        if kind is not None and "content-type" in response.headers:
            response.headers["content-type"] = kind
        return response


class SiteApp:
    """Serves a :class:`~recon_demo.site.Site` below a random folder name.

    Other users of this machine can reach its ports as well: without the address, they see nothing.

    Args:
        site: what is served.

    Attributes:
        app: for a server (ASGI 3).
        prefix: the path that everything lies below.
        start: the path of the first page.
    """

    def __init__(self, site: Site) -> None:
        self.prefix = f"/{secrets.token_urlsafe(9)}/"
        self.start = self.prefix + quote(site.start)

        async def listing(request: Request) -> Response:
            return HTMLResponse(page("recon_demo", "listing.html", title=site.root.name, pages=site.pages))

        pages = [Route(self.prefix, listing)] if not site.start else []
        self.app = application(
            [*pages, Mount(self.prefix, _Files(directory=site.root, html=True))],
            lambda refusal: PlainTextResponse(f"{refusal.message}\n", refusal.status, refusal.headers),
            loopback=True,
            headers={"Content-Security-Policy": POLICY},
        )
