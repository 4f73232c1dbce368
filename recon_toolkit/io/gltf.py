"""glTF 2.0 and GLB: every surface where the nodes of the scene put it, with colours and texture."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from recon_toolkit.data.limits import MAX_PARTS, Deadline, count_elements, too_large
from recon_toolkit.errors import DataError
from recon_toolkit.io.materials import Part, Warn, bytes_of_colours, fans
from recon_toolkit.io.ply import strips
from recon_toolkit.shapes.forms import Floats

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


_POINTS, _TRIANGLES, _STRIP, _FAN = 0, 4, 5, 6
_DRACO = "KHR_draco_mesh_compression"
_INSTANCING = "EXT_mesh_gpu_instancing"
#: Extensions that a file may require and that change neither where a surface is nor which (or are read).
_HARMLESS = (
    "KHR_mesh_quantization",
    "KHR_materials_",
    "KHR_texture_",
    "EXT_texture_",
    "KHR_lights_",
    "KHR_xmp",
    "MSFT_",
)
_NAMED = ("EXT_meshopt_compression", "KHR_meshopt_compression", _DRACO, _INSTANCING)
_IDENTITY = np.eye(4)
#: Pixels of a texture; larger ones are left out before they are decoded.
_MAX_PIXELS = 80_000_000


def parts_of_gltf(data: bytes, warn: Warn, fetch: Fetch | None = None, *, textures: bool = False) -> list[Part]:
    """All surfaces (and, as parts without faces, points) of a file's scene, in its own axes, y up.

    Skins and morphs are taken as they rest. Lines are left out, which ``warn`` is told.

    Args:
        data: the file, ``.glb`` or ``.gltf``.
        warn: told of what is left out.
        fetch: gives the bytes of files that are named inside; without it there are none.
        textures: read materials and textures as well.

    Raises:
        DataError: the file is damaged or compressed, needs an extension that is not read, holds more than is read, or
            its nodes hold one another.
    """
    file = GltfData.of(data, fetch)
    for name in file.tree.get("extensionsRequired", []):
        if name not in _NAMED and not str(name).startswith(_HARMLESS):
            raise DataError(f"it needs the extension {name}, which is not read", remedy="export it without")
    try:
        return _parts(file, warn, textures)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"this glTF file cannot be read: {type(error).__name__}: {error}", remedy="export it again"
        ) from error


def _parts(file: GltfData, warn: Warn, textures: bool) -> list[Part]:
    meshes: dict[int, list[Part]] = {}
    images: dict[int, Any] | None = {} if textures else None
    lines = vertices = faces = read = 0
    placed: list[Part] = []
    deadline = Deadline()
    for index, matrix in _nodes(file, deadline):
        if index not in meshes:
            made = []
            for primitive in file.entry("meshes", index)["primitives"]:
                part = _part(file, primitive, images, warn)
                if part is None:
                    lines += 1
                    continue
                # Every primitive may name the same bytes again, so that a small file could hold without end.
                read = count_elements(read + len(part.vertices) + len(part.faces), "vertices and faces")
                made.append(part)
                deadline.check()
            meshes[index] = made
        for part in meshes[index]:
            vertices = count_elements(vertices + len(part.vertices), "vertices")
            faces = count_elements(faces + len(part.faces), "faces")
            placed.append(part if matrix is _IDENTITY else part.placed(matrix))
            if len(placed) > MAX_PARTS:
                raise too_large(f"it has more than {MAX_PARTS:,} parts")
    if lines and not placed:
        raise DataError("it holds lines and no surface", remedy="export it as a mesh of triangles")
    if lines:
        warn(f"{lines} sets of lines in it are left out")
    return placed


def _nodes(file: GltfData, deadline: Deadline) -> Iterator[tuple[int, Floats]]:
    """The meshes of the scene with the matrices (4, 4) that place them, depth first."""
    nodes = file.tree.get("nodes", [])
    scenes = file.tree.get("scenes", [])
    if scenes:
        roots = file.entry("scenes", file.tree.get("scene", 0)).get("nodes", [])
    else:
        below = {child for node in nodes for child in node.get("children", [])}
        roots = [index for index in range(len(nodes)) if index not in below] if nodes else []
        if nodes and not roots:
            raise DataError("nodes of the file hold one another", remedy="export it again")
    if not nodes and not scenes:  # as some programs write a single mesh
        yield from ((index, _IDENTITY) for index in range(len(file.tree.get("meshes", []))))
        return
    seen: set[int] = set()
    waiting = [(index, _IDENTITY) for index in reversed(roots)]
    while waiting:
        index, above = waiting.pop()
        node = file.entry("nodes", index)
        if index in seen:  # nodes are a tree: otherwise a few could stand for any number, or for themselves
            raise DataError(f"node {index} of the file has several parents, or holds itself", remedy="export it again")
        seen.add(index)
        if len(seen) % 1000 == 0:
            deadline.check()
        matrix = _matrix(node)
        matrix = above if matrix is None else matrix if above is _IDENTITY else above @ matrix
        if _INSTANCING in node.get("extensions", {}):
            raise DataError(
                f"it repeats its parts by {_INSTANCING}, which is not read", remedy="export it without instancing"
            )
        if "mesh" in node:
            yield node["mesh"], matrix
        waiting += [(child, matrix) for child in reversed(node.get("children", []))]


def _matrix(node: dict[str, Any]) -> Floats | None:
    """A node's own matrix, None where it has none."""
    if "matrix" in node:
        return np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T  # columns come first
    if not node.keys() & {"translation", "rotation", "scale"}:
        return None
    matrix = _IDENTITY.copy()
    if "rotation" in node:
        matrix[:3, :3] = _turn(*(float(number) for number in node["rotation"]))
    if "scale" in node:
        matrix[:3, :3] *= np.array(node["scale"], dtype=np.float64).reshape(3)
    if "translation" in node:
        matrix[:3, 3] = np.array(node["translation"], dtype=np.float64).reshape(3)
    return matrix


