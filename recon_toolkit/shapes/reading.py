"""Shapes from files: clouds, meshes and voxels by their suffix."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_toolkit.errors import DataError
from recon_toolkit.nearest import suggestion
from recon_toolkit.shapes.binvox import voxels_from_binvox
from recon_toolkit.shapes.forms import Cloud, Mesh, Shape, Voxels
from recon_toolkit.shapes.threemf import mesh_from_threemf

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


def read_shape(path: str | Path) -> Shape:
    """Read a shape from a file, by its suffix.

    - clouds: ``.ply`` without faces, ``.npy`` (N, 3), ``.npz`` with an array ``points`` (or one array only), ``.xyz``
      and ``.txt`` with 3 columns, or 6: then normals or colours are last;
    - meshes: ``.ply`` with faces, ``.obj``, ``.off``, ``.stl``, ``.glb`` and ``.3mf``
      (its unit becomes millimetres). Faces with more corners are divided, several parts become one mesh, and vertices
      in the same place become one in OBJ, STL and GLB files;
    - voxels: ``.binvox``, and ``.npy`` bool (X, Y, Z), which is given a longest side of 1 about the origin.

    GLB, OBJ and OFF have y up and are turned.

    Raises:
        DataError: the suffix is unknown, or the file is missing, broken or empty.
    """
    path = Path(path)
    forms_of(path)
    if path.is_dir():
        raise DataError("is a folder, not a file", where=str(path), remedy="name the files in it")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror or error}", where=str(path), remedy="check the path"
        ) from None
    if not data:
        raise DataError("the file is empty (0 bytes)", where=str(path), remedy="export it again")
    try:
        return _parsed(path.suffix.lower(), data)
    except DataError as error:
        raise DataError(error.message, where=error.where or str(path), remedy=error.remedy) from None
    except MemoryError:
        raise
    except Exception as error:  # of a parser that was given anything at all
        raise DataError(
            f"is damaged, cut off, or no {path.suffix.lower()} file", where=str(path), remedy="export it again"
        ) from error


def _parsed(suffix: str, data: bytes) -> Shape:
    if suffix == ".binvox":
        return voxels_from_binvox(data)
    if suffix == ".3mf":
        return mesh_from_threemf(data)
    if suffix in (".npy", ".npz"):
        return _array(data, suffix)
    if suffix in (".xyz", ".txt"):
        return _columns(data)
    if suffix == ".ply" and not _has_faces(data):
        return _ply_cloud(data)
    return _mesh(data, suffix)


def _array(data: bytes, suffix: str) -> Shape:
    values = np.load(io.BytesIO(data), allow_pickle=False)
    if suffix == ".npz":
        names = list(values)
        name = "points" if "points" in names or len(names) != 1 else names[0]
        if name not in names:
            raise DataError(f"there is no array 'points' but {', '.join(names) or 'none'}", remedy="name it points")
        values = values[name]
    if suffix == ".npy" and values.dtype == np.bool_ and values.ndim == 3:
        pitch = 1 / max(1, *values.shape)
        return Voxels(values, -np.array(values.shape) * pitch / 2, pitch)
    if values.dtype.kind not in "fiu" or values.ndim != 2 or values.shape[1] != 3:
        raise DataError(
            f"an array of {values.dtype} {values.shape} is no shape",
            remedy="points are numbers (N, 3), voxels bool (X, Y, Z)",
        )
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


def _ply_cloud(data: bytes) -> Cloud:
    from trimesh.exchange.ply import load_ply
    from trimesh.visual.color import to_rgba

    loaded: dict[str, Any] = load_ply(io.BytesIO(data))
    colours: NDArray[Any] | None = loaded.get("vertex_colors")
    return Cloud(
        loaded["vertices"],
        loaded.get("vertex_normals"),
        None if colours is None else np.asarray(to_rgba(colours))[:, :3].astype(np.uint8),
    )


def _mesh(data: bytes, suffix: str) -> Mesh:
    import trimesh

    loaded: Any = trimesh.load(
        io.BytesIO(data), file_type=suffix[1:], force="mesh", process=False, **_OPTIONS.get(suffix, {})
    )
    faces = getattr(loaded, "faces", None)
    if faces is None or not len(faces):
        raise DataError("the file has no faces", remedy="a cloud of points is read from .ply, .npy, .xyz or .txt")
    vertices = np.asarray(loaded.vertices, dtype=np.float64)
    if suffix in Y_UP:
        vertices = vertices[:, (0, 2, 1)] * (1, -1, 1)
    mesh = Mesh(vertices, np.asarray(faces))
    return _joined(mesh) if suffix in _DOUBLING else mesh


#: What trimesh's readers are told: OBJ's vertices in their order, and without looking for other files.
_OPTIONS: dict[str, dict[str, Any]] = {".obj": {"maintain_order": True, "skip_materials": True}}


def _joined(mesh: Mesh) -> Mesh:
    """Vertices in one place as one; faces that had no area for it are left out."""
    vertices, index = np.unique(mesh.vertices, axis=0, return_inverse=True)
    faces = index.reshape(-1)[mesh.faces]
    kept = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    if not kept.any():
        raise DataError("no face of the mesh has an area", remedy="check where it comes from")
    return Mesh(vertices, faces[kept])
