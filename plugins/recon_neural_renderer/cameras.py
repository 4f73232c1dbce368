"""Cameras of Neural Renderer: from world vertices to (x, y, z) with x and y in [−1, 1] on the screen, y up, z depth.

Gradients flow to vertices and to camera parameters. A vertex at or behind the camera gets finite x and y that mean
nothing; faces with such a corner are not drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Vector = Tensor | Sequence[float]

#: Below this length a direction is not normalised, as in the original.
SHORTEST = 1e-5


def as_tensor(value: Vector, like: Tensor) -> Tensor:
    """A tensor of the vertices' type and device; gradients are kept."""
    if isinstance(value, Tensor):
        return value.to(dtype=like.dtype, device=like.device)
    return torch.tensor(value, dtype=like.dtype, device=like.device)


def batch_vectors(value: Vector, name: str, like: Tensor) -> Tensor:
    """A vector (3,) or one per mesh (B, 3) as (B, 3) or (1, 3)."""
    vector = as_tensor(value, like)
    if vector.shape not in ((3,), (1, 3), (len(like), 3)):
        raise ValueError(f"{name} must be (3,) or (B, 3) with B = {len(like)}, not {tuple(vector.shape)}")
    if not bool(vector.detach().isfinite().all()):
        raise ValueError(f"{name} must be finite, but holds NaN or infinity")
    return vector.reshape(-1, 3)


def look(
    vertices: Tensor,  # [B, V, 3]
    eye: Vector,
    direction: Vector = (0.0, 0.0, 1.0),
    up: Vector = (0.0, 1.0, 0.0),
) -> Tensor:  # [B, V, 3]
    """Vertices in the frame of a camera at ``eye`` that looks along ``direction``: x right, y up, z forward.

    Args:
        vertices: (B, V, 3) in the world.
        eye, direction, up: (3,) or (B, 3); ``up`` must not be parallel to ``direction``.

    Raises:
        ValueError: a shape is wrong, a value is not finite, or ``direction`` is 0 or parallel to ``up``.
    """
    origin, ahead = batch_vectors(eye, "eye", vertices), batch_vectors(direction, "direction", vertices)
    above = batch_vectors(up, "up", vertices)
    z_axis = F.normalize(ahead, eps=SHORTEST)
    count = max(len(z_axis), len(above))
    side = torch.linalg.cross(above.expand(count, 3), z_axis.expand(count, 3))
    if bool((side.detach().norm(dim=1) < SHORTEST).any()):
        raise ValueError("direction must not be 0 nor parallel to up: there is no camera frame")
    x_axis = F.normalize(side, eps=SHORTEST)
    y_axis = F.normalize(torch.linalg.cross(z_axis.expand_as(x_axis), x_axis), eps=SHORTEST)
    rotation = torch.stack((x_axis, y_axis, z_axis.expand_as(x_axis)), dim=1)
    return (vertices - origin[:, None]) @ rotation.transpose(1, 2)


def look_at(
    vertices: Tensor,  # [B, V, 3]
    eye: Vector,
    at: Vector = (0.0, 0.0, 0.0),
    up: Vector = (0.0, 1.0, 0.0),
) -> Tensor:  # [B, V, 3]
    """As :func:`look`, towards the point ``at``."""
    target, origin = batch_vectors(at, "at", vertices), batch_vectors(eye, "eye", vertices)
    return look(vertices, origin, target - origin, up)


def perspective(vertices: Tensor, angle: float = 30.0) -> Tensor:
    """Perspective division: x / (z tan angle), likewise y; ``angle`` is half of the field of view, in degrees."""
    x, y, z = vertices.unbind(-1)
    scale = torch.where(z > 0, z, 1) * math.tan(math.radians(angle))
    return torch.stack((x / scale, y / scale, z), dim=-1)


def project(
    vertices: Tensor,  # [B, V, 3]
    K: Tensor,  # [B or 1, 3, 3]
    R: Tensor,  # [B or 1, 3, 3]
    t: Tensor,  # [B or 1, 1, 3]
    dist_coeffs: Tensor | None = None,  # [B or 1, 5]
    orig_size: float = 1024,
) -> Tensor:  # [B, V, 3]
    """A calibrated camera: p = R X + t, (u, v) = K distort(p / z), scaled from [0, orig_size] to the screen.

    An integer u lies on the edge of a pixel, not on its centre: pixel i shows u = (i + 1/2) · orig_size / image_size.

    Args:
        vertices: (B, V, 3) in the world.
        K: (B, 3, 3) intrinsic matrix in pixels of the original picture.
        R, t: (B, 3, 3) and (B, 1, 3), world to camera (x right, y down, z forward).
        dist_coeffs: (B, 5) k1, k2, p1, p2, k3 of OpenCV's order.
        orig_size: side of the original picture in pixels.
    """
    points = vertices @ R.transpose(1, 2) + t
    z = points[..., 2]
    safe = torch.where(z > 0, z, 1) + 1e-9
    x, y = points[..., 0] / safe, points[..., 1] / safe
    if dist_coeffs is not None:
        k1, k2, p1, p2, k3 = dist_coeffs[:, None].unbind(-1)
        r2 = x * x + y * y
        radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
        x, y = (
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        )
    uv = torch.stack((x, y, torch.ones_like(x)), dim=-1) @ K.transpose(1, 2)
    u, v = uv[..., 0], orig_size - uv[..., 1]
    return torch.stack((2 * u / orig_size - 1, 2 * v / orig_size - 1, z), dim=-1)


def points_from_angles(distance: Vector | float, elevation: Vector | float, azimuth: Vector | float) -> Tensor:
    """Positions (..., 3) on a sphere about the origin; angles in degrees, (distance, 0, 0) is (0, 0, −distance)."""
    parts = [torch.as_tensor(v) for v in (distance, elevation, azimuth)]
    d, e, a = torch.broadcast_tensors(*parts)  # type: ignore[no-untyped-call]
    e, a = torch.deg2rad(e), torch.deg2rad(a)
    return torch.stack((d * e.cos() * a.sin(), d * e.sin(), -d * e.cos() * a.cos()), dim=-1)
