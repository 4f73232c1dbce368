"""Shapes as files: clouds, meshes and voxels by their suffix. z is up; see :func:`write_shape` for GLB."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recon_toolkit.errors import DataError
from recon_toolkit.files import writing
from recon_toolkit.shapes.binvox import binvox_bytes
from recon_toolkit.shapes.forms import Cloud, Floats, Mesh, Shape, Voxels, form_of
from recon_toolkit.shapes.reading import FORMS, Y_UP, forms_of, read_shape
from recon_toolkit.shapes.threemf import threemf_bytes

__all__ = ["FORMS", "forms_of", "on_the_bed", "read_shape", "shape_bytes", "write_shape"]


def write_shape(path: str | Path, shape: Shape, *, height_mm: float | None = None) -> Path:
    """Write a shape as the file that the suffix of ``path`` names, whole or not at all.

    - clouds: ``.ply`` (binary, with normals and colours), ``.npy`` and ``.npz`` (float32 (N, 3), ``points``), ``.xyz``
      and ``.txt`` (with normals where there are any);
    - meshes: ``.ply`` and ``.stl`` (binary), ``.obj``, ``.off``, ``.glb`` (glTF 2.0), ``.3mf``; PLY, OBJ and GLB keep
      the colours of vertices;
    - voxels: ``.binvox``, and ``.npy`` (bool (X, Y, Z), which has no place for where and how large they are).

    z is up, but in GLB, OBJ and OFF y, as is usual there: the shape is turned to stand in them.

    Args:
        path: the file. Its folder is made where it is missing.
        shape: a cloud, a mesh or voxels, z up.
        height_mm: scale the shape to this height along z, in millimetres, and set it on z = 0 above the origin. GLB
            gets metres, as glTF wants them.

    Returns:
        ``path``.

    Raises:
        DataError: the suffix is unknown or for other forms, the shape has no height, or the disk is full or cannot be
            written.
        ValueError: ``height_mm`` is not above 0.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    forms_of(path)
    try:
        if height_mm is not None:
            shape = on_the_bed(shape, height_mm / 1000 if suffix == ".glb" else height_mm)
        data = shape_bytes(shape, suffix)
    except DataError as error:
        raise DataError(error.message, where=error.where or str(path), remedy=error.remedy) from None
    with writing(path) as file:
        file.write(data)
    return path


def shape_bytes(shape: Shape, suffix: str) -> bytes:
    """What :func:`write_shape` writes into a file with a suffix, e.g. ``.glb``.

    Raises:
        DataError: the suffix is unknown or for other forms.
    """
    form = form_of(shape)
    if form not in forms_of(f"shape{suffix}"):
        known = ", ".join(name for name, forms in FORMS.items() if form in forms)
        noun = {"cloud": "a cloud", "mesh": "a mesh", "voxels": "voxels"}[form]
        raise DataError(f"{suffix} does not hold {noun}", remedy=f"convert first, or use {known}")
    return _bytes(shape, suffix.lower())


def on_the_bed(shape: Shape, height: float) -> Shape:
    """A shape scaled to a height along z, on z = 0, with the middle of its box above the origin.

    Raises:
        DataError: the shape is flat.
        ValueError: ``height`` is not above 0.
    """
    if not (np.isfinite(height) and height > 0):
        raise ValueError(f"a height is above 0, not {height}")
    low, high = shape.bounds
    size = high - low
    if not size[2] > 1e-9 * size.max():
        raise DataError("the shape has no height to scale", remedy="turn it, so that z is up")
    factor = height / float(size[2])
    return shape.moved(factor, -factor * np.array(((low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2])))


def _bytes(shape: Shape, suffix: str) -> bytes:
    if isinstance(shape, Voxels):
        return binvox_bytes(shape) if suffix == ".binvox" else _saved(shape.filled)
    if isinstance(shape, Cloud):
        if suffix == ".ply":
            return _ply_cloud(shape)
        if suffix == ".npy":
            return _saved(shape.points.astype(np.float32))
        if suffix == ".npz":
            data = io.BytesIO()
            np.savez_compressed(data, points=shape.points.astype(np.float32))
            return data.getvalue()
        columns = shape.points if shape.normals is None else np.hstack((shape.points, shape.normals))
        return _lines(columns, " ".join(["%.9g"] * columns.shape[1]))
    if suffix in Y_UP:
        shape = Mesh(shape.vertices[:, (0, 2, 1)] * (1, 1, -1), shape.faces, shape.colours)
    if suffix == ".obj":
        if shape.colours is None:
            return _lines(shape.vertices, "v %.9g %.9g %.9g") + _lines(shape.faces + 1, "f %d %d %d")
        # Colours from 0 to 1 behind the place, as MeshLab and Blender read them; 6 digits give every byte back.
        rows = np.hstack((shape.vertices, shape.colours / 255))
        return _lines(rows, "v %.9g %.9g %.9g %.6f %.6f %.6f") + _lines(shape.faces + 1, "f %d %d %d")
    if suffix == ".off":
        header = f"OFF\n{len(shape.vertices)} {len(shape.faces)} 0\n".encode()
        return header + _lines(shape.vertices, "%.9g %.9g %.9g") + _lines(shape.faces, "3 %d %d %d")
    makers = {".ply": _ply_mesh, ".stl": _stl, ".glb": _glb, ".3mf": threemf_bytes}
    return makers[suffix](shape)


