"""glTF 2.0 and GLB: every surface where the nodes of the scene put it, with colours and texture.

Read here, as trimesh takes normalised integers for lengths, leaves out strips and sparse arrays, and takes a time that
grows with the square of the number of nodes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_toolkit.errors import DataError
from recon_toolkit.shapes.forms import Floats
from recon_toolkit.shapes.gltf_data import Fetch, GltfData, compressed
from recon_toolkit.shapes.limits import MAX_PARTS, Deadline, count_elements, too_large
from recon_toolkit.shapes.parts import Part, Warn, bytes_of_colours, fans
from recon_toolkit.shapes.ply import strips

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
