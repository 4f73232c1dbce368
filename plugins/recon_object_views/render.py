"""Orthographic pictures of a mesh from many sides: colour, depth and mask, with the toolkit's rasteriser."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recon_toolkit.geometry.orthographic import camera_rotation, to_picture
from recon_toolkit.rendering import rasterize

#: The rasteriser interpolates 1/z in a straight line across a picture, as perspective has it. With 1/(far − depth) for
#: z, it is the depth of an orthographic picture that is interpolated so. Beyond all depths of objects in the unit cube.
_BEYOND = 3.0


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
    depth, mask, _ = _fragments(vertices, faces, quaternion, size)
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
    fine = size * supersampling
    depth, mask, face = _fragments(vertices, faces, quaternion, fine)
    corners = vertices[faces.long()]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal = torch.nn.functional.normalize(normal, dim=1)
    turned = normal @ camera_rotation(quaternion).mT  # (V, F, 3)
    facing = torch.where(turned[..., 2:] > 0, -turned, turned)  # towards the camera, whatever way the face winds
    towards = torch.nn.functional.normalize(torch.tensor(lamp.towards, dtype=vertices.dtype), dim=0)
    lit = (colours * (lamp.ambient + lamp.diffuse * (facing @ towards).clamp(min=0))[..., None]).clamp(max=1)
    views = len(quaternion)
    flat = face.clamp(min=0).long().view(views, -1, 1).expand(-1, -1, 3)
    picture = lit.gather(1, flat).view(views, fine, fine, 3)
    picture = torch.where(mask[..., None], picture, background).permute(0, 3, 1, 2)
    image = torch.nn.functional.avg_pool2d(picture, supersampling)
    middle = slice(supersampling // 2, None, supersampling)
    return Views(depth[:, middle, middle], mask[:, middle, middle], image)


def _fragments(vertices: Tensor, faces: Tensor, quaternion: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    seen = to_picture(vertices[None], quaternion[None], size)[0]
    drawn = torch.cat((seen[..., :2], 1 / (_BEYOND - seen[..., 2:])), dim=-1)
    found = rasterize(drawn, faces, size, size)
    mask = found.face >= 0
    depth = torch.where(mask, _BEYOND - 1 / torch.where(mask, found.depth, 1.0), 0.0)
    return depth, mask, found.face
