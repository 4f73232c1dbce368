"""Meshes as ``.3mf`` files, in millimetres: a zip with three short XML parts (3MF Core Specification 1.3)."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np

from recon_toolkit.errors import DataError
from recon_toolkit.shapes.forms import Floats, Mesh

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
#: Most bytes of a model's XML: a small zip can hold endless nothing.
_MOST_BYTES = 1 << 31


def threemf_bytes(mesh: Mesh) -> bytes:
    """A mesh as the contents of a file; its numbers are millimetres, z is up."""
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


def mesh_from_threemf(data: bytes) -> Mesh:
    """All objects that a file builds as one mesh, in millimetres.

    Raises:
        DataError: it is no such file, or holds no mesh.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as package:
            name = next((name for name in package.namelist() if name.lower() == _MODEL.lower()), None) or next(
                name for name in package.namelist() if name.lower().endswith(".model")
            )
            if package.getinfo(name).file_size > _MOST_BYTES:
                raise DataError("the model in this 3MF file is too large", remedy="use a simpler one")
            root = ElementTree.fromstring(package.read(name))
        factor = _UNITS[root.get("unit", "millimeter")]
        space = "{" + _CORE + "}"
        objects = {entry.get("id"): entry for entry in root.iter(f"{space}object")}
        parts = [
            part
            for item in root.iter(f"{space}item")
            for part in _built(objects, item.get("objectid"), _transform(item.get("transform")), space, 0)
        ]
        if not parts:
            raise DataError("this 3MF file builds no mesh", remedy="check where it comes from")
        starts = np.cumsum([0, *(len(vertices) for vertices, _ in parts[:-1])])
        return Mesh(
            np.concatenate([vertices for vertices, _ in parts]) * factor,
            np.concatenate([faces + start for (_, faces), start in zip(parts, starts, strict=True)]),
        )
    except (zipfile.BadZipFile, ElementTree.ParseError, StopIteration, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"this 3MF file cannot be read: {type(error).__name__}: {error}", remedy="check where it comes from"
        ) from None


def _built(
    objects: dict[str | None, ElementTree.Element], name: str | None, place: Floats, space: str, depth: int
) -> Iterator[tuple[Floats, np.typing.NDArray[np.int64]]]:
    """Vertices and faces of the meshes that an object is put together from."""
    if depth > _DEEPEST:
        raise ValueError("its objects hold one another")
    entry = objects[name]
    for mesh in entry.findall(f"{space}mesh"):
        vertices = np.array(
            [[v.attrib["x"], v.attrib["y"], v.attrib["z"]] for v in mesh.iter(f"{space}vertex")], dtype=np.float64
        ).reshape(-1, 3)
        faces = np.array(
            [[t.attrib["v1"], t.attrib["v2"], t.attrib["v3"]] for t in mesh.iter(f"{space}triangle")], dtype=np.int64
        ).reshape(-1, 3)
        if np.linalg.det(place[:3]) < 0:
            faces = faces[:, ::-1]
        yield vertices @ place[:3] + place[3], faces
    for part in entry.findall(f"{space}components/{space}component"):
        inner = _transform(part.get("transform"))
        joined = np.vstack((inner[:3] @ place[:3], inner[3] @ place[:3] + place[3]))
        yield from _built(objects, part.get("objectid"), joined, space, depth + 1)


def _transform(text: str | None) -> Floats:
    """(4, 3): rows of the matrix that a row vector is multiplied with, then the offset."""
    if text is None:
        return np.vstack((np.eye(3), np.zeros(3)))
    return np.array([float(word) for word in text.split()]).reshape(4, 3)
