"""A depth map as a textured mesh, at its own resolution or finer, trimmed to the object."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_toolkit.errors import DataError
from recon_toolkit.export.outline import Depths, clipped, extended, foreground, main_region, outline
from recon_toolkit.export.sizes import resizing_matrix
from recon_toolkit.geometry.camera import Camera
from recon_toolkit.geometry.depth import grid_faces


@dataclass(frozen=True)
class TexturedMesh:
    """A mesh in the frame of 3D files: x right, y up, z towards the viewer, faces anticlockwise from outside.

    Texture coordinates run from 0 to 1 between the *centres* of a picture's outermost pixels, so that they fit a
    picture of any size made with ``align_corners=True``; :meth:`texture_places` are those of a file.
    """

    vertices: NDArray[np.float64]  # (V, 3)
    normals: NDArray[np.float64]  # (V, 3) unit, outward
    texture_coordinates: NDArray[np.float64]  # (V, 2): u right, v up, (0, 0) the centre of the lower left pixel
    faces: NDArray[np.int64]  # (F, 3) from 0
    eye: float = math.inf  # where on the z axis the camera is that sees all faces from outside

    def texture_places(self, height: int, width: int) -> NDArray[np.float64]:
        """Texture coordinates (V, 2) as files have them: (0, 0) and (1, 1) are corners of the picture's frame.

        Args:
            height, width: the texture's size in pixels.
        """
        size = np.array((width, height), dtype=np.float64)
        return (self.texture_coordinates * (size - 1) + 0.5) / size


def mesh_from_depth(
    depth: Tensor,
    camera: Camera,
    *,
    mask: Tensor | None = None,
    centre_depth: float = 1.0,
    detail: int = 1,
    trim: bool = False,
    rim: bool = True,
) -> TexturedMesh:
    """The surface of a depth map.

    The point at ``centre_depth`` on the optical axis becomes the origin, and half the image's width there the unit.
    Turning the camera's frame about x by 180° (y and z change sign) keeps the faces' winding.

    Args:
        depth: (H, W), positive; both sides at least 2.
        camera: the depth map's camera.
        mask: what to keep, (H, W) bool. Everything by default.
        centre_depth: depth of the origin.
        detail: vertices per pixel along a side. With 1, they are the pixels, and a face stays when all its corners
            do. With more, the surface is a cubic through the pixels, which stay where they are, and its outline is
            smooth: it cuts the outermost faces where the area of the mask's pixels ends.
        trim: remove the background's rim and faces stretched over jumps, and keep one piece without holes; see
            :func:`~recon_toolkit.export.outline.foreground`.
        rim: the mask may hold such a rim; otherwise it ends at the object.

    Raises:
        DataError: no face is left.
        ValueError: ``detail`` is below 1.
    """
    if detail < 1:
        raise ValueError(f"detail is 1 or more, not {detail}")
    kept = (depth.isfinite() & (depth > 0)).cpu().numpy()
    if mask is not None:
        kept = kept & mask.bool().cpu().numpy()
    values = depth.detach().double().cpu().numpy()
    if not kept.any():
        raise _nothing()
    height, width = ((side - 1) * detail + 1 for side in depth.shape)
    disparity = 1 / np.where(kept, values, 1.0)  # in which a plane is linear
    fine = 1 / _refined(extended(disparity, kept), height, width)
    if trim:
        kept = foreground(values, camera, kept, rim=rim)
    faces = grid_faces(height, width).numpy()
    attributes = _grid(fine, camera, centre_depth)
    if detail > 1 and not kept.all():
        # The background ends where the model says so, with its noise, and not at a pixel's edge as a mask does.
        field = _refined(outline(kept, depth.shape[1] / 32 if trim else 0.6), height, width)
        if trim:
            field = main_region(field)
        attributes, faces = clipped(attributes, faces, field.reshape(-1))
    else:
        attributes, faces = _compact(attributes, faces[kept.reshape(-1)[faces].all(axis=1)] if detail == 1 else faces)
    if not len(faces):
        raise _nothing()
    normals = attributes[:, 3:6]
    return TexturedMesh(
        vertices=attributes[:, :3],
        normals=normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30),
        texture_coordinates=attributes[:, 6:],
        faces=faces.astype(np.int64),
        eye=1 / _half_width(camera),
    )


def scaled(mesh: TexturedMesh, height: float) -> TexturedMesh:
    """The mesh scaled about its origin to ``height`` from its lowest to its highest point.

    Raises:
        DataError: it has no height.
        ValueError: ``height`` is not above 0.
    """
    if not height > 0:
        raise ValueError(f"a height is above 0, not {height}")
    extent = float(np.ptp(mesh.vertices[:, 1]))
    if not extent > 0:
        raise DataError("the mesh has no height to scale", remedy="use a larger mask")
    factor = height / extent
    return replace(mesh, vertices=mesh.vertices * factor, eye=mesh.eye * factor)


def _refined(values: Depths, height: int, width: int) -> Depths:
    """A map (H, W) at a finer size, with corners on corners."""
    rows, columns = resizing_matrix(values.shape[0], height), resizing_matrix(values.shape[1], width)
    return np.asarray((rows @ torch.from_numpy(values) @ columns.T).numpy())


def _half_width(camera: Camera) -> float:
    """Half the picture's width at depth 1."""
    return math.tan(math.radians(camera.fov) / 2)


def _grid(depth: Depths, camera: Camera, centre_depth: float) -> NDArray[np.float64]:
    """Place, outward normal and texture coordinates (H · W, 8) of a depth map's pixels in the frame of 3D files."""
    height, width = depth.shape
    grid = np.empty((height, width, 8))
    x, y = np.linspace(-1, 1, width), np.linspace(1, -1, height) * ((height - 1) / (width - 1))
    unit = _half_width(camera) * centre_depth
    grid[..., 0] = x * (depth / centre_depth)
    grid[..., 1] = y[:, None] * (depth / centre_depth)
    grid[..., 2] = (centre_depth - depth) / unit
    # One-sided differences at the ends: normals_from_depth follows Wu et al. in setting the border to (0, 0, 1), which
    # would show as a bright frame.
    ax, ay, az = np.moveaxis(np.gradient(grid[..., :3], axis=1), 2, 0)
    dx, dy, dz = np.moveaxis(np.gradient(grid[..., :3], axis=0), 2, 0)
    grid[..., 3], grid[..., 4], grid[..., 5] = dy * az - dz * ay, dz * ax - dx * az, dx * ay - dy * ax
    grid[..., 3:6] /= np.maximum(np.sqrt((grid[..., 3:6] ** 2).sum(axis=2, keepdims=True)), 1e-30)
    grid[..., 6], grid[..., 7] = np.linspace(0, 1, width), np.linspace(1, 0, height)[:, None]
    return grid.reshape(-1, 8)


def _compact(
    attributes: NDArray[np.float64], faces: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.integer]]:
    """Only the vertices that faces use."""
    used = np.zeros(len(attributes), dtype=bool)
    used[faces] = True
    return attributes[used], (np.cumsum(used) - 1)[faces]


def _nothing() -> DataError:
    return DataError("the mask leaves nothing of the mesh", remedy="use a larger mask, or none")
