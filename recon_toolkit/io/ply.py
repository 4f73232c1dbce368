"""PLY files, text and binary of both byte orders: clouds, and meshes whose faces have any number of corners.

trimesh reads them too, unless faces of different sizes stand in one binary list, and makes arrays of the length that a
header claims.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recon_toolkit.data.limits import count_elements
from recon_toolkit.errors import DataError
from recon_toolkit.io.materials import Part, bytes_of_colours, fans
from recon_toolkit.shapes.forms import Floats

_KINDS = {
    **{"char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2"},
    **{"uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4"},
    **{"double": "f8", "float64": "f8", "int64": "i8", "uint64": "u8"},
}
_FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
#: Names of the lists that are a face's corners.
_CORNERS = ("vertex_indices", "vertex_index")
_COLOURS = (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"))
#: Bytes of a header; a file without ``end_header`` is not looked through for it.
_MAX_HEADER = 1 << 20


@dataclass
class _Element:
    name: str
    count: int
    #: Name, type, and for lists the type of their length.
    properties: list[tuple[str, str, str | None]] = field(default_factory=list)


@dataclass
class PlyData:
    """What a file holds.

    Attributes:
        part: vertices, faces (F may be 0) and colours.
        normals: (V, 3) as they stand in the file, or None.
    """

    part: Part
    normals: Floats | None


Lists = tuple[NDArray[np.int64], NDArray[Any]]


def read_ply(data: bytes) -> PlyData:
    """The vertices and faces of a file; polygons become fans of triangles, and ``tristrips`` triangles.

    Raises:
        DataError: it is no PLY file, is cut off, claims more than it holds, or a face names a vertex that is not there.
    """
    order, elements, start = _header(data)
    columns: dict[str, dict[str, NDArray[Any] | Lists]] = {}
    for element, found in _text(data, elements, start) if not order else _binary(data, elements, start, order):
        columns.setdefault(element.name, found)
    vertex = columns.get("vertex")
    if vertex is None or not all(name in vertex for name in "xyz"):
        raise DataError("this PLY file has no vertices with x, y and z", remedy="export it again")
    vertices = np.stack([np.asarray(vertex[name], dtype=np.float64) for name in "xyz"], axis=1)
    faces, source = _faces(columns)
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
        wrong = int(faces.min() if faces.min() < 0 else faces.max())
        raise DataError(f"a face names vertex {wrong}, and there are {len(vertices)}", remedy="vertices count from 0")
    each = _colours(columns.get("face", {}))
    part = Part(vertices, faces, _colours(vertex), None if each is None else each[source])
    normals = None
    if all(name in vertex for name in ("nx", "ny", "nz")):
        normals = np.stack([np.asarray(vertex[name], dtype=np.float64) for name in ("nx", "ny", "nz")], axis=1)
    return PlyData(part, normals)


def _header(data: bytes) -> tuple[str, list[_Element], int]:
    """Byte order ("" for text), elements, and where what they hold starts."""
    end = data.find(b"end_header", 0, _MAX_HEADER)
    if not data.startswith(b"ply") or end < 0:
        raise DataError("is damaged, cut off, or no .ply file", remedy="export it again")
    line_end = data.find(b"\n", end)
    if data[:end].count(b"\n") == 0:  # old Macintosh files end lines so
        line_end = data.find(b"\r", end)
    order, elements = None, []
    try:
        for line in data[:end].decode("utf-8", "replace").splitlines()[1:]:
            words = line.split()
            match words[:1]:
                case ["format"]:
                    order = _FORMATS[words[1]]
                case ["element"]:
                    elements.append(_Element(words[1], count_elements(int(words[2]), f"of '{words[1]}'")))
                case ["property"] if words[1] == "list":
                    elements[-1].properties.append((words[4], _KINDS[words[3]], _KINDS[words[2]]))
                case ["property"]:
                    elements[-1].properties.append((words[2], _KINDS[words[1]], None))
    except (KeyError, IndexError, ValueError) as error:
        raise DataError(f"the header of this PLY file cannot be read: {error}", remedy="export it again") from None
    if order is None:
        raise DataError("the header of this PLY file names no format", remedy="export it again")
    return order, elements, len(data) if line_end < 0 else line_end + 1


def _cut_off(element: _Element) -> DataError:
    return DataError(
        f"the file claims {element.count:,} of '{element.name}' and holds fewer",
        remedy="the file may be cut off: copy or export it again",
    )


def _binary(
    data: bytes, elements: list[_Element], at: int, order: str
) -> Iterator[tuple[_Element, dict[str, NDArray[Any] | Lists]]]:
    for element in elements:
        fixed = [(name, order + kind) for name, kind, counted in element.properties if counted is None]
        least = sum(np.dtype(counted or kind).itemsize for _, kind, counted in element.properties)
        if element.count * least > len(data) - at:
            raise _cut_off(element)
        if len(fixed) == len(element.properties):
            # Names may come twice in files of some scanners, and a dtype has each once.
            row = np.dtype([(f"{index}", kind) for index, (_, kind) in enumerate(fixed)])
            rows: NDArray[Any] = np.frombuffer(data, row, element.count, at) if fixed else np.zeros(element.count)
            at += element.count * row.itemsize
            yield element, {name: rows[f"{index}"] for index, (name, _) in reversed(list(enumerate(fixed)))}
        else:
            found, at = _rows_with_lists(data, element, at, order)
            yield element, found


def _rows_with_lists(
    data: bytes, element: _Element, at: int, order: str
) -> tuple[dict[str, NDArray[Any] | Lists], int]:
    """Columns of rows with lists in them, and where they end."""
    numbers = len(element.properties)
    kinds = [(np.dtype(order + kind), None if n is None else np.dtype(order + n)) for _, kind, n in element.properties]
    # Nearly always all lists are as long as those of the first row: then rows are alike, and read at once.
    lengths = _lengths(data, kinds, at, order)
    fields: list[Any] = []
    for index, (kind, counted) in enumerate(kinds):
        fields += (
            [(f"{index}", kind)] if counted is None else [(f"n{index}", counted), (f"{index}", kind, lengths[index])]
        )
    row = np.dtype(fields)
    if element.count * row.itemsize <= len(data) - at:
        rows = np.frombuffer(data, row, element.count, at)
        if all((rows[f"n{k}"] == lengths[k]).all() for k in range(numbers) if kinds[k][1] is not None):
            found: dict[str, NDArray[Any] | Lists] = {}
            for index, (name, _, counted_name) in enumerate(element.properties):
                values = rows[f"{index}"]
                if counted_name is None:
                    found[name] = values
                else:
                    found[name] = np.full(element.count, lengths[index], np.int64), values.reshape(-1)
            return found, at + element.count * row.itemsize
    return _uneven_rows(data, element, at, kinds, order)


def _lengths(data: bytes, kinds: list[tuple[np.dtype[Any], np.dtype[Any] | None]], at: int, order: str) -> list[int]:
    """Lengths of the first row's lists, 0 for what is none."""
    endian: Literal["big", "little"] = "big" if order == ">" else "little"
    lengths = []
    for kind, counted in kinds:
        length = 0
        if counted is None:
            at += kind.itemsize
        else:
            length = max(int.from_bytes(data[at : at + counted.itemsize], endian), 0)
            if length > len(data):
                length = 0  # nonsense, which the slow way will name
            at += counted.itemsize + length * kind.itemsize
        lengths.append(length)
    return lengths


