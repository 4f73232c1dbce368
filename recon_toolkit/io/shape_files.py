"""Shapes as files: clouds, meshes and voxels by their suffix. z is up; see :func:`write_shape` for GLB."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recon_toolkit.data.limits import MAX_FILE_BYTES, MAX_VOXELS, check_npy, count_elements, too_large, unpacked
from recon_toolkit.errors import DataError, suggestion
from recon_toolkit.files import printable, size_of, writing
from recon_toolkit.io.gltf import parts_of_gltf
from recon_toolkit.io.materials import Part, Warn, bytes_of_colours, joined_parts
from recon_toolkit.io.ply import read_ply
from recon_toolkit.io.solids import binvox_bytes, mesh_from_threemf, part_of_stl, threemf_bytes, voxels_from_binvox
from recon_toolkit.shapes.forms import Cloud, Floats, Mesh, Shape, Voxels, form_of

#: The forms that a suffix can hold, for reading and for writing.
FORMS: dict[str, tuple[str, ...]] = {
    ".ply": ("cloud", "mesh"),
    ".npy": ("cloud", "voxels"),
    ".npz": ("cloud",),
    ".xyz": ("cloud",),
    ".txt": ("cloud",),
    ".obj": ("mesh",),
    ".off": ("mesh",),
    ".stl": ("mesh",),
    ".glb": ("mesh",),
    ".3mf": ("mesh",),
    ".binvox": ("voxels",),
}
#: Suffixes of files that have y up by convention; all others have z up, as shapes here do.
Y_UP = (".glb", ".obj", ".off")
#: Suffixes whose files may list a vertex once for each face or part.
_DOUBLING = (".obj", ".stl", ".glb")


def forms_of(path: str | Path) -> tuple[str, ...]:
    """The forms that a file's suffix can hold, some of ``cloud``, ``mesh`` and ``voxels``.

    Raises:
        DataError: the suffix is not known.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMS:
        raise DataError(
            f"'{suffix or Path(path).name}' is no suffix of a shape", where=str(path), remedy=suggestion(suffix, FORMS)
        )
    return FORMS[suffix]


def read_shape(path: str | Path, warn: Warn | None = None) -> Shape:
    """Read a shape from a file, by its suffix.

    - clouds: ``.ply`` without faces, ``.npy`` (N, 3), ``.npz`` with an array ``points`` (or one array only), ``.xyz``
      and ``.txt`` with 3 columns, or 6: then normals or colours are last; ``.glb`` that has points only;
    - meshes: ``.ply`` with faces, ``.obj``, ``.off``, ``.stl``, ``.glb`` and ``.3mf``
      (its unit becomes millimetres). Faces with more corners are divided, several parts become one mesh, and vertices
      in the same place (and of one colour) become one in OBJ, STL and GLB files. Vertices keep their colours;
    - voxels: ``.binvox``, and ``.npy`` bool (X, Y, Z), which is given a longest side of 1 about the origin.

    GLB, OBJ and OFF have y up and are turned. How much a file may hold is in :mod:`recon_toolkit.data.limits`.

    Args:
        path: the file.
        warn: told of what was wrong with the file and could be put right, or is left out.

    Raises:
        DataError: the suffix is unknown, or the file is missing, broken, empty, no file, or too large.
    """
    path = Path(path)
    forms_of(path)
    place = printable(path)
    data = file_bytes(path)
    try:
        return _parsed(path.suffix.lower(), data, (lambda text: warn(f"{place}: {text}")) if warn else _unheard)
    except DataError as error:
        raise DataError(error.message, where=error.where or place, remedy=error.remedy) from None
    except MemoryError:
        raise DataError("needs more memory than there is", where=place, remedy="simplify or divide it") from None
    except Exception as error:  # of a parser that was given anything at all
        raise DataError(
            f"is damaged, cut off, or no {path.suffix.lower()} file", where=place, remedy="export it again"
        ) from error


def file_bytes(path: Path) -> bytes:
    """What is in a file of a shape.

    Raises:
        DataError: it is missing, empty, larger than is read, or a folder, a pipe or a device.
    """
    place = printable(path)
    try:
        size = size_of(path)
        if path.is_dir():
            raise DataError("is a folder, not a file", where=place, remedy="name the files in it")
        if size > MAX_FILE_BYTES:
            raise too_large(f"it has {size / 1e9:.1f} GB")
        data = path.read_bytes()
    except DataError as error:
        raise DataError(error.message, where=error.where or place, remedy=error.remedy) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=place, remedy="check the path") from None
    except MemoryError:
        raise DataError("needs more memory than there is", where=place, remedy="simplify or divide it") from None
    if not data:
        raise DataError("the file is empty (0 bytes)", where=place, remedy="export it again")
    return data


def _unheard(text: str) -> None:
    """A warning that nobody asked for."""


def _parsed(suffix: str, data: bytes, warn: Warn) -> Shape:
    if suffix == ".binvox":
        return voxels_from_binvox(data)
    if suffix == ".3mf":
        return mesh_from_threemf(data)
    if suffix in (".npy", ".npz"):
        return _array(data, suffix)
    if suffix in (".xyz", ".txt"):
        return _columns(data)
    if suffix == ".ply":
        found = read_ply(data)
        if len(found.part.faces):
            return joined_parts([found.part])
        if _has_faces(data):
            raise DataError("the file has no faces with an area", remedy="export it again")
        return Cloud(found.part.vertices, found.normals, found.part.colours)
    if suffix == ".glb":
        return _scene(parts_of_gltf(data, warn))
    mesh = joined_parts([part_of_stl(data, warn)]) if suffix == ".stl" else _mesh(data, suffix)
    return mesh.joined(by_colour=True) if suffix in _DOUBLING else mesh


