"""A folder of results as a small site on a port of this machine, for reading only."""

from __future__ import annotations

import html
import mimetypes
import re
import secrets
import socket
import sys
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote, urlsplit

from recon_demo.limits import HEADERS, ICON, names_this_machine
from recon_toolkit.errors import DataError
from recon_toolkit.viewer.page import document

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


#: Pages may show what lies beside them, and neither read it by script nor send anything.
POLICY = (
    "default-src 'none'; img-src 'self' data: blob:; media-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: Types that not every system's table knows.
_TYPES = {
    ".glb": "model/gltf-binary", ".obj": "text/plain", ".mtl": "text/plain", ".stl": "model/stl", ".md": "text/plain",
    ".yaml": "text/plain", ".yml": "text/plain", ".jsonl": "text/plain", ".csv": "text/plain", ".tex": "text/plain",
    ".log": "text/plain", ".json": "application/json", ".js": "text/javascript", ".mp4": "video/mp4",
    ".webp": "image/webp",
}  # fmt: skip
_RANGE = re.compile(r"([0-9]*)-([0-9]*)")
#: A header that asks for more parts than this is not looked through.
_MOST_PARTS = 100


class _Malformed(ValueError):
    """A request that HTTP does not know."""


class SiteServer(ThreadingHTTPServer):
    """Serves a :class:`~recon_demo.site.Site` below a random folder name.

    Other users of this machine can reach its ports as well: without the address, they see nothing.

    Args:
        site: what is served.
        listening: from :func:`recon_demo.server.listen`, on the loopback device.
    """

    daemon_threads = True

    def __init__(self, site: Site, listening: socket.socket) -> None:
        super().__init__(listening.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.site = site
        self.prefix = f"/{secrets.token_urlsafe(9)}/"

    @property
    def start(self) -> str:
        """The path of the first page."""
        return self.prefix + quote(self.site.start)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that left is nothing to report; a fault is one line."""
        error = sys.exception()
        if not isinstance(error, OSError):
            print(f"error: {type(error).__name__}: {error}", file=sys.stderr)


class _Handler(BaseHTTPRequestHandler):
    server: SiteServer
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        """A file, or the list of pages."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Its headers."""
        self._answer(body=False)

    def version_string(self) -> str:
        """The Server header."""
        return "recon"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""

    def end_headers(self) -> None:
        """With what every answer says."""
        for name, value in (HEADERS | {"Cache-Control": "no-cache", "Content-Security-Policy": POLICY}).items():
            self.send_header(name, value)
        super().end_headers()

    def _answer(self, *, body: bool) -> None:
        try:
            self._answer_asked(body)
        except _Malformed as error:
            self.close_connection = True  # who knows where the next request begins
            self.send_error(HTTPStatus.BAD_REQUEST, str(error))

    def _answer_asked(self, body: bool) -> None:
        if not names_this_machine(self.headers.get("Host", "")):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return
        try:
            path, prefix = urlsplit(self.path).path, self.server.prefix
        except ValueError:
            raise _Malformed("Malformed request target") from None
        if path == ICON:
            self.send_response(HTTPStatus.NO_CONTENT)
            self.end_headers()
            return
        if not secrets.compare_digest(path[: len(prefix)].encode(), prefix.encode()):
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        place = path[len(prefix) :]
        if not place and not self.server.site.start:
            self._text(self.server.site.listing(), body)
            return
        file = self.server.site.file(f"{place}index.html" if not place or place.endswith("/") else place)
        if file is None and not place.endswith("/") and self.server.site.file(f"{place}/index.html") is not None:
            self._redirect(f"{path}/")
        elif file is None:
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            self._file(file, body)

    def _text(self, text: str, body: bool) -> None:
        data = text.encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def _redirect(self, path: str) -> None:
        self.send_response(HTTPStatus.MOVED_PERMANENTLY)
        self.send_header("Location", path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _file(self, path: Path, body: bool) -> None:
        try:
            file = path.open("rb")
        except OSError:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with file:
            size = file.seek(0, 2)
            part = _part(self.headers.get("Range", ""), size)
            first, end = part or (0, size)
            if part is not None and first >= end:
                self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                self.send_header("Content-Range", f"bytes */{size}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            whole = (first, end) == (0, size)
            self.send_response(HTTPStatus.OK if whole else HTTPStatus.PARTIAL_CONTENT)
            self.send_header("Content-Type", _type(path))
            self.send_header("Accept-Ranges", "bytes")
            if not whole:
                self.send_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
            self.send_header("Content-Length", str(end - first))
            self.end_headers()
            if body:
                file.seek(first)
                self._copy(file, end - first)

    def _copy(self, file: IO[bytes], count: int) -> None:
        while count > 0:
            data = file.read(min(count, 1 << 18))
            if not data:  # the file has become shorter: what was promised cannot be sent
                self.close_connection = True
                return
            self.wfile.write(data)
            count -= len(data)


def _part(wanted: str, size: int) -> tuple[int, int] | None:
    """First byte of a Range header and the one after the last; None for the whole file, as for several parts.

    An empty range is one that the file does not have. Other units than bytes are as if nothing was asked (RFC 9110).

    Raises:
        _Malformed: it asks for bytes in a way that there is not.
    """
    unit, equals, parts = wanted.partition("=")
    if unit.strip().lower() != "bytes":
        return None
    found = [_RANGE.fullmatch(part.strip(" \t")) for part in parts.split(",", _MOST_PARTS) if part.strip(" \t")]
    numbers = [match.groups() for match in found if match is not None and any(match.groups())]
    if not equals or not found or len(numbers) < len(found):
        raise _Malformed("Malformed range")
    ranges = [tuple(None if not digits else int(digits.lstrip("0")[:19] or 0) for digits in pair) for pair in numbers]
    if any(first is not None and last is not None and last < first for first, last in ranges):
        raise _Malformed("Malformed range")
    if len(ranges) > 1:
        return None
    first, last = ranges[0]
    if first is None:
        return (max(0, size - last), size) if last else (size, size)
    return first, size if last is None else min(last + 1, size)


def _type(path: Path) -> str:
    kind = _TYPES.get(path.suffix.lower()) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") or kind == "application/json" else kind
