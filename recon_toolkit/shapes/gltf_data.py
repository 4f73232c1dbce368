"""The buffers of a glTF file, and the arrays in them (glTF 2.0, sections 3.6 and 4.4)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from recon_toolkit.errors import DataError
from recon_toolkit.shapes.limits import count_elements

_KINDS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
#: Extensions that pack buffers in a way that is not read, by what people call them.
_PACKED_VIEWS = {"EXT_meshopt_compression": "meshopt", "KHR_meshopt_compression": "meshopt"}

#: Gives the bytes of a file that is named inside another.
Fetch = Callable[[str], bytes]


def compressed(name: str) -> DataError:
    """The error of a file whose arrays are packed by a method, e.g. Draco."""
    return DataError(f"it is compressed with {name}, which is not read", remedy="save it without compression")


@dataclass
class GltfData:
    """The tree of a file, and its arrays on demand.

    Attributes:
        tree: the JSON.
        body: the binary chunk of a GLB, or None.
        fetch: for buffers and images in files of their own.
    """

    tree: dict[str, Any]
    body: bytes | None
    fetch: Fetch | None = None
    _buffers: dict[int, memoryview] = field(default_factory=dict)

    @classmethod
    def of(cls, data: bytes, fetch: Fetch | None = None) -> GltfData:
        """From a GLB or the text of a ``.gltf``.

        Raises:
            DataError: it is neither, is cut off, or of version 1.
        """
        text, body = (data, None) if not data.startswith(b"glTF") else _chunks(data)
        try:
            tree = json.loads(text.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            raise DataError("is damaged, cut off, or no glTF file", remedy="export it again") from None
        version = str(tree.get("asset", {}).get("version", "")) if isinstance(tree, dict) else ""
        if not version:
            raise DataError("is damaged, cut off, or no glTF file", remedy="export it again")
        if not version.startswith("2"):
            raise DataError(f"it is glTF {version}, which is not read", remedy="save it as glTF 2.0")
        return cls(tree, body, fetch)

    def entry(self, kind: str, index: Any) -> dict[str, Any]:
        """An entry of one of the tree's lists, e.g. ``meshes``.

        Raises:
            DataError: there is none.
        """
        entries = self.tree.get(kind, [])
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(entries):
            raise DataError(f"the file names {kind} {index}, and there are {len(entries)}", remedy="export it again")
        entry = entries[index]
        if not isinstance(entry, dict):
            raise DataError(f"{kind} {index} of the file cannot be read", remedy="export it again")
        return entry

    def count(self, index: Any) -> int:
        """How many elements an accessor claims.

        Raises:
            DataError: there is no such accessor, or more than are read.
        """
        count = self.entry("accessors", index).get("count")
        if isinstance(count, bool) or not isinstance(count, int):
            raise DataError(f"accessor {index} of the file says no count", remedy="export it again")
        return count_elements(count, "values of one array")

    def array(self, index: Any) -> NDArray[Any]:
        """An accessor's elements (N, width): floats where it is normalised, else of its own type.

        Raises:
            DataError: what it names is not there or too short, or packed in a way that is not read.
        """
        accessor, count = self.entry("accessors", index), self.count(index)
        kind, width = self._layout(accessor, index)
        if "bufferView" in accessor:
            values = self._elements(accessor["bufferView"], accessor.get("byteOffset", 0), kind, width, count)
        else:
            values = np.zeros((count, width), dtype=kind)
        if "sparse" in accessor:
            values = self._with_sparse(values, accessor["sparse"], kind, width)
        if accessor.get("normalized") and kind.kind in "iu":
            return np.asarray(np.maximum(values.astype(np.float64) / np.iinfo(kind).max, -1.0))
        return values

    def view(self, index: Any) -> memoryview:
        """The bytes of a buffer view; raises DataError as :meth:`array`."""
        entry = self.entry("bufferViews", index)
        start, length = _size(entry.get("byteOffset", 0)), _size(entry.get("byteLength"))
        number = entry.get("buffer")
        for extension, name in _PACKED_VIEWS.items():
            if extension in entry.get("extensions", {}):
                # A fallback that is really there holds the same, plain.
                buffer = self.entry("buffers", number)
                if "uri" not in buffer and (number != 0 or self.body is None or self._is_fallback(buffer)):
                    raise compressed(name)
        data = self._buffer(number)
        if start + length > len(data):
            raise DataError(
                f"buffer view {index} needs {start + length:,} bytes, and buffer {number} has {len(data):,}",
                remedy="the file may be cut off: copy or export it again",
            )
        return data[start : start + length]

    @staticmethod
    def _is_fallback(buffer: dict[str, Any]) -> bool:
        extensions = buffer.get("extensions", {})
        return any(extensions.get(name, {}).get("fallback") for name in _PACKED_VIEWS)

    def _buffer(self, number: Any) -> memoryview:
        entry = self.entry("buffers", number)
        if number not in self._buffers:
            uri = entry.get("uri")
            if uri is not None:
                self._buffers[number] = memoryview(self.fetched(str(uri)))
            elif number == 0 and self.body is not None:
                self._buffers[number] = memoryview(self.body)
            else:
                raise DataError(f"buffer {number} of the file is not there", remedy="export it again, as one GLB")
        return self._buffers[number]

    def fetched(self, uri: str) -> bytes:
        """What a data URI holds, or the file that it names.

        Raises:
            DataError: it cannot be had.
        """
        if uri.startswith("data:"):
            return base64.b64decode(uri.partition(",")[2])
        if self.fetch is None:
            raise DataError(f"it keeps its data in another file, '{uri[:80]}'", remedy="export it as one GLB")
        try:
            return self.fetch(unquote(uri))
        except OSError:
            raise DataError(f"'{uri[:80]}', which holds its data, is not there", remedy="put it beside") from None

    def _layout(self, accessor: dict[str, Any], index: Any) -> tuple[np.dtype[Any], int]:
        try:
            return np.dtype(_KINDS[accessor["componentType"]]), _WIDTHS[accessor["type"]]
        except (KeyError, TypeError):
            raise DataError(
                f"accessor {index} of the file has a type that is not known", remedy="export it again"
            ) from None

    def _elements(self, view: Any, offset: Any, kind: np.dtype[Any], width: int, count: int) -> NDArray[Any]:
        data, offset = self.view(view), _size(offset)
        size = kind.itemsize * width
        stride = _size(self.entry("bufferViews", view).get("byteStride", 0)) or size
        if count == 0:
            return np.zeros((0, width), dtype=kind)
        if stride < size or offset + stride * (count - 1) + size > len(data):
            raise DataError(
                f"an array of {count:,} elements does not fit into buffer view {view}, which has {len(data):,} bytes",
                remedy="the file may be cut off: copy or export it again",
            )
        return np.ndarray((count, width), kind, data, offset, (stride, kind.itemsize))

    def _with_sparse(self, values: NDArray[Any], sparse: Any, kind: np.dtype[Any], width: int) -> NDArray[Any]:
        """The array with some of its elements replaced."""
        count, where, what = sparse["count"], sparse["indices"], sparse["values"]
        places_kind = np.dtype(_KINDS[where["componentType"]])
        count = min(_size(count), len(values) + 1)
        places = self._elements(where["bufferView"], where.get("byteOffset", 0), places_kind, 1, count)[:, 0]
        if len(places) and (places_kind.kind != "u" or int(places.max()) >= len(values)):
            raise DataError("a sparse array of the file names elements that are not there", remedy="export it again")
        changed = values.copy()
        changed[places] = self._elements(what["bufferView"], what.get("byteOffset", 0), kind, width, count)
        return changed


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DataError(f"the file says {value} where a number of bytes belongs", remedy="export it again")
    return value


def _chunks(data: bytes) -> tuple[bytes, bytes | None]:
    """JSON and binary chunk of a GLB; a wrong total length in its head does no harm."""
    if len(data) < 20:
        raise DataError("is damaged, cut off, or no .glb file", remedy="export it again")
    if int.from_bytes(data[4:8], "little") != 2:
        raise DataError(f"it is GLB {int.from_bytes(data[4:8], 'little')}, which is not read", remedy="save glTF 2.0")
    text, body, at = b"", None, 12
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "little"), data[at + 4 : at + 8]
        chunk = data[at + 8 : at + 8 + length]
        if len(chunk) < length:
            raise DataError("is damaged, or cut off", remedy="copy or export it again")
        if kind == b"JSON" and not text:
            text = chunk
        elif kind == b"BIN\0" and body is None:
            body = chunk
        at += 8 + length
    return text, body
