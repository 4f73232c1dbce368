"""A depth map as a textured mesh, at its own resolution or finer, cut along the object's outline."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_toolkit.errors import DataError
from recon_toolkit.geometry.camera import Camera, grid_faces
from recon_toolkit.shapes.surface import resizing_matrix

Depths = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: A surface seen at less than this sine of its elevation is stretched over a jump rather than seen.
LEAST_SINE = 0.1
#: Pixels beyond an outline to which a surface goes on; a cubic through its pixels looks two ahead.
REACH = 2
#: How far the outline of a trimmed object is smoothed, in widths of its picture.
TRIM_SMOOTHING = 1 / 32
#: Cut places keep this distance from an edge's ends, so that no face is too thin for the floats of a file.
LEAST_PART = 0.05


def foreground(depth: Depths, camera: Camera, kept: Mask, *, rim: bool = True) -> Mask:
    """The object without the background around it: one piece, without holes.

    Depth maps that fill a picture end in a rim: a flat band about the greatest depth beside the object. The rim is
    what lies within a tenth of the object's depth from the back *and* is connected with the picture's border or
    with what the mask excludes; faces stretched over jumps go as well. Nothing of the nearer half is ever removed,
    and if less than a third would stay, nothing is removed at all.

    Args:
        depth: (H, W), finite where ``kept``.
        camera: the depth map's camera.
        kept: (H, W) what to look at, at least one pixel.
        rim: there may be a rim; otherwise only faces stretched over jumps go.

    Returns:
        (H, W) bool, within ``kept`` but for filled holes.
    """
    from scipy import ndimage

    filled = extended(depth, kept)
    near, back = np.percentile(filled[kept], (1, 98))
    if not back - near > 1e-6:
        return kept
    behind = (filled > back - 0.1 * (back - near)) & rim
    stretched = _sine_of_sight(filled, camera) < LEAST_SINE
    away = np.pad((behind | stretched) & kept | ~kept, 1, constant_values=True)
    away = ndimage.binary_propagation(_frame(away), mask=away)[1:-1, 1:-1]
    nearer = kept & (filled < (near + back) / 2)
    found = kept & ~away
    # An outline without spikes: what a disc of a few pixels cannot reach is no part of a head.
    found = ndimage.gaussian_filter(found.astype(np.float64), 1.0, mode="nearest") > 0.5
    found = _largest((found & kept) | nearer)
    found = ndimage.binary_fill_holes(found)
    return found if found.sum() * 3 >= kept.sum() else kept


def trimmed(depth: Depths, camera: Camera, kept: Mask, *, rim: bool = True) -> Depths:
    """The foreground as a map (H, W) whose level 0.5 is its outline, smoothed: the background ends with the model's
    noise.

    Args:
        depth, camera, kept, rim: as for :func:`foreground`.
    """
    return outline(foreground(depth, camera, kept, rim=rim), TRIM_SMOOTHING * depth.shape[1]) + 0.5


def extended(depth: Depths, kept: Mask) -> Depths:
    """Depth or 1/depth (H, W) continued beyond what is kept (at least one pixel).

    Up to :data:`REACH` pixels away it goes on as its mirror image through the nearest kept pixel does, so that a slope
    stays a slope up to its rim; further out it is that pixel's.
    """
    if kept.all():
        return depth
    from scipy import ndimage

    rows, columns = ndimage.distance_transform_edt(~kept, return_distances=False, return_indices=True)
    filled = depth[rows, columns]
    y, x = np.nonzero(~kept)
    row, column = rows[y, x], columns[y, x]
    back_y, back_x = 2 * row - y, 2 * column - x
    height, width = depth.shape
    inside = (back_y >= 0) & (back_y < height) & (back_x >= 0) & (back_x < width)
    inside &= np.maximum(np.abs(row - y), np.abs(column - x)) <= REACH
    inside[inside] = kept[back_y[inside], back_x[inside]]
    nearest, behind = depth[row[inside], column[inside]], depth[back_y[inside], back_x[inside]]
    filled[y[inside], x[inside]] = np.maximum(2 * nearest - behind, nearest / 2)  # it stays above 0
    return np.asarray(filled)


def outline(kept: Mask, sigma: float = 0.6) -> Depths:
    """A map (H, W) whose level 0 is the mask's outline with its steps smoothed: above it inside, below it outside.

    A straight outline stays half a pixel beyond the outermost pixels' centres, where their area ends.

    Args:
        kept: (H, W).
        sigma: of the smoothing, in pixels: 0.6 rounds off the pixels' own steps.
    """
    from scipy import ndimage

    return np.asarray(ndimage.gaussian_filter(kept.astype(np.float64), sigma, mode="nearest") - 0.5)


def main_region(field: Depths) -> Depths:
    """The map with only the largest piece of what is above 0 left above it, and that piece's holes filled."""
    from scipy import ndimage

    main = ndimage.binary_fill_holes(_largest(field > 0))
    return np.where(main, np.maximum(np.abs(field), 1e-3), -np.maximum(np.abs(field), 1e-3))


