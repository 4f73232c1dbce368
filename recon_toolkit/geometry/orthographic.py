"""Orthographic viewpoints: where a point of the object lands in a picture, and back.

An object lies in the cube [−1/2, 1/2]³ of its own frame, z up, as Blender has it. A viewpoint is a unit quaternion
(a, b, c, d), scalar first, that turns the object before a camera which looks along −z; pictures have our convention: x
right, y down, z forward, the object's middle at depth ``DISTANCE``. A picture of n × n pixels shows the unit square, so
pixel (u, v), integers at pixel centres, is x = (u + 1/2)/n − 1/2, y = (v + 1/2)/n − 1/2. There is no perspective: Lin,
Kong and Lucey (AAAI 2018) draw so.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Depth of the object's middle in every view.
DISTANCE = 1.0
#: The eight corners of a cube, from which the published network sees the object (Lin et al., code).
FIXED_VIEWS = (
    (0.33985, -0.17592, -0.42471, -0.82047),
    (0.42471, -0.82047, -0.33985, -0.17592),
    (0.17592, -0.33985, 0.82047, 0.42471),
    (0.82047, -0.42471, 0.17592, 0.33985),
    (0.17592, -0.33985, -0.82047, -0.42471),
    (0.82047, -0.42471, -0.17592, -0.33985),
    (0.33985, -0.17592, 0.42471, 0.82047),
    (0.42471, -0.82047, 0.33985, 0.17592),
)


def fixed_views(count: int = 8) -> Tensor:
    """The first ``count`` of the eight fixed viewpoints as unit quaternions (count, 4) float32.

    Raises:
        ValueError: there are fewer.
    """
    if not 1 <= count <= len(FIXED_VIEWS):
        raise ValueError(f"there are {len(FIXED_VIEWS)} fixed views, not {count}")
    views = torch.tensor(FIXED_VIEWS[:count], dtype=torch.float64)
    return torch.nn.functional.normalize(views, dim=1).float()


def camera_rotation(quaternion: Tensor) -> Tensor:
    """The rotation (…, 3, 3) from the object's frame to the picture's (x right, y down, z forward).

    Args:
        quaternion: (…, 4), scalar first; taken to unit length.
    """
    a, b, c, d = torch.nn.functional.normalize(quaternion, dim=-1).unbind(-1)
    rows = (
        (1 - 2 * (c * c + d * d), 2 * (b * c - a * d), 2 * (b * d + a * c)),
        # The camera looks along −z with y up; a picture's y points down and its z forward.
        (-2 * (b * c + a * d), 2 * (b * b + d * d) - 1, -2 * (c * d - a * b)),
        (-2 * (b * d - a * c), -2 * (c * d + a * b), 2 * (b * b + c * c) - 1),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def random_views(count: int, generator: torch.Generator) -> Tensor:
    """Viewpoints evenly distributed over all rotations: unit quaternions (count, 4)."""
    return torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=1)


def to_picture(points: Tensor, quaternion: Tensor, size: int) -> Tensor:
    """Points of the object → pixel coordinates and depth.

    Args:
        points: (B, N, 3) in the object's frame.
        quaternion: (B, V, 4), the views.
        size: pixels along a side.

    Returns:
        (B, V, N, 3): column, row, depth.
    """
    rotation = camera_rotation(quaternion)[:, :, None]  # (B, V, 1, 3, 3)
    x, y, z = points[:, None, :, :].unbind(-1)
    # Sums in this order, so that kernels that do the same agree to the last bit on the pixel a point lands in.
    seen = [rotation[..., i, 0] * x + rotation[..., i, 1] * y + rotation[..., i, 2] * z for i in range(3)]
    middle = (size - 1) / 2
    return torch.stack((seen[0] * size + middle, seen[1] * size + middle, seen[2] + DISTANCE), dim=-1)


def to_object(pixels: Tensor, quaternion: Tensor, size: int) -> Tensor:
    """Pixel coordinates and depth → points of the object: the inverse of :func:`to_picture`.

    Args:
        pixels: (B, V, N, 3): column, row, depth in each view.
        quaternion: (V, 4) or (B, V, 4).
        size: pixels along a side.

    Returns:
        (B, V, N, 3) in the object's frame.
    """
    seen = torch.cat(((pixels[..., :2] - (size - 1) / 2) / size, pixels[..., 2:] - DISTANCE), dim=-1)
    return seen @ camera_rotation(quaternion)  # row vectors: R⁻¹ x = xᵀ R


def looking_from(azimuth: Tensor, elevation: Tensor) -> Tensor:
    """Viewpoints upright around the object: unit quaternions (…, 4).

    Args:
        azimuth: radians about the object's z axis; 0 looks along +y, at what faces −y.
        elevation: radians above the horizontal plane.
    """
    turn, tilt = -azimuth / 2, (elevation - torch.pi / 2) / 2
    # First about z, then about x: the product of (cos tilt, sin tilt, 0, 0) and (cos turn, 0, 0, sin turn).
    return torch.stack(
        (
            torch.cos(tilt) * torch.cos(turn),
            torch.sin(tilt) * torch.cos(turn),
            -torch.sin(tilt) * torch.sin(turn),
            torch.cos(tilt) * torch.sin(turn),
        ),
        dim=-1,
    )