def _saved(values: NDArray[np.generic]) -> bytes:
    data = io.BytesIO()
    np.save(data, values, allow_pickle=False)
    return data.getvalue()


def _lines(values: NDArray[np.generic], form: str) -> bytes:
    data = io.StringIO()
    np.savetxt(data, values, fmt=form)
    return data.getvalue().encode()


#: An element of a PLY header: its name, how many there are, and names and types of its properties.
_Element: TypeAlias = tuple[str, int, list[tuple[str, str]]]


def _ply_cloud(cloud: Cloud) -> bytes:
    header, vertices = _ply_vertices(cloud.points, cloud.normals, cloud.colours)
    return _ply_header(header) + vertices


def _ply_vertices(points: Floats, normals: Floats | None, colours: NDArray[np.uint8] | None) -> tuple[_Element, bytes]:
    columns: list[tuple[str, str, NDArray[np.generic]]] = [(name, "<f4", points[:, k]) for k, name in enumerate("xyz")]
    if normals is not None:
        columns += [(name, "<f4", normals[:, k]) for k, name in enumerate(("nx", "ny", "nz"))]
    if colours is not None:
        columns += [(name, "u1", colours[:, k]) for k, name in enumerate(("red", "green", "blue"))]
    rows = np.empty(len(points), dtype=[(name, kind) for name, kind, _ in columns])
    for name, _, values in columns:
        rows[name] = values
    return ("vertex", len(rows), [(name, kind) for name, kind, _ in columns]), rows.tobytes()


def _ply_mesh(mesh: Mesh) -> bytes:
    faces = np.empty(len(mesh.faces), dtype=[("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, mesh.faces
    header, vertices = _ply_vertices(mesh.vertices, None, mesh.colours)
    return _ply_header(header, ("face", len(faces), [("vertex_indices", "list")])) + vertices + faces.tobytes()


def _ply_header(*elements: _Element) -> bytes:
    kinds = {"<f4": "float", "u1": "uchar", "list": "list uchar int"}
    lines = ["ply", "format binary_little_endian 1.0", "comment recon-toolkit"]
    for element, count, properties in elements:
        lines.append(f"element {element} {count}")
        lines += [f"property {kinds[kind]} {name}" for name, kind in properties]
    return "\n".join([*lines, "end_header", ""]).encode()


def _stl(mesh: Mesh) -> bytes:
    rows = np.zeros(len(mesh.faces), dtype=[("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    rows["normal"], rows["corners"] = mesh.normals, mesh.vertices[mesh.faces]
    # A file that starts with "solid" is taken for text by some readers.
    return b"binary, recon-toolkit".ljust(80) + struct.pack("<I", len(rows)) + rows.tobytes()


def _glb(mesh: Mesh) -> bytes:
    import trimesh
    from trimesh.exchange.gltf import export_glb

    made = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=mesh.colours, process=False, validate=False)
    factor = [0.6, 0.6, 0.6, 1.0] if mesh.colours is None else [1.0, 1.0, 1.0, 1.0]

    def matt(tree: dict[str, Any]) -> None:
        """A surface without a material is metal by the format, and nearly black in most programs."""
        surface = {"metallicFactor": 0.0, "roughnessFactor": 1.0, "baseColorFactor": factor}
        tree["materials"] = [{"name": "surface", "doubleSided": True, "pbrMetallicRoughness": surface}]
        for primitive in (primitive for entry in tree["meshes"] for primitive in entry["primitives"]):
            primitive["material"] = 0

    # With normals, programs shade it smoothly, and without, face by face.
    data = export_glb(  # type: ignore[no-untyped-call]
        trimesh.Scene(made), include_normals=True, tree_postprocessor=matt
    )
    return bytes(data)