def _uneven_rows(
    data: bytes, element: _Element, at: int, kinds: list[tuple[np.dtype[Any], np.dtype[Any] | None]], order: str
) -> tuple[dict[str, NDArray[Any] | Lists], int]:
    """Row by row, as where a list is is known only after the one before it."""
    places = np.empty((len(kinds), element.count), dtype=np.int64)
    counts = np.ones((len(kinds), element.count), dtype=np.int64)
    endian: Literal["big", "little"] = "big" if order == ">" else "little"
    for index in range(element.count):
        for number, (kind, counted) in enumerate(kinds):
            if counted is None:
                places[number, index] = at
                at += kind.itemsize
                continue
            length = int.from_bytes(data[at : at + counted.itemsize], endian)
            at += counted.itemsize
            places[number, index], counts[number, index] = at, length
            at += length * kind.itemsize
            if at > len(data):
                raise _cut_off(element)
    if at > len(data):
        raise _cut_off(element)
    raw = np.frombuffer(data, np.uint8)
    found: dict[str, NDArray[Any] | Lists] = {}
    for number, (name, _, _) in enumerate(element.properties):
        kind, counted = kinds[number]
        total = int(counts[number].sum())
        step = np.arange(total) - np.repeat(np.cumsum(counts[number]) - counts[number], counts[number])
        start = np.repeat(places[number], counts[number]) + step * kind.itemsize
        values = raw[start[:, None] + np.arange(kind.itemsize)].view(kind).reshape(-1)
        found[name] = values if counted is None else (counts[number], values)
    return found, at