def _turn(x: float, y: float, z: float, w: float) -> tuple[tuple[float, float, float], ...]:
    """A quaternion, of any length, as a matrix."""
    length = x * x + y * y + z * z + w * w
    s = 2 / length if length > 0 else 0.0
    return (
        (1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)),
        (s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)),
        (s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)),
    )


def _part(file: GltfData, primitive: dict[str, Any], images: dict[int, Any] | None, warn: Warn) -> Part | None:
    """A primitive; None where it is lines."""
    attributes, mode = primitive["attributes"], primitive.get("mode", _TRIANGLES)
    if mode not in (_POINTS, _TRIANGLES, _STRIP, _FAN):
        if mode in (1, 2, 3):
            return None
        raise DataError(f"a part of the file has mode {mode}, which does not exist", remedy="export it again")
    position = attributes["POSITION"]
    if _DRACO in primitive.get("extensions", {}) and "bufferView" not in file.entry("accessors", position):
        raise compressed("Draco")
    vertices = _of_width(file.array(position), (3,)).astype(np.float64)
    colours = None
    if "COLOR_0" in attributes:
        colours = _colours(_of_width(file.array(attributes["COLOR_0"]), (3, 4)), len(vertices))
    if mode == _POINTS:
        return Part(vertices, np.zeros((0, 3), np.int64), colours)
    if "indices" in primitive:
        corners = _of_width(file.array(primitive["indices"]), (1,))[:, 0]
        if corners.dtype.kind not in "iu":
            raise DataError("corners of faces in the file are no integers", remedy="export it again")
        corners = corners.astype(np.int64)
    else:
        corners = np.arange(len(vertices))
    if len(corners) and (int(corners.max()) >= len(vertices) or int(corners.min()) < 0):
        raise DataError(
            f"a face names vertex {int(corners.max())}, and there are {len(vertices)}", remedy="export it again"
        )
    if mode == _TRIANGLES:
        faces = corners[: len(corners) // 3 * 3].reshape(-1, 3)
    elif mode == _STRIP:
        faces = strips(corners)[0]
    else:
        faces = fans(np.array([len(corners)]), corners)[0]
    if images is None:
        return Part(vertices, faces, colours)
    uv, factor, image = _material(file, primitive, images, len(vertices), warn)
    return Part(vertices, faces, colours, uv=uv, factor=factor, image=image)


def _of_width(values: NDArray[Any], widths: tuple[int, ...]) -> NDArray[Any]:
    if values.shape[1] not in widths:
        raise DataError(f"an array of the file has {values.shape[1]} columns", remedy="export it again")
    return values


def _colours(values: NDArray[Any], count: int) -> NDArray[np.uint8]:
    """Colours (V, 3): linear by the format, but sRGB here, as in MeshLab, Open3D and trimesh that write such files."""
    if len(values) != count:
        raise DataError(f"the file has {len(values)} colours for {count} vertices", remedy="export it again")
    if values.dtype.kind in "iu":  # without "normalized", which the format asks for
        values = values / np.iinfo(values.dtype).max
    return bytes_of_colours(np.clip(np.asarray(values, dtype=np.float64), 0, 1))


def _material(
    file: GltfData, primitive: dict[str, Any], images: dict[int, Any], count: int, warn: Warn
) -> tuple[Floats | None, Floats | None, Any]:
    """Texture coordinates with v upwards, linear colour, and texture; None for what there is not."""
    if "material" not in primitive:
        return None, None, None
    material = file.entry("materials", primitive["material"])
    glossy = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness", {})
    surface = material.get("pbrMetallicRoughness", {})
    factor = surface.get("baseColorFactor", glossy.get("diffuseFactor"))
    used = surface.get("baseColorTexture", glossy.get("diffuseTexture"))
    colour = None if factor is None else np.array(factor, dtype=np.float64)[:3]
    if used is None:
        return None, colour, None
    place = primitive["attributes"].get(f"TEXCOORD_{used.get('texCoord', 0)}")
    if place is None:
        return None, colour, None
    uv = _of_width(file.array(place), (2,)).astype(np.float64) * (1, -1) + (0, 1)
    texture = file.entry("textures", used["index"])
    source = texture.get("source", texture.get("extensions", {}).get("EXT_texture_webp", {}).get("source"))
    if source is None or len(uv) != count:
        return None, colour, None
    if source not in images:
        images[source] = _image(file, source, warn)
    return uv, colour, images[source]


def _image(file: GltfData, source: int, warn: Warn) -> Any:
    from PIL import Image

    entry = file.entry("images", source)
    try:
        data = file.view(entry["bufferView"]) if "bufferView" in entry else file.fetched(str(entry["uri"]))
        image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP"))
        if image.width * image.height > _MAX_PIXELS:
            raise ValueError("too large")
        image.load()
    except (DataError, OSError, ValueError, KeyError, SyntaxError, Image.DecompressionBombError) as error:
        warn(f"its texture {entry.get('uri', source)!s:.80} cannot be read ({error}); it is drawn without")
        return None
    return image
