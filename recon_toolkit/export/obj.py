"""A textured mesh as OBJ with MTL and PNG, for MeshLab, Blender and the like."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recon_toolkit.export.mesh import TexturedMesh
from recon_toolkit.export.pictures import write_picture
from recon_toolkit.files import write_text


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
