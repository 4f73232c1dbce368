"""The form that a browser sends, read from the stream and never larger in memory than is allowed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recon_toolkit.demo.limits import Limits
from recon_toolkit.demo.refusal import Refusal

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

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
    """Read a form as it comes in.

    Args:
        body: the parts of the request's body.
        content_type: the request's header.
        limits: of the upload's size.

    Raises:
        Refusal: it is too large (413, raised as soon as the limit is passed), no such form (415), broken or without a
            picture (400).
    """
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Refusal(415, "This is not the form of this page", "Choose a photo below")
    parts = _Parts()
    size = 0
    try:
        parser = MultipartParser(options[b"boundary"], parts.callbacks())
        async for chunk in body:
            size += len(chunk)
            if size > limits.upload_bytes:
                raise too_large(limits)
            parser.write(chunk)
        parser.finalize()
    except FormParserError:
        raise Refusal(400, "The upload is broken", "Send it again") from None
    if not parts.complete:
        raise Refusal(400, "The upload broke off", "Send it again")
    photo = next((bytes(content) for name, content in parts.found if name == PHOTO and content), None)
    if photo is None:
        named = parts.named_file
        raise Refusal(400, "The file is empty" if named else "No photo was chosen", "Choose a photo below")
    return Upload(photo, any(name == CROP and content for name, content in parts.found))


def too_large(limits: Limits) -> Refusal:
    """413 for an upload beyond the limit."""
    return Refusal(413, f"The file is larger than {limits.upload_words}", "Choose a smaller one, or scale it down")


class _Parts:
    """Collects the parts of a form as the parser meets them."""

    def __init__(self) -> None:
        self.found: list[tuple[str, bytearray]] = []
        self.named_file = False
        self.complete = False
        self._field = bytearray()
        self._value = bytearray()
        self._name = ""

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header,
            "on_headers_finished": self._headers,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._name = ""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header(self) -> None:
        from python_multipart.multipart import parse_options_header

        if self._field.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
            self.named_file |= bool(options.get(b"filename"))
        self._field.clear()
        self._value.clear()

    def _headers(self) -> None:
        from python_multipart.exceptions import FormParserError

        if len(self.found) == _PARTS:
            raise FormParserError("too many parts")
        self.found.append((self._name, bytearray()))

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.found[-1][1].extend(memoryview(data)[start:end])

    def _end(self) -> None:
        self.complete = True
