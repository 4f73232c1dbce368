"""A textured mesh as a file: GLB, OBJ, PLY or STL.

All have x right, y up and z towards the viewer, so a face looks along +z. glTF says so itself, and three.js' GLTFLoader
and MeshLab take it as it is; Blender turns GLB and OBJ upright on import (y up becomes its z up), and takes PLY and STL
as they are unless its import dialogue is told that y is up. Slicers take z as up: the object lies on its back.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recon_toolkit.errors import DataError, suggestion
from recon_toolkit.files import write_text, writing
from recon_toolkit.io.maps import to_bytes, write_picture
from recon_toolkit.shapes.mesh import TexturedMesh, scaled

#: Suffixes of the files that can be written.
MESH_SUFFIXES = (".glb", ".obj", ".ply", ".stl")
#: Quality of textures in GLB files: at 95 without subsampling of colour no pixel is off by more than some levels.
JPEG_QUALITY = 95


def write_mesh(
    path: str | Path,
    mesh: TexturedMesh,
    texture: Tensor | None,
    *,
    height_mm: float | None = None,
    picture: str = "jpeg",
) -> list[Path]:
    """Write a mesh as the file that the suffix of ``path`` names.

    - ``.glb``: binary glTF 2.0, the texture inside; matt, visible from both sides;
    - ``.obj``: with ``.mtl`` and ``.png`` beside it;
    - ``.ply``: binary, with the texture's colours at the vertices;
    - ``.stl``: binary, the shape only.

    Args:
        path: the file. Its folder is made where it is missing.
        mesh: the mesh.
        texture: (3, H, W) in [0, 1], made with the corners of the depth map at its corners (``align_corners=True``).
            None leaves the surface grey.
        height_mm: the object's height in millimetres, from its lowest to its highest point. The numbers written are
            metres in GLB, as glTF wants them, and millimetres elsewhere. By default half the picture's width is 1.
        picture: how a GLB file holds its texture: ``jpeg`` is small and fast to write, ``png`` exact.

    Returns:
        The files written.

    Raises:
        DataError: the suffix is another, or the disk is full or cannot be written.
        ValueError: ``picture`` is another, or ``height_mm`` is not above 0.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise DataError(
            f"meshes are not written as '{path.suffix or path.name}'",
            where=str(path),
            remedy=suggestion(suffix, MESH_SUFFIXES),
        )
    if height_mm is not None:
        mesh = scaled(mesh, height_mm / 1000 if suffix == ".glb" else height_mm)
    if suffix == ".obj":
        return write_obj(path, mesh, texture)
    if suffix == ".glb":
        data = glb_bytes(mesh, texture, picture=picture)
    elif suffix == ".ply":
        data = _ply_bytes(mesh, texture)
    else:
        data = _stl_bytes(mesh)
    with writing(path) as file:
        file.write(data)
    return [path]


def glb_bytes(mesh: TexturedMesh, texture: Tensor | None, *, picture: str = "jpeg") -> bytes:
    """A mesh as binary glTF 2.0, what :func:`write_mesh` writes as ``.glb``; also for a page that holds it.

    Made here, as on 127 × 127 quads with a texture of 256 pixels this takes 2 ms of a core, and trimesh 10 ms (30 ms
    as PNG), whose indices also take twice the bytes, and whose JPEGs are of quality 75.

    Args:
        mesh, texture, picture: see :func:`write_mesh`.

    Raises:
        ValueError: ``picture`` is something else.
    """
    if picture not in ("jpeg", "png"):
        raise ValueError(f"a picture is jpeg or png, not {picture!r}")
    positions = mesh.vertices.astype("<f4")
    small = len(positions) < 65535  # 65535 itself means "no vertex"
    parts: list[tuple[str, NDArray[Any], int, str, int]] = [
        ("POSITION", positions, 5126, "VEC3", 34962),
        ("NORMAL", mesh.normals.astype("<f4"), 5126, "VEC3", 34962),
    ]
    material: dict[str, Any] = {
        "name": "surface",
        "doubleSided": True,
        "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
    }
    if texture is not None:
        places = mesh.texture_places(*texture.shape[-2:])
        places[:, 1] = 1 - places[:, 1]  # glTF counts from the top
        parts.append(("TEXCOORD_0", places.astype("<f4"), 5126, "VEC2", 34962))
        material["pbrMetallicRoughness"]["baseColorTexture"] = {"index": 0}
    else:
        material["pbrMetallicRoughness"]["baseColorFactor"] = [0.6, 0.6, 0.6, 1.0]
    indices = mesh.faces.astype("<u2" if small else "<u4").reshape(-1)
    parts.append(("", indices, 5123 if small else 5125, "SCALAR", 34963))

    chunks: list[bytes] = []
    views: list[dict[str, int]] = []
    accessors: list[dict[str, Any]] = []
    attributes: dict[str, int] = {}
    for name, values, kind, form, target in parts:
        if name:
            attributes[name] = len(accessors)
        accessor = {"bufferView": len(views), "componentType": kind, "count": len(values), "type": form}
        if name == "POSITION":
            accessor |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
        accessors.append(accessor)
        views.append(_add(chunks, values.tobytes()) | {"target": target})
    tree: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "recon-toolkit"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "object"}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": len(accessors) - 1, "material": 0}]}],
        "materials": [material],
        "accessors": accessors,
    }
    if texture is not None:
        tree["images"] = [{"bufferView": len(views), "mimeType": f"image/{picture}"}]
        tree["samplers"] = [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}]  # clamp to the edge
        tree["textures"] = [{"sampler": 0, "source": 0}]
        views.append(_add(chunks, _encoded(texture, picture)))
    body = b"".join(chunks)
    tree |= {"bufferViews": views, "buffers": [{"byteLength": len(body)}]}
    text = json.dumps(tree, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(body))
    return b"".join(
        (head, struct.pack("<I4s", len(text), b"JSON"), text, struct.pack("<I4s", len(body), b"BIN\0"), body)
    )


