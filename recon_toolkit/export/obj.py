"""A depth map as a textured mesh: OBJ with MTL and PNG, for MeshLab, Blender and the like."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_toolkit.errors import DataError
from recon_toolkit.export.pictures import write_picture
from recon_toolkit.files import write_text
from recon_toolkit.geometry.camera import Camera
from recon_toolkit.geometry.depth import backproject, grid_faces, normals_from_depth


@dataclass(frozen=True)
class TexturedMesh:
    """A mesh in the frame of 3D files: x right, y up, z towards the viewer, faces anticlockwise from outside."""

    vertices: NDArray[np.float64]  # (V, 3)
    normals: NDArray[np.float64]  # (V, 3) unit, outward
    texture_coordinates: NDArray[np.float64]  # (V, 2), (0, 0) at the picture's lower left
    faces: NDArray[np.int64]  # (F, 3) from 0


def mesh_from_depth(
    depth: Tensor, camera: Camera, *, mask: Tensor | None = None, centre_depth: float = 1.0
) -> TexturedMesh:
    """The surface of a depth map.

    The point at ``centre_depth`` on the optical axis becomes the origin, and half the image's width there the unit.
    Turning the camera's frame about x by 180° (y and z change sign) keeps the faces' winding.

    Args:
        depth: (H, W), positive.
        camera: the depth map's camera.
        mask: what to keep, (H, W) bool; a face stays when all its corners do. Everything by default.
        centre_depth: depth of the origin.

    Raises:
        DataError: no face is left.
    """
    height, width = depth.shape
    kept = depth.isfinite() & (depth > 0)
    if mask is not None:
        kept &= mask.bool().to(depth.device)
    depth = depth.detach().double().where(kept, centre_depth)[None].cpu()
    points = backproject(depth, camera)[0].reshape(3, -1).T.numpy()
    inward = normals_from_depth(depth, camera)[0].reshape(3, -1).T.numpy()
    faces = grid_faces(height, width).numpy().astype(np.int64)
    faces = faces[kept.cpu().reshape(-1).numpy()[faces].all(axis=1)]
    if not len(faces):
        raise DataError("the mask leaves nothing of the mesh", remedy="use a larger mask, or none")
    used, faces = np.unique(faces, return_inverse=True)
    unit = math.tan(math.radians(camera.fov) / 2) * centre_depth
    rows, columns = np.divmod(used, width)
    return TexturedMesh(
        vertices=(points[used] - (0, 0, centre_depth)) * (1, -1, -1) / unit,
        normals=-inward[used] * (1, -1, -1),
        texture_coordinates=np.stack(((columns + 0.5) / width, 1 - (rows + 0.5) / height), axis=1),
        faces=faces.reshape(-1, 3),
    )


def write_obj(path: str | Path, mesh: TexturedMesh, texture: Tensor) -> list[Path]:
    """Write ``path`` (``.obj``), and beside it the material (``.mtl``) and the texture (``.png``) of the same name.

    Args:
        path: the OBJ file; its name should have no spaces, which some programs do not read in a material's name.
        mesh: the mesh.
        texture: (3, H, W) in [0, 1].

    Returns:
        The three files.

    Raises:
        DataError: the disk is full or cannot be written.
    """
    path = Path(path)
    material, picture = path.with_suffix(".mtl"), path.with_suffix(".png")
    corners = np.repeat(mesh.faces + 1, 3, axis=1)  # vertex/texture/normal share their number
    text = "".join(
        (
            "# recon-toolkit: x right, y up, z towards the viewer; the unit is half the image's width\n",
            f"mtllib {material.name}\n",
            _lines("v %.6f %.6f %.6f\n", mesh.vertices),
            _lines("vt %.6f %.6f\n", mesh.texture_coordinates),
            _lines("vn %.5f %.5f %.5f\n", mesh.normals),
            "usemtl surface\ns 1\n",
            _lines("f %d/%d/%d %d/%d/%d %d/%d/%d\n", corners),
        )
    )
    write_picture(picture, texture)
    write_text(material, f"newmtl surface\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nd 1\nillum 1\nmap_Kd {picture.name}\n")
    write_text(path, text)
    return [path, material, picture]


def object_mask(depth: Tensor, *, border: int = 2) -> Tensor:
    """What to keep of a canonical depth map (H, W): all but ``border`` columns at either side.

    Those hold a fixed depth in models after Wu et al., and would stand as walls beside the object.
    """
    mask = torch.ones_like(depth, dtype=torch.bool)
    mask[:, :border] = mask[:, depth.shape[1] - border :] = False
    return mask


def _lines(pattern: str, rows: NDArray[Any]) -> str:
    """Every row by one pattern; a single formatting call is an order of magnitude faster than one a row."""
    return (pattern * len(rows)) % tuple(rows.reshape(-1).tolist())
