"""STL, 3MF and binvox files."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.etree import ElementTree

import numpy as np

from recon_toolkit.data.limits import MAX_PARTS, MAX_VOXELS, Deadline, count_elements, too_large, unpacked
from recon_toolkit.errors import DataError
from recon_toolkit.io.materials import Part, Warn, joined_parts
from recon_toolkit.shapes.forms import Faces, Floats, Mesh, Voxels

_HEAD = 84
_UNKNOWN = 0xFFFFFFFF
_FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def is_binary_stl(data: bytes) -> bool:
    """Whether it is not text. Binary files may start with ``solid`` too, so their size is asked first."""
    if len(data) < _HEAD:
        return False
    if len(data) == _HEAD + _FACET.itemsize * int.from_bytes(data[80:84], "little"):
        return True
    start = data[:1024].lstrip().lower()
    return not (start.startswith(b"solid") and (b"facet" in data[:4096].lower() or b"endsolid" in data.lower()))


def part_of_stl(data: bytes, warn: Warn) -> Part:
    """The facets of a file, three vertices each; a text without facets gives a part without faces.

    Args:
        data: the file, binary or text.
        warn: told where a binary file has another number of facets than it says, or something behind them.

    Raises:
        DataError: the file is cut off, or a number cannot be read.
    """
    return _part_of_binary(data, warn) if is_binary_stl(data) else _part_of_text(data)


def _part_of_text(data: bytes) -> Part:
    numbers = rb"\s+([^\s]+)" * 3
    found = re.findall(rb"(?:^|\n|\r)[ \t]*vertex" + numbers, data, re.IGNORECASE)
    count_elements(len(found), "vertices")
    try:
        vertices = np.array(found, dtype=np.float64).reshape(-1, 3)
        faces = np.arange(len(vertices), dtype=np.int64).reshape(-1, 3)
    except ValueError:
        raise DataError("is damaged, cut off, or no .stl file", remedy="export it again") from None
    return Part(vertices, faces)


def _part_of_binary(data: bytes, warn: Warn) -> Part:
    """As many facets as the file says; or as its size allows, where it says 0 or all bits, as streams are left."""
    claimed = int.from_bytes(data[80:84], "little")
    present = max(len(data) - _HEAD, 0) // _FACET.itemsize
    if not present:
        raise DataError("the file has no faces", remedy="export it again")
    if present < claimed != _UNKNOWN:
        raise DataError(
            f"the file says that it has {claimed:,} facets, and holds {present:,}",
            remedy="the file may be cut off: copy or export it again",
        )
    number = present if claimed in (0, _UNKNOWN) else claimed
    rest = len(data) - _HEAD - number * _FACET.itemsize
    if number != claimed:
        warn(f"the file says that it has {claimed:,} facets; as many as it holds are read, {number:,}")
    elif rest:
        warn(f"{rest:,} bytes behind the {number:,} facets are not read")
    count_elements(3 * number, "vertices")
    rows = np.frombuffer(data, _FACET, number, _HEAD)
    vertices = rows["corners"].astype(np.float64).reshape(-1, 3)
    return Part(vertices, np.arange(3 * number, dtype=np.int64).reshape(-1, 3))


_CORE = "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"
_MODEL = "3D/3dmodel.model"
_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
_TYPES = (
    f'{_XML}<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="model" ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/></Types>'
)
_RELATIONS = (
    f'{_XML}<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    f'<Relationship Target="/{_MODEL}" Id="rel0" Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/>'
    "</Relationships>"
)
#: Millimetres of the units that a model may be in.
_UNITS = {"micron": 0.001, "millimeter": 1.0, "centimeter": 10.0, "inch": 25.4, "foot": 304.8, "meter": 1000.0}
#: Objects may be put together from objects; deeper than this, a file is not taken seriously.
_DEEPEST = 32


def threemf_bytes(mesh: Mesh) -> bytes:
    """A mesh as the contents of a file; its numbers are millimetres, z is up."""
    if mesh.colours is not None:
        mesh = mesh.joined()  # a slicer wants neighbours to share their vertices
    text = io.StringIO()
    text.write(f'{_XML}<model unit="millimeter" xml:lang="en-US" xmlns="{_CORE}">\n<resources>')
    text.write('<object id="1" type="model"><mesh>\n<vertices>\n')
    np.savetxt(text, mesh.vertices, fmt='<vertex x="%.9g" y="%.9g" z="%.9g"/>')
    text.write("</vertices>\n<triangles>\n")
    np.savetxt(text, mesh.faces, fmt='<triangle v1="%d" v2="%d" v3="%d"/>')
    text.write('</triangles>\n</mesh></object></resources>\n<build><item objectid="1"/></build>\n</model>\n')
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as package:
        for name, part in (("[Content_Types].xml", _TYPES), ("_rels/.rels", _RELATIONS), (_MODEL, text.getvalue())):
            # A date of its own would make two files of one mesh differ.
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            package.writestr(entry, part)
    return data.getvalue()


@dataclass
class _Object:
    """What an object of a model holds: a mesh of its own, and other objects by their number, each with a place."""

    vertices: Floats = field(default_factory=lambda: np.zeros((0, 3)))
    faces: Faces = field(default_factory=lambda: np.zeros((0, 3), np.int64))
    components: list[tuple[str | None, Floats]] = field(default_factory=list)


@dataclass
class _Model:
    unit: str
    objects: dict[str | None, _Object]
    items: list[tuple[str | None, Floats]]


def mesh_from_threemf(data: bytes) -> Mesh:
    """All objects that a file builds as one mesh, in millimetres.

    Raises:
        DataError: it is no such file, holds no mesh, or more than is read.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as package:
            name = next((name for name in package.namelist() if name.lower() == _MODEL.lower()), None) or next(
                name for name in package.namelist() if name.lower().endswith(".model")
            )
            model = _parsed(unpacked(package, name))
        factor = _UNITS[model.unit]
        _count(model)
        parts = [part for name, place in model.items for part in _built(model.objects, name, place)]
        if not parts:
            raise DataError("this 3MF file builds no mesh", remedy="check where it comes from")
        mesh = joined_parts(parts)
        return Mesh(mesh.vertices * factor, mesh.faces)
    except (
        *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError),
        *(ElementTree.ParseError, StopIteration, KeyError, TypeError, ValueError),
    ) as error:
        raise DataError(
            f"this 3MF file cannot be read: {type(error).__name__}: {error}", remedy="check where it comes from"
        ) from None