def _text(
    data: bytes, elements: list[_Element], start: int
) -> Iterator[tuple[_Element, dict[str, NDArray[Any] | Lists]]]:
    """Numbers are taken one after the other, however they stand in lines."""
    try:
        values = np.array(data[start:].split(), dtype=np.float64)
    except ValueError as error:
        raise DataError(f"this PLY file cannot be read: {error}", remedy="export it again") from None
    at = 0
    for element in elements:
        width = len(element.properties)
        if element.count * width > len(values) - at:
            raise _cut_off(element)
        if all(counted is None for _, _, counted in element.properties):
            rows = values[at : at + element.count * width].reshape(element.count, width)
            at += element.count * width
            yield (
                element,
                {
                    name: _typed(rows[:, k], kind)
                    for k, (name, kind, _) in reversed(list(enumerate(element.properties)))
                },
            )
            continue
        found: dict[str, list[float]] = {name: [] for name, _, _ in element.properties}
        counts: dict[str, list[int]] = {name: [] for name, _, _ in element.properties}
        words = values.tolist()
        for _ in range(element.count):
            for name, _, counted in element.properties:
                if at >= len(words):
                    raise _cut_off(element)
                length = 1
                if counted is not None:
                    length = int(words[at])
                    at += 1
                    if length < 0 or at + length > len(words):
                        raise _cut_off(element)
                found[name] += words[at : at + length]
                counts[name].append(length)
                at += length
        columns: dict[str, NDArray[Any] | Lists] = {}
        for name, kind, counted in element.properties:
            column = _typed(np.array(found[name], dtype=np.float64), kind)
            columns[name] = column if counted is None else (np.array(counts[name], dtype=np.int64), column)
        yield element, columns


def _typed(values: NDArray[np.float64], kind: str) -> NDArray[Any]:
    return values if kind[0] == "f" else values.astype(np.int64).astype(kind)


def _faces(columns: dict[str, dict[str, NDArray[Any] | Lists]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Triangles, and the number of the face that each comes from."""
    for name, element in (("face", _CORNERS), ("tristrips", _CORNERS)):
        found = columns.get(name, {})
        lists = next((found[key] for key in element if key in found), None)
        if isinstance(lists, tuple) and len(lists[0]):
            corners = lists[1].astype(np.int64)
            count_elements(len(corners), "corners of faces")
            faces, source = fans(lists[0], corners) if name == "face" else strips(corners)
            if len(faces):
                return faces, source
    return np.zeros((0, 3), np.int64), np.zeros(0, np.int64)


def strips(corners: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Strips of triangles, with −1 between strips, as faces (F, 3); every second one is turned."""
    index = np.arange(max(len(corners) - 2, 0))
    if not len(index):
        return np.zeros((0, 3), np.int64), np.zeros(0, np.int64)
    faces = np.stack((corners[:-2], corners[1:-1], corners[2:]), axis=1)
    begins = np.maximum.accumulate(np.where(np.concatenate(([-1], corners[:-1])) < 0, np.arange(len(corners)), 0))
    turned = (index - begins[:-2]) % 2 == 1
    faces[turned] = faces[turned][:, (1, 0, 2)]
    kept = (faces >= 0).all(axis=1) & (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    return faces[kept], np.zeros(int(kept.sum()), np.int64)


def _colours(columns: dict[str, NDArray[Any] | Lists]) -> NDArray[np.uint8] | None:
    for names in _COLOURS:
        if all(isinstance(columns.get(name), np.ndarray) for name in names):
            return bytes_of_colours(np.stack([np.asarray(columns[name]) for name in names], axis=1))
    return None