def _add(chunks: list[bytes], data: bytes) -> dict[str, int]:
    """Append data and what pads it to whole words; where it lies."""
    view = {"buffer": 0, "byteOffset": sum(map(len, chunks)), "byteLength": len(data)}
    chunks.append(data + b"\0" * (-len(data) % 4))
    return view


def _encoded(texture: Tensor, picture: str) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    image = Image.fromarray(to_bytes(texture))
    if picture == "jpeg":
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        image.save(buffer, "PNG")
    return buffer.getvalue()


def _ply_bytes(mesh: TexturedMesh, texture: Tensor | None) -> bytes:
    from trimesh.exchange.ply import export_ply

    return bytes(export_ply(_trimesh(mesh, texture), vertex_normal=True))


def _stl_bytes(mesh: TexturedMesh) -> bytes:
    from trimesh.exchange.stl import export_stl

    return bytes(export_stl(_trimesh(mesh, None)))


def _trimesh(mesh: TexturedMesh, texture: Tensor | None) -> Any:
    import trimesh

    colours = None if texture is None else vertex_colours(mesh.texture_coordinates, texture)
    return trimesh.Trimesh(
        mesh.vertices, mesh.faces, vertex_normals=mesh.normals, vertex_colors=colours, process=False, validate=False
    )


def vertex_colours(places: NDArray[np.float64], texture: Tensor) -> NDArray[np.uint8]:
    """The colours (V, 3) of a texture (3, H, W) at texture coordinates (V, 2), between pixels bilinear."""
    import torch
    from torch.nn import functional as F

    grid = torch.from_numpy(places * (2, -2) + (-1, 1)).float()
    colours = F.grid_sample(
        texture.detach().float().cpu()[None], grid[None, None], padding_mode="border", align_corners=True
    )
    return np.asarray(to_bytes(colours[0])[0])


def write_obj(path: str | Path, mesh: TexturedMesh, texture: Tensor | None) -> list[Path]:
    """Write ``path`` (``.obj``), and beside it the material (``.mtl``) and the texture (``.png``) of the same name.

    The OBJ file names the material's file, and that the texture's. Some programs end such a name at a space, or read
    ASCII only: where ``path`` has other characters, those two are called by a plain name that is told apart by digits.

    Blender imports OBJ files as y up by default, MeshLab and three.js' OBJLoader take them as they are.

    Args:
        path: the OBJ file.
        mesh: the mesh.
        texture: (3, H, W) in [0, 1]; without, the material is grey, and there is no picture.

    Returns:
        The files.

    Raises:
        DataError: the disk is full or cannot be written.
    """
    path = Path(path)
    name = plain_name(path.stem)
    material, picture = path.with_name(f"{name}.mtl"), path.with_name(f"{name}.png")
    corners = np.repeat(mesh.faces + 1, 3, axis=1)  # vertex/texture/normal share their number
    places = mesh.texture_coordinates if texture is None else mesh.texture_places(*texture.shape[-2:])
    text = "".join(
        (
            "# recon-toolkit: x right, y up, z towards the viewer\n",
            f"mtllib {material.name}\n",
            _lines("v %.6f %.6f %.6f\n", mesh.vertices),
            _lines("vt %.6f %.6f\n", places),
            _lines("vn %.5f %.5f %.5f\n", mesh.normals),
            "usemtl surface\ns 1\n",
            _lines("f %d/%d/%d %d/%d/%d %d/%d/%d\n", corners),
        )
    )
    colour = "Kd 0.6 0.6 0.6\n" if texture is None else f"Kd 1 1 1\nmap_Kd {picture.name}\n"
    write_text(material, f"newmtl surface\nKa 0 0 0\nKs 0 0 0\nd 1\nillum 1\n{colour}")
    if texture is not None:
        write_picture(picture, texture)
    write_text(path, text)
    return [path, material] if texture is None else [path, material, picture]


def plain_name(name: str) -> str:
    """``name`` where it is letters, digits, dots, hyphens and underscores of ASCII; otherwise one like it that is."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        return name
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "mesh"
    # Names in another script would all become one and overwrite each other's files.
    return f"{plain}-{zlib.crc32(name.encode(errors='surrogatepass')):08x}"


def _lines(pattern: str, rows: NDArray[Any]) -> str:
    """Every row by one pattern; a single formatting call is an order of magnitude faster than one a row."""
    return (pattern * len(rows)) % tuple(rows.reshape(-1).tolist())
