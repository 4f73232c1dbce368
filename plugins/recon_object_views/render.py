"""Orthographic images of a mesh from many sides, and what a data set holds of one object."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from recon_object_views.solids import ColouredMesh, sample_surface
from recon_toolkit.data.fields import FieldSpec, field_specs
from recon_toolkit.geometry.orthographic import camera_rotation, fixed_views, looking_from, random_views, to_picture
from recon_toolkit.rendering import rasterize, rasterize_depth

#: The rasteriser interpolates 1/z in a straight line across a picture, as perspective has it. With 1/(far − depth) for
#: z, it is the depth of an orthographic picture that is interpolated so. Beyond all depths of objects in the unit cube.
_BEYOND = 3.0
#: Samples, or faces, drawn at a time: it bounds the memory that large meshes and pictures take.
_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Views:
    """Pictures of one object from V sides.

    Attributes:
        depth: (V, S, S), 0 where the object is not.
        mask: (V, S, S) bool.
        image: (V, 3, S, S) in [0, 1], or None.
    """

    depth: Tensor
    mask: Tensor
    image: Tensor | None


@dataclass(frozen=True)
class Lamp:
    """Light from behind the camera: ambient, and diffuse from a direction in the picture's frame, towards the lamp."""

    ambient: float = 0.45
    diffuse: float = 0.6
    towards: tuple[float, float, float] = (-0.35, -0.6, -0.72)


def depth_views(vertices: Tensor, faces: Tensor, quaternion: Tensor, size: int) -> Views:
    """Depth at pixel centres.

    Args:
        vertices: (N, 3) in the object's frame.
        faces: (F, 3) int32 or int64; both sides are seen.
        quaternion: (V, 4), the views.
        size: S.
    """
    depth = vertices.new_empty(len(quaternion), size, size)
    mask = torch.empty(depth.shape, dtype=torch.bool)
    for part in _parts(len(quaternion), size, len(faces)):
        # A sample a pixel, at its centre; the barycentrics of rasterize would go unread.
        found, covered = rasterize_depth(
            _drawn(vertices, quaternion[part], size), faces, size, size, samples=1, check=part.start == 0
        )
        depth[part], mask[part] = _orthographic(found, covered), covered
    return Views(depth, mask, None)