def _parsed(text: bytes) -> _Model:
    """A model's XML, of which numbers alone are kept: a tree of it would take thirty times the text."""
    space = "{" + _CORE + "}"
    model, deadline = _Model("millimeter", {}, []), Deadline()
    current, vertices, corners = _Object(), array("d"), array("q")
    above: list[ElementTree.Element] = []
    for number, (event, entry) in enumerate(ElementTree.iterparse(io.BytesIO(text), ("start", "end"))):
        if number % 100_000 == 0:
            deadline.check()
        tag, get = entry.tag.removeprefix(space), entry.attrib.get
        if event == "start":
            above.append(entry)
            if len(above) == 1:
                model.unit = get("unit", model.unit)
            if tag == "object":
                current, vertices, corners = _Object(), array("d"), array("q")
            continue
        above.pop()
        if above:
            above[-1].remove(entry)  # it has been looked at
        if tag == "vertex":
            vertices.extend((float(entry.attrib["x"]), float(entry.attrib["y"]), float(entry.attrib["z"])))
        elif tag == "triangle":
            corners.extend((int(entry.attrib["v1"]), int(entry.attrib["v2"]), int(entry.attrib["v3"])))
        elif tag == "component":
            current.components.append((get("objectid"), _transform(get("transform"))))
        elif tag == "item":
            model.items.append((get("objectid"), _transform(get("transform"))))
        elif tag == "object":
            current.vertices = np.array(vertices, dtype=np.float64).reshape(-1, 3)
            current.faces = np.array(corners, dtype=np.int64).reshape(-1, 3)
            if len(current.faces) and not 0 <= current.faces.min() <= current.faces.max() < len(current.vertices):
                raise ValueError("a triangle names a vertex that is not there")
            model.objects[get("id")] = current
    return model


