"""Triangle meshes from files: OBJ with materials and textures, PLY, GLB, glTF, OFF, STL, and ShapeNet's folders."""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import trimesh
from numpy.typing import NDArray
from trimesh.visual.material import SimpleMaterial

from recon_object_views.solids import ColouredMesh, Floats
from recon_toolkit.data.packing import find_files
from recon_toolkit.errors import DataError
from recon_toolkit.io.gltf import parts_of_gltf
from recon_toolkit.io.materials import Nearby, Part, Warn
from recon_toolkit.io.ply import read_ply
from recon_toolkit.io.shape_files import file_bytes
from recon_toolkit.io.solids import part_of_stl

Up = Literal["auto", "y", "z"]
#: The mesh formats that are read, and those whose y axis points upwards by convention.
MESH_SUFFIXES = frozenset({".obj", ".ply", ".glb", ".gltf", ".off", ".stl"})
Y_UP = frozenset({".obj", ".glb", ".gltf", ".off"})
#: What a face has whose file says no colour.
GREY = 0.7
#: Area, in a box of diagonal 1, below which faces are none: rounding alone gives points on a line as much.
_NO_AREA = 1e-10
#: A PLY file that names a texture is left to trimesh, which lays it on.
_TEXTURED_PLY, _PLY_HEAD = re.compile(rb"texturefile", re.IGNORECASE), 4096
_SYNSET = re.compile(r"\d{8}")


@dataclass(frozen=True)
class MeshFile:
    """A mesh to read.

    Attributes:
        name: unlike that of any other mesh found with it; letters, digits, ``.``, ``_`` and ``-``.
        path: the file.
        synset: the category's number in ShapeNet's tree, or None outside it.
    """

    name: str
    path: Path
    synset: str | None = None


def find_meshes(paths: Sequence[Path]) -> list[MeshFile]:
    """Mesh files by their suffix, in folders and below them, and files that are named; each once.

    A mesh is called by its file's stem; in ShapeNet's tree, ``<synset>/<model>/model.obj`` (version 1) or
    ``<synset>/<model>/models/model_normalized.obj`` (version 2), by its model. Where names clash, the folders between
    it and the folder given go before, joined by ``-``; where that is not enough, the suffix or a number follows.
    A file that is named is listed as it is, there or not: reading it says what is wrong.

    Raises:
        DataError: a folder is missing, or holds no mesh.
    """
    found: dict[Path, Path] = {}  # the file, and the folder it was found in
    for path in paths:
        if path.is_file() or (not path.exists() and path.suffix.lower() in MESH_SUFFIXES):
            files, folder = [path], path.parent
        else:
            files, folder = find_files(path, MESH_SUFFIXES), path
            if not files:
                raise DataError("the folder holds no meshes", where=str(path),
                                remedy=f"put files there ({', '.join(sorted(MESH_SUFFIXES))})")  # fmt: skip
        for file in files:
            found.setdefault(file.resolve(), folder)
    files = sorted(found)
    names = _unlike([_candidates(file, found[file].resolve()) for file in files])
    return [MeshFile(name, file, (_shapenet(file) or (None,))[0]) for name, file in zip(names, files, strict=True)]


