"""What one surface of a scene brings along: its parts, materials and textures, however they are written."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from trimesh.resolvers import Resolver

from recon_toolkit.data.limits import MAX_UNPACKED_BYTES, too_large
from recon_toolkit.errors import DataError
from recon_toolkit.files import size_of
from recon_toolkit.shapes.forms import Faces, Floats, Mesh

#: Told of what was wrong with a file and could be put right.
Warn: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Part:
    """One surface, or with no faces some points.

    Attributes:
        vertices: (V, 3).
        faces: (F, 3), each corner in [0, V); none in a part that is points.
        colours: (V, 3) uint8 sRGB, or None.
        face_colours: (F, 3) uint8 sRGB, or None.
        uv: (V, 2) texture coordinates, v upwards, or None.
        factor: (3,) linear colour of the material, or None.
        image: the material's texture, a PIL image, or None.
    """

    vertices: Floats
    faces: Faces
    colours: NDArray[np.uint8] | None = None
    face_colours: NDArray[np.uint8] | None = None
    uv: Floats | None = None
    factor: Floats | None = None
    image: Any = None

    def placed(self, matrix: Floats) -> Part:
        """The part where a matrix (4, 4) for column vectors puts it; a mirrored one still faces outwards."""
        (a, b, c), (d, e, f), (g, h, i) = matrix[:3, :3].tolist()
        mirrored = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g) < 0
        faces = self.faces[:, ::-1] if mirrored else self.faces
        return replace(self, vertices=self.vertices @ matrix[:3, :3].T + matrix[:3, 3], faces=faces)


def joined_parts(parts: Sequence[Part]) -> Mesh:
    """Several parts as one mesh. Where some have colours, the others are white, as glTF and most programs have it.

    Raises:
        DataError: there are no faces, or a coordinate is not finite.
    """
    parts = [part for part in parts if len(part.faces)]
    if not parts:
        raise DataError("the file has no faces", remedy="a cloud of points is read from .ply, .npy, .xyz or .txt")
    starts = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    coloured = any(part.colours is not None for part in parts)
    return Mesh(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)]),
        np.concatenate([_colours(part) for part in parts]) if coloured else None,
    )


def _colours(part: Part) -> NDArray[np.uint8]:
    return np.full((len(part.vertices), 3), 255, dtype=np.uint8) if part.colours is None else part.colours


def bytes_of_colours(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Colours (N, 3 or more) of any numeric type as uint8 (N, 3): integers are 0 to 255, or to their own largest."""
    values = np.asarray(values)[:, :3]
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if values.dtype == np.uint16 and values.max(initial=0) > 255:
        values = values / 65535
    elif values.dtype.kind in "iu" or values.max(initial=0) > 1:  # some programs write 0 to 255 as floats
        values = values / 255
    return np.rint(np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8)


def fans(counts: NDArray[np.int64], corners: NDArray[np.int64]) -> tuple[Faces, NDArray[np.int64]]:
    """Polygons as triangles, each a fan around its first corner.

    Args:
        counts: (P,) corners of each polygon; those with less than 3 give no triangle.
        corners: (sum of counts,), one polygon after the other.

    Returns:
        Faces (F, 3), and the polygon (F,) that each comes from.
    """
    starts = np.concatenate(([0], np.cumsum(counts)[:-1])) if len(counts) else np.zeros(0, np.int64)
    triangles = np.maximum(counts - 2, 0)
    source = np.repeat(np.arange(len(counts)), triangles)
    step = np.arange(len(source)) - np.repeat(np.cumsum(triangles) - triangles, triangles)
    first = starts[source]
    faces = np.stack((corners[first], corners[first + step + 1], corners[first + step + 2]), axis=1)
    return faces.astype(np.int64).reshape(-1, 3), source


#: Options of a texture in MTL before its file's name, and how many words follow each at most; the numbers of ``-s``,
#: ``-o`` and ``-t`` are one to three (Wavefront's specification of the format, section "Options for texture map
#: statements").
_OPTIONS = {
    **dict.fromkeys(("-blendu", "-blendv", "-cc", "-clamp", "-bm", "-boost", "-texres", "-imfchan", "-type"), 1),
    **{"-mm": 2, "-s": 3, "-o": 3, "-t": 3},
}
#: A name that no file has: all of a mesh's materials in one.
_ALL = "recon:materials"
_TEXTURE = "recon:texture:"
_MAP = re.compile(r"^(\s*map_Kd)\s+(.*)$", re.IGNORECASE)


_COLOURED = re.compile(r"^[ \t]*v((?:[ \t]+[^\s#]+){6})[ \t]*(?:#.*)?$", re.MULTILINE)


def obj_colours_to_one(text: str) -> str:
    """An OBJ's text with the colours of its vertices from 0 to 1, where they are from 0 to 255, which trimesh clips."""
    rows = _COLOURED.findall(text)
    try:
        values = np.array(" ".join(rows).split(), dtype=np.float64).reshape(-1, 6)
    except ValueError:
        return text  # which its reader will name
    if not values[:, 3:].max(initial=0) > 1:
        return text
    values[:, 3:] /= 255
    # 17 digits give every float back.
    lines = iter(("v %.17g %.17g %.17g %.6f %.6f %.6f\n" * len(values) % tuple(values.ravel().tolist())).splitlines())
    return _COLOURED.sub(lambda _: next(lines), text)


