"""What the web demo takes: from whom, how much, and why not."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from recon_toolkit.errors import ReconError

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Limits:
    """What the web demo takes at most. A picture's pixels are limited by :data:`recon_toolkit.data.decode.MAX_PIXELS`.

    Args:
        upload_bytes: of one upload, with the form around the picture.
        faces: of one picture, the most certain ones.
        places: requests that are looked after at once; one of them is reconstructed, the others upload or wait.
        upload_seconds: for sending a picture.
        work_seconds: for waiting and reconstructing.
        unread_bytes: of a refused upload, what is read and thrown away, so that its sender gets to see the answer.

    Raises:
        ReconError: a limit is not positive.
    """

    upload_bytes: int = 15 * MEGABYTE
    faces: int = 8
    places: int = 6
    upload_seconds: float = 60.0
    work_seconds: float = 60.0
    unread_bytes: int = 100 * MEGABYTE

    def __post_init__(self) -> None:
        for name in ("upload_bytes", "faces", "places", "upload_seconds", "work_seconds"):
            if not getattr(self, name) > 0:
                raise ReconError(f"{name} of the demo is {getattr(self, name)}", remedy="give a number above 0")

    @property
    def upload_words(self) -> str:
        """The limit of an upload in words, e.g. ``15 MB``."""
        return f"{self.upload_bytes / MEGABYTE:g} MB"


class Refusal(Exception):
    """An answer other than a reconstruction, for people.

    Args:
        status: of HTTP.
        message: one sentence without its full stop.
        remedy: another: what to do about it.
        headers: further headers of the answer.
    """

    def __init__(self, status: int, message: str, remedy: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.remedy = remedy
        self.headers = headers or {}


def busy(message: str, seconds: int) -> Refusal:
    """503: it may work in ``seconds``."""
    return Refusal(503, message, "Try again in a moment", {"Retry-After": str(seconds)})


#: Sent with every answer. Not "no-referrer": with that, browsers call the origin of our own form "null" as well.
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

#: Browsers ask for it on their own account, and would report that there is none.
ICON = "/favicon.ico"


def is_loopback(address: str) -> bool:
    """Whether an IP address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def names_this_machine(host: str) -> bool:
    """Whether a Host header is a name that no foreign site can have: ``localhost`` or a loopback address.

    A page of another site can make its own name stand for 127.0.0.1 ("DNS rebinding") and would then count as ours.
    The port is not looked at, because tunnels change it.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name == "localhost" or is_loopback(name)


def check_host(headers: Mapping[str, str], *, loopback: bool) -> None:
    """Raise Refusal 421 where a server on the loopback device is asked by another name."""
    if loopback and not names_this_machine(headers.get("host", "")):
        raise Refusal(421, "This server has another name", "Use the address that the command printed")


def check_origin(headers: Mapping[str, str]) -> None:
    """Raise Refusal 403 where a browser sends a form that another site's page holds.

    Programs other than browsers send neither header, and may ask.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        same = site in ("same-origin", "none")
    else:  # browsers leave the first out where the server is neither encrypted nor on their own machine
        same = origin is None or urlsplit(origin).netloc == headers.get("host")
    if not same:
        raise Refusal(403, "A page of another site sent this picture", "Choose the picture on this page")


#: The form's fields: the picture, and the box to tick if it is a crop already.
PHOTO, CROP = "photo", "crop"
#: Parts of the form that are read at all; our own page sends three.
_PARTS = 8


@dataclass(frozen=True)
class Upload:
    """A picture that somebody sent. What its file was called is not kept.

    Attributes:
        data: the file, not empty.
        crop: the picture is a crop already.
    """

    data: bytes
    crop: bool


async def read_upload(body: AsyncIterator[bytes], content_type: str, limits: Limits) -> Upload:
    """Read a form as it comes in; nothing of it is written to the disk.

    Args:
        body: the parts of the request's body.
        content_type: the request's header.
        limits: of the upload's size.

    Raises:
        Refusal: it is too large (413, raised as soon as the limit is passed), no such form (415), broken or without a
            picture (400).
    """
    from python_multipart.multipart import parse_options_header
    from starlette.datastructures import Headers, UploadFile
    from starlette.formparsers import MultiPartException, MultiPartParser

    class InMemory(MultiPartParser):
        spool_max_size = 2 * limits.upload_bytes
        complete = False

        def on_end(self) -> None:
            self.complete = True

    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Refusal(415, "This is not the form of this page", "Choose a photo below")
    parser = InMemory(
        Headers({"content-type": content_type}), _limited(body, limits), max_files=_PARTS, max_fields=_PARTS
    )
    try:
        form = await parser.parse()
    except MultiPartException:
        raise Refusal(400, "The upload is broken", "Send it again") from None
    try:
        if not parser.complete:
            raise Refusal(400, "The upload broke off", "Send it again")
        files = [part for part in form.getlist(PHOTO) if isinstance(part, UploadFile)]
        photo = max([await file.read() for file in files], key=len, default=b"")
        if not photo:
            named = any(file.filename for file in files)
            raise Refusal(400, "The file is empty" if named else "No photo was chosen", "Choose a photo below")
        return Upload(photo, bool(form.get(CROP)))
    finally:
        await form.close()


async def _limited(body: AsyncIterator[bytes], limits: Limits) -> AsyncGenerator[bytes]:
    size = 0
    async for chunk in body:
        size += len(chunk)
        if size > limits.upload_bytes:
            raise too_large(limits)
        yield chunk


def too_large(limits: Limits) -> Refusal:
    """413 for an upload beyond the limit."""
    return Refusal(413, f"The file is larger than {limits.upload_words}", "Choose a smaller one, or scale it down")