def read_mesh(
    path: str | Path, *, up: Up = "auto", turn: float = 0.0, warn: Callable[[str], None] | None = None
) -> ColouredMesh:
    """A mesh file, turned upright and normalised: bounding box about the origin, its diagonal 1, z up.

    A face's colour is that of its material's texture at the face's centre, else its material's diffuse colour, else the
    mean of its corners' colours, else grey 0.7. Holes, loose faces, faces that meet at an edge by threes and vertices
    that no face has do not matter. STL, and OFF as it is read here, have no colours.

    Args:
        path: an OBJ (with its MTL and textures), PLY, GLB, glTF, OFF or STL file. Its materials and textures are sought
            in its own folder and in the one above, where ShapeNetCore v2 has them.
        up: the axis that points upwards in the file; ``auto`` takes y for OBJ, GLB, glTF and OFF, as ShapeNet has
            it, and z for PLY and STL. From y up, (x, y, z) becomes (x, −z, y).
        turn: angle about the vertical, in degrees, anticlockwise seen from above.
        warn: told of materials and textures that are not there; their faces are drawn without.

    Raises:
        DataError: the file is missing or damaged, holds no face or none with an area, or has coordinates that are
            not finite or all alike.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise DataError(f"'{suffix}' is no mesh format that is read here", where=str(path),
                        remedy=f"convert it to one of {', '.join(sorted(MESH_SUFFIXES))}")  # fmt: skip
    if not path.is_file():
        problem = "is a folder, not a file" if path.exists() else "no such file"
        raise DataError(problem, where=str(path), remedy="check the path")
    nearby = Nearby(path)
    notes: list[str] = []
    parts = [part for part in _parts(path, suffix, nearby, notes.append) if len(part.faces)]
    if warn is not None:
        for note in dict.fromkeys(notes):
            warn(f"{path}: {note}")
    if nearby.missing and warn is not None:
        warn(f"{path}: {', '.join(dict.fromkeys(nearby.missing))} not found; drawn without")
    if not parts:
        raise DataError("holds no faces", where=str(path), remedy="export it as a mesh, not as points or curves")
    made = _checked(ColouredMesh.joined(parts), path)
    upwards = (suffix in Y_UP) if up == "auto" else up == "y"
    tilt = np.array(((1.0, 0, 0), (0, 0, -1), (0, 1, 0))) if upwards else np.eye(3)
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    return made.moved(np.array(((c, -s, 0), (s, c, 0), (0, 0, 1))) @ tilt).normalised()


def _checked(made: ColouredMesh, path: Path) -> ColouredMesh:
    """The mesh with the vertices that its faces have, within [−1, 1]³; see :func:`read_mesh` for errors."""
    if made.faces.min() < 0 or made.faces.max() >= len(made.vertices):
        raise DataError("a face has a corner that is not there", where=str(path), remedy="export it again")
    used, faces = np.unique(made.faces, return_inverse=True)
    vertices = made.vertices[used]
    broken = int((~np.isfinite(vertices)).any(1).sum())
    if broken:
        raise DataError(f"{broken} vertices have coordinates that are not finite", where=str(path),
                        remedy="fix or remove them in a mesh editor")  # fmt: skip
    low, high = vertices.min(0), vertices.max(0)
    half = float((high / 2 - low / 2).max())  # halved first: the largest numbers have no sum
    if not half > 0:
        raise DataError("all its vertices lie in one place", where=str(path), remedy="export it again")
    small = (vertices - (low / 2 + high / 2)) / half
    corners = np.asarray(faces, np.int32).reshape(made.faces.shape)
    a, b, c = (small[corners[:, corner]] for corner in range(3))
    diagonal = float(np.linalg.norm(small.max(0) - small.min(0)))
    if not np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2 > _NO_AREA * diagonal**2:
        raise DataError("none of its faces has an area", where=str(path), remedy="export it again, as triangles")
    return ColouredMesh(small, corners, made.colours)


def _parts(path: Path, suffix: str, nearby: Nearby, warn: Warn) -> Iterator[ColouredMesh]:
    """The meshes of a file's scene, each where the scene has it."""
    data = file_bytes(path) if path.stat().st_size else b""
    try:
        if suffix in (".glb", ".gltf"):
            yield from map(_coloured, parts_of_gltf(data, warn, nearby.get, textures=True))
        elif suffix == ".stl":
            yield _coloured(part_of_stl(data, warn))
        elif suffix == ".ply" and not _TEXTURED_PLY.search(data[:_PLY_HEAD]):
            yield _coloured(read_ply(data).part)
        else:
            yield from _of_trimesh(data, suffix, nearby)
    except DataError as error:
        raise DataError(f"cannot be read as {suffix[1:].upper()}: {error.message}", where=str(path),
                        remedy=error.remedy) from None  # fmt: skip
    except MemoryError:
        raise DataError("needs more memory than there is", where=str(path), remedy="simplify it") from None
    except Exception as error:  # a damaged file takes its reader to any of them
        # A reader that takes bytes for text of an unknown encoding asks for a package to tell which.
        reason = "" if isinstance(error, ImportError) else f": {str(error) or type(error).__name__}"
        raise DataError(f"cannot be read as {suffix[1:].upper()}{reason}", where=str(path),
                        remedy="check the file, or export it again") from error  # fmt: skip


def _of_trimesh(data: bytes, suffix: str, nearby: Nearby) -> Iterator[ColouredMesh]:
    source: Any = io.StringIO(nearby.obj_text(data)) if suffix == ".obj" else io.BytesIO(data)
    scene = trimesh.load_scene(source, file_type=suffix[1:], resolver=nearby, process=False)
    for node in scene.graph.nodes_geometry:
        matrix, name = scene.graph[node]
        geometry = scene.geometry[name]
        if isinstance(geometry, trimesh.Trimesh) and len(geometry.faces):
            faces = np.asarray(geometry.faces, dtype=np.int32)
            part = ColouredMesh(np.asarray(geometry.vertices, np.float64), faces, _colours(geometry))
            plain = np.array_equal(matrix, np.eye(4))
            yield part if plain else part.moved(matrix[:3, :3], matrix[:3, 3])