def clipped(
    attributes: NDArray[np.float64], faces: NDArray[np.integer], field: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.integer]]:
    """The part of a mesh where a value at its vertices is above 0; faces across the outline are cut.

    A cut mesh is as manifold as the whole one was: where pixels touch at a corner only, the outline passes between.

    Args:
        attributes: (V, C), interpolated linearly to where edges are cut.
        faces: (F, 3).
        field: (V,).

    Returns:
        attributes (V', C) and faces (F', 3) of the part, only with vertices in use.
    """
    inside = field > 0
    corners = inside[faces]
    count = corners.sum(axis=1)
    crossed = (count == 1) | (count == 2)
    lone = count[crossed] == 1  # one corner in; otherwise one out
    first = (corners[crossed] == lone[:, None]).argmax(axis=1)  # the corner on its own
    order = (first[:, None] + np.arange(3)) % 3
    a, b, c = np.take_along_axis(faces[crossed], order, axis=1).T.astype(np.int64)

    ends = np.sort(np.stack((np.concatenate((a, a)), np.concatenate((b, c))), axis=1), axis=1)
    keys, index = np.unique(ends[:, 0] * len(field) + ends[:, 1], return_inverse=True)
    low, high = np.divmod(keys, len(field))
    part = np.clip(field[low] / (field[low] - field[high]), LEAST_PART, 1 - LEAST_PART)[:, None]
    added = attributes[low] * (1 - part) + attributes[high] * part
    ab, ac = (index.reshape(2, -1) + len(field)).astype(np.int64)

    pieces = np.concatenate(
        (
            faces[count == 3],
            np.stack((a, ab, ac), axis=1)[lone],
            np.stack((ab, b, c), axis=1)[~lone],
            np.stack((ab, c, ac), axis=1)[~lone],
        )
    )
    used = np.zeros(len(field) + len(added), dtype=bool)
    used[pieces] = True
    return np.concatenate((attributes, added))[used], (np.cumsum(used) - 1)[pieces]


def _sine_of_sight(depth: Depths, camera: Camera) -> Depths:
    """Sine of the angle between each line of sight and the surface (H, W): 1 where it is seen face on."""
    width = depth.shape[1]
    step = 2 * math.tan(math.radians(camera.fov) / 2) / (width - 1)  # of x/z from pixel to pixel
    down, across = np.gradient(depth)
    # Of z over x/z and y/z the slope per length is ∂z / (step · z): within the narrow field of view, the surface's.
    slope = np.hypot(down, across) / (step * depth)
    return np.asarray(1 / np.sqrt(1 + slope**2))


def _frame(mask: Mask) -> Mask:
    frame = np.zeros_like(mask)
    frame[0], frame[-1], frame[:, 0], frame[:, -1] = mask[0], mask[-1], mask[:, 0], mask[:, -1]
    return frame


def _largest(mask: Mask) -> Mask:
    """The largest piece of a mask; pieces that touch at corners only are two."""
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    return np.asarray(labels == np.bincount(labels.reshape(-1))[1:].argmax() + 1)


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
            :func:`~recon_toolkit.shapes.mesh.foreground`.
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