def colour_views(
    vertices: Tensor,
    faces: Tensor,
    colours: Tensor,
    quaternion: Tensor,
    size: int,
    *,
    lamp: Lamp | None = None,
    background: float = 1.0,
    supersampling: int = 2,
) -> Views:
    """Shaded colours, antialiased, and depth at the samples nearest to pixel centres.

    Args:
        vertices, faces, quaternion, size: see :func:`depth_views`.
        colours: (F, 3) in [0, 1], of the faces.
        lamp: the light, which turns with the camera.
        background: its grey.
        supersampling: samples along a pixel's side.
    """
    lamp = lamp or Lamp()
    views, fine = len(quaternion), size * supersampling
    corners = vertices[faces.long()]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal = torch.nn.functional.normalize(normal, dim=1)
    towards = torch.nn.functional.normalize(torch.tensor(lamp.towards, dtype=vertices.dtype), dim=0)
    depth = vertices.new_empty(views, size, size)
    mask = torch.empty(depth.shape, dtype=torch.bool)
    image = vertices.new_empty(views, 3, size, size)
    middle = slice(supersampling // 2, None, supersampling)
    for part in _parts(views, fine, len(faces)):
        found = rasterize(_drawn(vertices, quaternion[part], fine), faces, fine, fine, check=part.start == 0)
        seen = found.face >= 0
        turned = normal @ camera_rotation(quaternion[part]).mT  # (V, F, 3)
        # Towards the camera, whatever way the face winds.
        facing = torch.where(turned[..., 2:] > 0, -turned, turned)
        lit = (colours * (lamp.ambient + lamp.diffuse * (facing @ towards).clamp(min=0))[..., None]).clamp(max=1)
        rows = found.face.clamp(min=0).long() + torch.arange(len(lit))[:, None, None] * len(faces)
        picture = lit.view(-1, 3)[rows.view(-1)].view(*rows.shape, 3)
        picture = torch.where(seen[..., None], picture, background).permute(0, 3, 1, 2)
        image[part] = torch.nn.functional.avg_pool2d(picture, supersampling)
        mask[part] = seen[:, middle, middle]
        depth[part] = _orthographic(found.depth[:, middle, middle], mask[part])
    return Views(depth, mask, image)


def _parts(views: int, size: int, faces: int) -> list[slice]:
    """The views in parts: all at once but for many faces or samples."""
    count = max(1, min(views, _AT_ONCE // max(size * size, faces)))
    return [slice(start, min(start + count, views)) for start in range(0, views, count)]


def _drawn(vertices: Tensor, quaternion: Tensor, size: int) -> Tensor:
    """What the rasteriser draws: pixel coordinates, and the z that makes it orthographic."""
    seen = to_picture(vertices[None], quaternion[None], size)[0]
    return torch.cat((seen[..., :2], 1 / (_BEYOND - seen[..., 2:])), dim=-1)


def _orthographic(drawn: Tensor, mask: Tensor) -> Tensor:
    """The depth that the rasteriser's z stands for; 0 outside the mask."""
    return torch.where(mask, _BEYOND - 1 / torch.where(mask, drawn, 1.0), 0.0)


#: Depths are stored in 16 bits over this range; 0 is where the object is not.
DEEPEST = 2.0


@dataclass(frozen=True)
class Layout:
    """How many pictures of an object there are, and of which size.

    Args:
        image_size: of the pictures that a model is shown, in pixels.
        images: how many of them.
        depth_size: of the depth maps.
        fixed: of the eight fixed views.
        novel: random views.
        points: of the cloud.
        elevation: range of the height that pictures are taken from, degrees.
    """

    image_size: int = 64
    images: int = 24
    depth_size: int = 128
    fixed: int = 8
    novel: int = 100
    points: int = 10000
    elevation: tuple[float, float] = (0.0, 35.0)

    def fields(self) -> dict[str, FieldSpec]:
        """How a packed data set stores them; all but the pictures belong to the object."""
        plane, steps = (self.depth_size, self.depth_size), 65535 / DEEPEST
        shared: dict[str, Any] = {"each": self.images}
        return field_specs(self.image_size) | {
            "fixed_depth": FieldSpec(dtype="uint16", shape=(self.fixed, *plane), steps=steps, **shared),
            "novel_depth": FieldSpec(dtype="uint16", shape=(self.novel, *plane), steps=steps, **shared),
            "novel_view": FieldSpec(dtype="float32", shape=(self.novel, 4), **shared),
            "cloud": FieldSpec(dtype="float32", shape=(self.points, 3), **shared),
            "category": FieldSpec(dtype="uint8", shape=(1,), **shared),
        }


def pictures_of(mesh: ColouredMesh, layout: Layout, rng: Generator) -> dict[str, NDArray[Any]]:
    """Draw an object: the fields of :meth:`Layout.fields` but for its category.

    ``image`` is (images, 3, S, S) bytes, the others are (1, …).

    Args:
        mesh: within the cube [−1/2, 1/2]³.
        layout: what to draw.
        rng: the only source of chance.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    vertices, faces = torch.from_numpy(mesh.vertices).float(), torch.from_numpy(mesh.faces)
    low, high = (math.radians(value) for value in layout.elevation)
    # One from each sector around the object, in any order of heights.
    sector = (torch.arange(layout.images) + torch.rand(layout.images, generator=generator)) / layout.images
    height = low + (high - low) * torch.rand(layout.images, generator=generator)
    seen = looking_from(2 * math.pi * sector, height)
    colours = torch.from_numpy(mesh.colours).float()
    image = colour_views(vertices, faces, colours, seen, layout.image_size).image
    assert image is not None
    novel = random_views(layout.novel, generator)
    sides = torch.cat((fixed_views(layout.fixed), novel))
    depth = depth_views(vertices, faces, sides, layout.depth_size).depth.numpy()[None]
    return {
        "image": (image * 255).round().byte().numpy(),
        "fixed_depth": depth[:, : layout.fixed],
        "novel_depth": depth[:, layout.fixed :],
        "novel_view": novel.numpy()[None],
        "cloud": sample_surface(mesh.vertices, mesh.faces, layout.points, rng)[None],
    }