def texture_name(text: str) -> str:
    """The file's name in what follows ``map_Kd``: after the options, and with the spaces that it may have."""
    rest = text.strip()
    while match := re.match(r"(-\w+)\s+", rest):
        most = _OPTIONS.get(match[1].lower())
        if most is None:
            break
        rest = rest[match.end() :]
        for taken in range(most):
            word, _, after = rest.partition(" ")
            # Of up to three numbers, the first that is none begins the name; so does what is last.
            if not after.strip() or (most > 1 and taken > 0 and not _is_number(word)):
                break
            rest = after.lstrip()
    return rest.strip().strip('"')


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


class Nearby(Resolver):
    """Finds a mesh's materials and textures in its folder or the one above, and nowhere else.

    A name may be written with backslashes, with a path of the machine that it was made on, or in other capitals than
    the file has.

    Attributes:
        missing: the names that were not found.
    """

    def __init__(self, path: Path) -> None:
        self.folder = path.resolve().parent
        self.missing: list[str] = []
        self._materials: list[str] = []
        self._textures: list[str] = []

    def obj_text(self, data: bytes) -> str:
        """An OBJ's text, its materials' files (one or several, in one line or more) put as one that :meth:`get` knows.

        In comments any encoding may turn up, so that what is no UTF-8 becomes a mark.
        """
        lines = re.sub(r"\\[ \t]*\r?\n", " ", data.decode("utf-8", "replace")).splitlines()
        kept = []
        for line in lines:
            words = line.split(maxsplit=1)
            if words and words[0].lower() == "mtllib":
                self._materials += self._names(words[1].strip()) if len(words) > 1 else []
            else:
                kept.append(line)
        head = [f"mtllib {_ALL}"] if self._materials else []
        return obj_colours_to_one("\n".join([*head, *kept, ""]))

    def _names(self, text: str) -> list[str]:
        """The files of an ``mtllib`` line: one whose name has spaces, or several."""
        if '"' in text:
            return [a or b for a, b in re.findall(r'"([^"]+)"|(\S+)', text)]
        if self.file(text) is not None:
            return [text]
        several = re.findall(r".+?\.mtl(?=\s|$)", text, re.IGNORECASE) or [text]
        if len(several) == 1:
            return [text]
        return [name.strip() for name in several]

    def get(self, key: str) -> bytes:
        """What a name stands for; FileNotFoundError where there is no such file."""
        if key == _ALL:
            return self._all_materials()
        if key.startswith(_TEXTURE):
            key = self._textures[int(key.removeprefix(_TEXTURE))]
        file = self.file(key)
        if file is None:
            self.missing.append(key.strip().strip('"').replace("\\", "/"))
            raise FileNotFoundError(key)
        return _content(file)

    def _all_materials(self) -> bytes:
        """All MTL files, one after the other, with names of textures that have no spaces or options."""
        text = []
        for name in self._materials:
            try:
                data = self.get(name)
            except FileNotFoundError:
                continue
            for line in re.sub(r"\\[ \t]*\r?\n", " ", data.decode("utf-8", "replace")).splitlines():
                if match := _MAP.match(line):
                    line = f"{match[1]} {_TEXTURE}{len(self._textures)}"
                    self._textures.append(texture_name(match[2]))
                text.append(line)
        if not text:
            raise FileNotFoundError(_ALL)
        return "\n".join([*text, ""]).encode()

    def file(self, name: str) -> Path | None:
        """The file of a name, or None: with its folders, then without; as it is written, then in any capitals."""
        name = name.strip().strip('"').replace("\\", "/")  # Windows writes so
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if not parts or "\0" in name:
            return None
        for place in (parts, parts[-1:]):
            found = self._followed(place)
            if found is not None and found.is_relative_to(self.folder.parent) and found.is_file():
                return found
        return None

    def _followed(self, parts: list[str]) -> Path | None:
        at = self.folder
        for part in parts:
            following = at / part
            if part != ".." and not os.path.lexists(following):
                try:
                    alike = sorted(name for name in os.listdir(at) if name.casefold() == part.casefold())
                except OSError:
                    return None
                if not alike:
                    return None
                following = at / alike[0]
            at = following
        return Path(os.path.realpath(at))

    def keys(self) -> list[str]:
        """Names of the files beside the mesh."""
        return [file.name for file in self.folder.iterdir()]

    def namespaced(self, namespace: str) -> Nearby:
        """The same for a mesh in a folder of this one."""
        return Nearby(self.folder / namespace / "mesh")

    def write(self, name: str, data: object) -> None:
        """Refuse: PermissionError."""
        raise PermissionError(f"{name}: a mesh's folder is not written to")


def _content(file: Path) -> bytes:
    if size_of(file) > MAX_UNPACKED_BYTES:
        raise too_large(f"'{file.name}' has {file.stat().st_size / 1e9:.1f} GB")
    return file.read_bytes()
