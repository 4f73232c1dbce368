"""A depth map from a file, with or without its photograph, as a surface, a solid and a cloud of points."""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_toolkit.data.decode import DEPTH_SUFFIXES, DepthScale, UnknownScale, read_depth, read_image
from recon_toolkit.data.limits import npy_header
from recon_toolkit.errors import DataError
from recon_toolkit.files import printable, size_of
from recon_toolkit.geometry.camera import Camera
from recon_toolkit.io.mesh_files import MESH_SUFFIXES, vertex_colours, write_mesh
from recon_toolkit.io.shape_files import write_shape
from recon_toolkit.shapes.forms import Cloud, Mesh, Shape
from recon_toolkit.shapes.mesh import LEAST_SINE, TexturedMesh, mesh_from_depth
from recon_toolkit.shapes.printable import solid

#: Suffixes that may also be of other shapes; which of them a file is, its arrays say.
ARRAY_SUFFIXES = (".npy", ".npz")


def is_depth_map(path: Path) -> bool:
    """Whether a file is a depth map and no other shape: by its suffix, or the name and shape of its array.

    A file that cannot be looked at is none: reading it says why.
    """
    suffix = path.suffix.lower()
    if suffix not in ARRAY_SUFFIXES:
        return suffix in DEPTH_SUFFIXES
    try:
        size_of(path)
        if suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                names = [name.removesuffix(".npy") for name in archive.namelist()]
                if "depth" in names or len(names) != 1 or "points" in names:
                    return "depth" in names and "points" not in names
                with archive.open(archive.namelist()[0]) as member:
                    return _is_map(member.read(4096))
        with path.open("rb") as file:
            return _is_map(file.read(4096))
    except (OSError, DataError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return False


def _is_map(head: bytes) -> bool:
    """Whether the array whose file starts so is (H, W) of numbers, and no list of points (N, 3)."""
    shape, dtype = npy_header(io.BytesIO(head))
    if len(shape) == 3 and 1 in (shape[0], shape[2]):
        shape = tuple(side for k, side in enumerate(shape) if k != (0 if shape[0] == 1 else 2))
    return len(shape) == 2 and shape[1] != 3 and min(shape) > 1 and dtype.kind in "fiu"


#: Pixels of a depth map that becomes a mesh: two faces each, of some hundred bytes on the way.
MAX_DEPTH_PIXELS = 16_000_000
#: What an integer of 16 bits means in an image that does not say, in metres: a millimetre, as depth cameras have it.
MILLIMETRE = 0.001
#: A step of depth is a jump where it is this many times that of its neighbours in line, and this large a part of it.
#: A plane, however steep, has even steps of 1 / depth.
_JUMP, _JUMP_PART = 3.0, 0.05
#: How far behind its farthest point a solid's back is, in halves of the picture's width there.
_BACK = 0.1
#: How much the sides of photograph and depth map may differ in proportion: a pixel of rounding at small sizes.
_PROPORTION = 0.03

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class DepthMap:
    """A depth map with its camera.

    Attributes:
        depth: (H, W) float64, 0 where there is none.
        camera: the camera that it was seen by.
        photo: (3, h, w) in [0, 1], framed alike, or None.
    """

    depth: NDArray[np.float64]
    camera: Camera
    photo: Tensor | None = None

    def surface(self) -> TexturedMesh:
        """The visible surface, open, cut at jumps of depth.

        Raises:
            DataError: no face is left.
        """
        height, width = self.depth.shape
        known = self.depth > 0
        centre = float(np.median(self.depth[known]))
        made = mesh_from_depth(torch.from_numpy(self.depth), self.camera, centre_depth=centre)
        columns, rows = np.rint(made.texture_coordinates * (width - 1, height - 1)).astype(np.int64).T
        across, down = jumps(self.depth, self.camera)
        # The two faces of a quad start at its upper left pixel, (v00, v10, v01), and its upper right, (v01, v10, v11).
        x, y = columns[made.faces], height - 1 - rows[made.faces]
        left, right, top, bottom = x.min(1), x.max(1), y.min(1), y.max(1)
        upper = y[:, 0] + y[:, 1] + y[:, 2] == 3 * top + 1
        cut = np.where(upper, across[top, left] | down[top, left], across[bottom, left] | down[top, right])
        faces = made.faces[~cut]
        if not len(faces):
            raise DataError("no face of the depth map is left", remedy="check its depth, or --fov")
        used, index = np.unique(faces, return_inverse=True)
        unit = math.tan(math.radians(self.camera.fov) / 2) * centre
        vertices = made.vertices[used] * unit - (0, 0, centre)
        faces = index.reshape(-1, 3).astype(np.int64)
        return TexturedMesh(
            vertices, _normals(vertices, faces), self._on_photo(made.texture_coordinates[used]), faces, eye=0.0
        )

    def solid(self, height: float) -> TexturedMesh:
        """The largest piece of the surface closed to a solid ``height`` high along y, lying on its back.

        Raises:
            DataError: no face is left.
        """
        surface = self.surface()
        far = float(-surface.vertices[:, 2].min())
        thickness = _BACK * math.tan(math.radians(self.camera.fov) / 2) * far
        return solid(surface, thickness=thickness, height=height)

    def cloud(self) -> Cloud:
        """Every pixel that has a depth, with the photograph's colours. z is up, as in all clouds.

        Raises:
            DataError: there is none.
        """
        height, width = self.depth.shape
        rays = self.camera.rays(height, width, dtype=torch.float64).numpy()
        rows, columns = np.nonzero(self.depth > 0)
        points = (rays[:, rows, columns] * self.depth[rows, columns]).T
        colours = None
        if self.photo is not None:
            places = np.stack((columns / max(width - 1, 1), 1 - rows / max(height - 1, 1)), axis=1)
            colours = vertex_colours(self._on_photo(places), self.photo)
        # From x right, y down, z away: the viewer is in front, at −y.
        return Cloud(points[:, (0, 2, 1)] * (1, 1, -1), None, colours)

    def _on_photo(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Texture coordinates of the depth map as those of the photograph: their frames' corners coincide."""
        if self.photo is None:
            return places
        size = np.array(self.depth.shape[::-1])
        own = np.array(self.photo.shape[:0:-1])
        return np.asarray(((places * (size - 1) + 0.5) / size * own - 0.5) / np.maximum(own - 1, 1))


def jumps(depth: NDArray[np.float64], camera: Camera) -> tuple[Mask, Mask]:
    """Where depth jumps to the next pixel to the right (H, W − 1), and to that below (H − 1, W).

    A step to a pixel without depth is none. It is a jump where the surface would be seen at a glancing angle, or where
    it is far larger than the steps beside it.
    """
    inverse = np.where(depth > 0, 1 / np.where(depth > 0, depth, 1.0), np.nan)
    pixel = 2 * math.tan(math.radians(camera.fov) / 2) / max(depth.shape[1] - 1, 1)
    return _jumps(inverse, pixel), _jumps(inverse.T, pixel).T


def _jumps(inverse: NDArray[np.float64], pixel: float) -> Mask:
    """Jumps along rows of 1 / depth, NaN where there is none."""
    step = np.abs(np.diff(inverse, axis=1))
    part = step / np.fmin(inverse[:, :-1], inverse[:, 1:])
    # ∂z / z per pixel over a pixel's width at depth 1 is the tangent to the picture's plane.
    glancing = part / pixel > math.sqrt(1 / LEAST_SINE**2 - 1)
    beside = np.full((len(step), step.shape[1] + 2), np.nan)
    beside[:, 1:-1] = step
    largest = np.fmax(beside[:, :-2], beside[:, 2:])
    uneven = (part > _JUMP_PART) & (step > _JUMP * largest)
    return np.asarray(glancing | uneven)


def _normals(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.float64]:
    """Unit normals (V, 3) by the area of the faces around."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    across = np.cross(b - a, c - a)
    sums = np.stack(
        [np.bincount(faces.reshape(-1), np.repeat(across[:, k], 3), minlength=len(vertices)) for k in range(3)], axis=1
    )
    return np.asarray(sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-300))


def read_depth_map(
    path: Path, *, fov: float = 10.0, photo: Path | None = None, scale: float | None = None
) -> tuple[DepthMap, str | None]:
    """A depth map from a file.

    Args:
        path: an image, or ``.npy``, ``.npz``, ``.exr`` or ``.pfm``.
        fov: the camera's horizontal field of view, in degrees.
        photo: a photograph with the same frame, of any size.
        scale: what 1 in the file is, e.g. 0.001 for millimetres where depth shall be metres. Without, what the file
            says; 16-bit integers of a file that says nothing are millimetres.

    Returns:
        The depth map, and what was assumed about its unit, if anything.

    Raises:
        DataError: a file cannot be read, holds no depth, or more pixels than are read; an 8-bit image does not say what
            it means; the photograph has other proportions.
        ValueError: ``fov`` or ``scale`` is out of range.
    """
    camera = Camera(fov)
    place = printable(path)
    assumed = None
    if scale is not None and not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"a scale is above 0, not {scale}")
    try:
        depth = read_depth(path, ask=True)
        depth = depth if scale is None else depth * scale
    except UnknownScale:
        largest = _largest_integer(path)
        if scale is None and largest < 65535:
            raise DataError(
                "its 8-bit numbers do not say what depth they mean",
                where=place,
                remedy="say what 1 is with --depth-scale, e.g. 0.01",
            ) from None
        if scale is None:
            assumed = "its 16-bit numbers are taken as millimetres; --depth-scale says otherwise"
        depth = read_depth(path, scale=DepthScale(0.0, largest * (MILLIMETRE if scale is None else scale)))
    if depth.size > MAX_DEPTH_PIXELS or min(depth.shape) < 2:
        limits = f"2 × 2 to {MAX_DEPTH_PIXELS:,}"
        raise DataError(
            f"has {depth.shape[1]} × {depth.shape[0]} pixels, not {limits}", where=place, remedy="resize it"
        )
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, 0.0)
    if not depth.any():
        raise DataError("holds no depth above 0", where=place, remedy="check how it was written")
    found = DepthMap(depth, camera)
    return (found if photo is None else replace(found, photo=_photo(photo, depth.shape))), assumed


def _largest_integer(path: Path) -> int:
    from PIL import Image

    with Image.open(path) as image:  # which read_depth has opened before
        return 65535 if image.mode.startswith("I") else 255


def _photo(path: Path, shape: tuple[int, ...]) -> Tensor:
    image = read_image(path)
    height, width = image.shape[:2]
    if abs(math.log(width / height) - math.log(shape[1] / shape[0])) > _PROPORTION + 1 / min(shape):
        raise DataError(
            f"is {width} × {height}, and the depth map {shape[1]} × {shape[0]}",
            where=printable(path),
            remedy="give the photograph with the same frame",
        )
    return torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)


def write_depth_map(
    path: Path, found: DepthMap, form: str, *, height_mm: float | None, default_height_mm: float
) -> Shape:
    """Write a depth map as the file that the suffix of ``path`` names.

    - mesh: ``.glb`` and ``.obj`` with the photograph as texture, ``.ply`` with its colours at the vertices, ``.off``;
      ``.stl`` and ``.3mf`` are closed to a solid that lies on its back;
    - cloud: any file of clouds.

    Args:
        path: the file.
        found: the depth map.
        form: ``mesh`` or ``cloud``.
        height_mm: height of the object in millimetres; in its depth's unit otherwise.
        default_height_mm: that of solids where ``height_mm`` is None.

    Returns:
        What was written, as a shape.

    Raises:
        DataError: nothing of the surface is left, or the place cannot be written.
    """
    suffix = path.suffix.lower()
    if form == "cloud":
        cloud = found.cloud()
        write_shape(path, cloud, height_mm=height_mm)
        return cloud
    if suffix in (".stl", ".3mf"):
        closed = found.solid(height_mm or default_height_mm)
        made = Mesh(closed.vertices - (0, 0, closed.vertices[:, 2].min()), closed.faces)
        write_shape(path, made)
        return made
    surface = found.surface()
    upright = Mesh(surface.vertices[:, (0, 2, 1)] * (1, -1, 1), surface.faces)
    if suffix in MESH_SUFFIXES and suffix != ".ply":
        write_mesh(path, surface, found.photo, height_mm=height_mm)
        return upright
    if found.photo is not None:
        upright = replace(upright, colours=vertex_colours(surface.texture_coordinates, found.photo))
    write_shape(path, upright, height_mm=height_mm)
    return upright