def _scene(parts: list[Part]) -> Shape:
    if any(len(part.faces) for part in parts):
        mesh = joined_parts(parts)
        return Mesh(_upright(mesh.vertices), mesh.faces, mesh.colours).joined(by_colour=True)
    if not parts:
        raise DataError("the file has no faces", remedy="export it as a mesh")
    colours = [part.colours for part in parts if part.colours is not None]
    points = _upright(np.concatenate([part.vertices for part in parts]))
    return Cloud(points, None, np.concatenate(colours) if len(colours) == len(parts) else None)


def _upright(vertices: Floats) -> Floats:
    """From y up to z up."""
    return vertices[:, (0, 2, 1)] * (1, -1, 1)


def _array(data: bytes, suffix: str) -> Shape:
    if suffix == ".npz":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            name = "points" if "points" in names or len(names) != 1 else names[0]
            if name not in names:
                raise DataError(f"there is no array 'points' but {', '.join(names) or 'none'}", remedy="name it points")
            data = unpacked(archive, f"{name}.npy" if f"{name}.npy" in archive.namelist() else name)
    check_npy(data)
    values = np.load(io.BytesIO(data), allow_pickle=False)
    if suffix == ".npy" and values.dtype == np.bool_ and values.ndim == 3:
        if values.size > MAX_VOXELS:
            raise too_large(f"it has {values.size:,} voxels")
        pitch = 1 / max(1, *values.shape)
        return Voxels(values, -np.array(values.shape) * pitch / 2, pitch)
    if values.dtype.kind not in "fiu" or values.ndim != 2 or values.shape[1] != 3:
        raise DataError(
            f"an array of {values.dtype} {values.shape} is no shape",
            remedy="points are numbers (N, 3), voxels bool (X, Y, Z)",
        )
    count_elements(len(values), "points")
    return Cloud(values)


def _columns(data: bytes) -> Cloud:
    text = data.decode("utf-8", "replace").replace(",", " ").replace(";", " ")
    values = np.loadtxt(io.StringIO(text), dtype=np.float64, ndmin=2, comments=("#", "//"))
    points, rest = values[:, :3], values[:, 3:]
    if points.shape[1] == 3 and rest.shape[1] == 0:
        return Cloud(points)
    if points.shape[1] == 3 and rest.shape[1] == 3:
        if np.allclose(np.linalg.norm(rest, axis=1), 1, atol=0.01):
            return Cloud(points, normals=rest)
        if ((rest == np.round(rest)) & (rest >= 0) & (rest <= 255)).all():
            return Cloud(points, colours=rest.astype(np.uint8))
        raise DataError("columns 4 to 6 are neither unit normals nor colours from 0 to 255", remedy="remove them")
    raise DataError(f"there are {values.shape[1]} columns", remedy="use 3, or 6 with normals or colours")


def _has_faces(data: bytes) -> bool:
    header, _, _ = data.partition(b"end_header")
    words = [line.split() for line in header.splitlines()]
    return any(len(line) == 3 and line[:2] == [b"element", b"face"] and line[2] != b"0" for line in words)


def _mesh(data: bytes, suffix: str) -> Mesh:
    """An OBJ or OFF file, by trimesh."""
    import trimesh

    from recon_toolkit.io.materials import obj_colours_to_one

    if suffix == ".off":
        _check_off(data)
    source: Any = io.BytesIO(data)
    if suffix == ".obj":  # of an encoding that is not known, trimesh would look for a package to tell it
        text = _OBJ_GROUPS.sub("", data.decode("utf-8", "replace").replace("\r\n", "\n"))
        source = io.StringIO(obj_colours_to_one(text))
    loaded: Any = trimesh.load(source, file_type=suffix[1:], force="mesh", process=False, **_OPTIONS.get(suffix, {}))
    faces = getattr(loaded, "faces", None)
    if faces is None or not len(faces):
        raise DataError("the file has no faces", remedy="a cloud of points is read from .ply, .npy, .xyz or .txt")
    vertices = np.asarray(loaded.vertices, dtype=np.float64)
    colours: NDArray[np.uint8] | None = None
    if loaded.visual.kind == "vertex" and len(loaded.visual.vertex_colors) == len(vertices):
        colours = bytes_of_colours(loaded.visual.vertex_colors)
    return Mesh(_upright(vertices) if suffix in Y_UP else vertices, np.asarray(faces), colours)


#: Lines of an OBJ file that divide its faces: with thousands of materials or objects, trimesh takes hours.
_OBJ_GROUPS = re.compile(r"^[ \t]*(?:usemtl|mtllib|o|g|s)\b.*\n?", re.MULTILINE)
#: What trimesh's readers are told: OBJ's vertices in their order, and without looking for other files.
_OPTIONS: dict[str, dict[str, Any]] = {".obj": {"maintain_order": True, "skip_materials": True}}


def _check_off(data: bytes) -> None:
    """Compare the counts in an OFF file's head with its size: a vertex takes six characters at least, a face eight."""
    words = re.sub(rb"#[^\n]*", b"", data[: 1 << 16]).split(maxsplit=4)
    if words and words[0].upper().endswith(b"OFF") and len(words) > 2:
        vertices, faces = int(words[1]), int(words[2])
        if vertices < 0 or faces < 0 or 6 * vertices + 8 * faces > len(data) + 16:
            raise DataError(
                f"the file claims {vertices:,} vertices and {faces:,} faces and is too short for them",
                remedy="the file may be cut off: copy or export it again",
            )


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