def _count(model: _Model) -> None:
    """Refuse a file that comes to too much, before any of it is made: an object of two, each of two, has no end."""
    known: dict[str | None, tuple[int, int, int]] = {}

    def size(name: str | None, depth: int) -> tuple[int, int, int]:
        if depth > _DEEPEST:
            raise ValueError("its objects hold one another, or are nested too deeply")
        if name not in known:
            made = model.objects[name]
            inner = [size(other, depth + 1) for other, _ in made.components]
            own = (len(made.vertices), len(made.faces), 1)
            known[name] = tuple(sum(column) for column in zip(own, *inner, strict=True))
        return known[name]

    vertices, faces, parts = (
        sum(column) for column in zip((0, 0, 0), *(size(n, 0) for n, _ in model.items), strict=True)
    )
    count_elements(vertices, "vertices")
    count_elements(faces, "faces")
    if parts > MAX_PARTS:
        raise too_large(f"it puts {parts:,} parts together, more than {MAX_PARTS:,}")


def _built(objects: dict[str | None, _Object], name: str | None, place: Floats) -> Iterator[Part]:
    """The meshes that an object is put together from."""
    made = objects[name]
    if len(made.faces):
        faces = made.faces[:, ::-1] if np.linalg.det(place[:3]) < 0 else made.faces
        yield Part(made.vertices @ place[:3] + place[3], faces)
    for part, inner in made.components:
        yield from _built(objects, part, np.vstack((inner[:3] @ place[:3], inner[3] @ place[:3] + place[3])))


def _transform(text: str | None) -> Floats:
    """(4, 3): rows of the matrix that a row vector is multiplied with, then the offset."""
    if text is None:
        return np.vstack((np.eye(3), np.zeros(3)))
    return np.array([float(word) for word in text.split()]).reshape(4, 3)


def binvox_bytes(voxels: Voxels) -> bytes:
    """Voxels as the contents of a file; grids that are no cubes are filled up to one with empty voxels."""
    side = max(voxels.filled.shape)
    cube = np.pad(voxels.filled, [(0, side - n) for n in voxels.filled.shape])
    values = cube.transpose(0, 2, 1).reshape(-1).astype(np.uint8)
    starts = np.concatenate(([0], np.flatnonzero(np.diff(values)) + 1))
    lengths = np.diff(np.append(starts, len(values)))
    # A run longer than a byte can say becomes several of 255 and a rest.
    parts = -(-lengths // 255)
    counts = np.full(parts.sum(), 255, dtype=np.uint8)
    counts[np.cumsum(parts) - 1] = (lengths - 1) % 255 + 1
    runs = np.stack((np.repeat(values[starts], parts), counts), axis=1)
    corner = " ".join(repr(float(value)) for value in voxels.origin)
    header = f"#binvox 1\ndim {side} {side} {side}\ntranslate {corner}\nscale {voxels.pitch * side!r}\ndata\n"
    return header.encode() + runs.astype(np.uint8).tobytes()


def voxels_from_binvox(data: bytes) -> Voxels:
    """Voxels from the contents of a file.

    Raises:
        DataError: it is no such file, or it is not whole.
    """
    head, found, body = data.partition(b"\ndata\n")
    lines = head.decode("ascii", "replace").split("\n")
    if not found or not lines[0].startswith("#binvox"):
        raise DataError("this is no binvox file", remedy="check where it comes from")
    fields = {words[0]: words[1:] for words in (line.split() for line in lines[1:]) if words}
    try:
        depth, width, height = (int(word) for word in fields["dim"])
        origin = np.array([float(word) for word in fields.get("translate", ("0", "0", "0"))])
        scale = float(fields.get("scale", ("1",))[0])
    except (KeyError, ValueError, IndexError):
        raise DataError("the header of this binvox file cannot be read", remedy="check where it comes from") from None
    if not 0 < depth * width * height <= MAX_VOXELS:
        raise too_large(f"it has {depth} x {width} x {height} voxels")
    runs = np.frombuffer(body[: len(body) // 2 * 2], dtype=np.uint8).reshape(-1, 2)
    total, expected = int(runs[:, 1].sum(dtype=np.int64)), depth * width * height
    if total != expected or min(depth, width, height) < 1:
        raise DataError(f"this binvox file has {total:,} voxels of {expected:,}", remedy="the file may be cut off")
    values = np.repeat(runs[:, 0] > 0, runs[:, 1])
    # The third number is y's: it is listed as x, z, y.
    filled = values.reshape(depth, width, height).transpose(0, 2, 1)
    return Voxels(np.ascontiguousarray(filled), origin, scale / depth)