def _coloured(part: Part) -> ColouredMesh:
    """A part with a colour for each face: its texture's, else that of its corners, itself, or its material."""
    factor = None if part.factor is None else _srgb(part.factor)
    if part.image is not None and part.uv is not None and len(part.faces):
        colours = _texture_colours(part.image, part.uv, part.faces)
        colours = colours if factor is None else colours * factor  # as glTF has it
    elif part.colours is not None:
        colours = part.colours[part.faces].mean(1) / 255
    elif part.face_colours is not None:
        colours = part.face_colours / 255
    else:
        colours = np.tile(np.full(3, GREY) if factor is None else factor, (len(part.faces), 1))
    return ColouredMesh(part.vertices, part.faces.astype(np.int32), colours)


def _colours(geometry: Any) -> Floats:
    """Colours (F, 3) of a mesh's faces."""
    visual, count = geometry.visual, len(geometry.faces)
    if visual.kind == "texture":
        materials = getattr(visual.material, "materials", [visual.material])
        chosen = getattr(visual, "face_materials", None)
        each = np.zeros(count, np.int64) if chosen is None else np.asarray(chosen)
        colours = np.full((count, 3), GREY)
        for number, material in enumerate(materials):
            mine = each == number
            colours[mine] = _material_colours(material, visual.uv, geometry.faces[mine])
        return colours
    if visual.kind == "vertex" and len(visual.vertex_colors) == len(geometry.vertices):
        return np.asarray(visual.vertex_colors[:, :3][geometry.faces].mean(1) / 255, dtype=np.float64)
    if visual.kind == "face" and len(visual.face_colors) == count:
        return np.asarray(visual.face_colors[:, :3] / 255, dtype=np.float64)
    return np.full((count, 3), GREY)


def _material_colours(material: Any, uv: Any, faces: NDArray[np.integer]) -> Floats:
    factor = _diffuse(material)
    image = getattr(material, "image", None)
    if isinstance(material, SimpleMaterial) and getattr(image, "format", None) is None:
        image = None  # of no file: the reader puts a grey one where a material is missing
    if image is None or uv is None or not len(faces):
        return np.tile(np.full(3, GREY) if factor is None else factor, (len(faces), 1))
    return _texture_colours(image, uv, faces)  # MTL has both for the same thing, and often 0 for the colour


def _texture_colours(image: Any, uv: Any, faces: NDArray[np.integer]) -> Floats:
    """A texture's colours (F, 3) at the centres of faces."""
    texture = np.asarray(image.convert("RGB"))
    centre = np.nan_to_num(np.asarray(uv, dtype=np.float64)[faces].mean(1), posinf=0.0, neginf=0.0)
    u, v = (centre - np.floor(centre)).T  # textures repeat; v points upwards
    height, width = texture.shape[:2]
    column = np.minimum((u * width).astype(np.int64), width - 1)
    row = np.minimum(((1 - v) * height).astype(np.int64), height - 1)
    return np.asarray(texture[row, column] / 255)


def _srgb(linear: Floats) -> Floats:
    """glTF's factors are linear; pictures, and the colours of all other formats, are sRGB (IEC 61966-2-1)."""
    bent = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.asarray(np.clip(np.where(linear > 0.0031308, bent, 12.92 * linear), 0, 1))


def _diffuse(material: Any) -> Floats | None:
    """A material's own colour, in [0, 1]; None where it has none."""
    kd = np.asarray(getattr(material, "kwargs", {}).get("kd", ()), dtype=np.float64).ravel()
    if kd.size not in (1, 3) or not np.isfinite(kd).all():
        return None
    return np.asarray(np.clip(np.broadcast_to(kd, 3), 0, 1))


def _shapenet(file: Path) -> tuple[str, str] | None:
    """Synset and model of a file in ShapeNet's tree."""
    *_, top, upper, folder, name = ("", "", "", *file.parts)
    if name == "model_normalized.obj" and folder == "models" and _SYNSET.fullmatch(top):
        return top, upper
    return (upper, folder) if name == "model.obj" and _SYNSET.fullmatch(upper) else None


def _candidates(file: Path, folder: Path) -> list[str]:
    """Names for a mesh, from the plainest on."""
    between = file.parent.relative_to(folder).parts if file.is_relative_to(folder) else ()
    longer = "-".join((*between, file.stem)) if between else f"{file.parent.name}-{file.stem}"
    model = _shapenet(file)
    names = (model[1] if model else file.stem, longer, f"{longer}-{file.suffix[1:]}")
    return [re.sub(r"[^\w.-]+", "-", name).strip("-.") or "mesh" for name in names]


def _unlike(candidates: list[list[str]]) -> list[str]:
    """For each the first of its names that no other has; a number is added where they run out."""
    level = [0] * len(candidates)

    def name(at: int) -> str:
        names = candidates[at]
        return names[level[at]] if level[at] < len(names) else f"{names[-1]}-{at}"

    while True:
        chosen = [name(at) for at in range(len(candidates))]
        often = Counter(chosen)
        again = [at for at, known in enumerate(chosen) if often[known] > 1 and level[at] < len(candidates[at])]
        if not again:
            return chosen
        for at in again:
            level[at] += 1
