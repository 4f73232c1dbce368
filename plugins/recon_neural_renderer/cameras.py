"""Cameras of Neural Renderer, its flat lighting, and checks of what may be drawn."""

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


def lambert_light(
    corners: Tensor,  # [B, F, 3, 3]
    *,
    ambient: float = 0.5,
    directional: float = 0.5,
    ambient_colour: Vector = (1.0, 1.0, 1.0),
    directional_colour: Vector = (1.0, 1.0, 1.0),
    direction: Vector = (0.0, 1.0, 0.0),
) -> Tensor:  # [B, F, 3]
    """Factor of every face's colours: ambient · colour + directional · colour · max(0, n·direction).

    n = (p0 − p1) × (p2 − p1), normalised, is the original's normal. The light shines from ``direction``.
    Differentiable with respect to the corners and to colours and direction given as tensors.

    Args:
        corners: (B, F, 3 corners, 3) in the world.
        ambient, directional: strengths.
        ambient_colour, directional_colour, direction: (3,) or (B, 3).
    """
    normals = F.normalize(
        (corners[:, :, 0] - corners[:, :, 1]).cross(corners[:, :, 2] - corners[:, :, 1], dim=-1), dim=-1, eps=SHORTEST
    )
    towards = batch_vectors(direction, "light_direction", corners)[:, None]
    cosine = (normals * towards).sum(-1, keepdim=True).relu()
    return (
        ambient * batch_vectors(ambient_colour, "light_color_ambient", corners)[:, None]
        + directional * batch_vectors(directional_colour, "light_color_directional", corners)[:, None] * cosine
    )


def _finite(value: Tensor, name: str) -> None:
    if not bool(value.detach().isfinite().all()):
        raise ValueError(f"{name} must be finite, but holds NaN or infinity")


def check_vertices(vertices: Tensor) -> None:
    """(B, V, 3), float32 or float64, finite, at least one mesh and one vertex."""
    if not isinstance(vertices, Tensor) or vertices.ndim != 3 or vertices.shape[2] != 3 or not vertices.numel():
        found = tuple(vertices.shape) if isinstance(vertices, Tensor) else type(vertices).__name__
        raise ValueError(f"vertices must be a tensor (B, V, 3) with B and V at least 1, not {found}")
    if vertices.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"vertices must be float32 or float64, not {vertices.dtype}")
    _finite(vertices, "vertices")


def check_faces(faces: Tensor, vertices: Tensor) -> Tensor:
    """(F, 3) or (B, F, 3) of int32 or int64 with indices below V; returned as (1 or B, F, 3)."""
    if not isinstance(faces, Tensor) or faces.ndim not in (2, 3) or faces.shape[-1] != 3:
        found = tuple(faces.shape) if isinstance(faces, Tensor) else type(faces).__name__
        raise ValueError(f"faces must be a tensor (F, 3) or (B, F, 3), not {found}")
    if faces.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"faces must be int32 or int64, not {faces.dtype}")
    if not faces.numel():
        raise ValueError("faces must hold at least one face, not none")
    if faces.ndim == 3 and len(faces) not in (1, len(vertices)):
        raise ValueError(f"faces are for {len(faces)} meshes, but vertices for {len(vertices)}")
    _same_device(faces, "faces", vertices)
    low, high = int(faces.min()), int(faces.max())
    if low < 0 or high >= vertices.shape[1]:
        raise ValueError(f"faces must name vertices in 0..{vertices.shape[1] - 1}, but reach from {low} to {high}")
    return faces if faces.ndim == 3 else faces[None]


def check_textures(textures: Tensor, faces: Tensor, vertices: Tensor) -> Tensor:
    """(B, F, t, t, t, 3) of the vertices' type; one set may serve the batch. Returned as (B, F, t, t, t, 3)."""
    count = faces.shape[1]
    if not isinstance(textures, Tensor):
        raise ValueError(f"textures must be a tensor (B, F, t, t, t, 3), not {type(textures).__name__}")
    shape = tuple(textures.shape)
    t = shape[2] if len(shape) == 6 else 0
    if t < 1 or shape[1:] != (count, t, t, t, 3) or shape[0] not in (1, len(vertices)):
        raise ValueError(
            f"textures must be (B, F, t, t, t, 3) with B = {len(vertices)}, F = {count} and t at least 1, not {shape}"
        )
    if textures.dtype != vertices.dtype:
        raise ValueError(f"textures must be {vertices.dtype} as the vertices, not {textures.dtype}")
    _same_device(textures, "textures", vertices)
    _finite(textures, "textures")
    return textures.expand(len(vertices), -1, -1, -1, -1, -1)


def check_camera_matrix(value: Tensor | None, name: str, shape: tuple[int, ...], vertices: Tensor) -> Tensor:
    """(B, *shape), or shape alone for all meshes, as (B or 1, *shape) of the vertices' type and device."""
    if value is None:
        raise ValueError(f"{name} must be given for camera_mode 'projection': (B, {', '.join(map(str, shape))})")
    matrix = torch.as_tensor(value).to(dtype=vertices.dtype, device=vertices.device)
    if matrix.shape == shape:
        matrix = matrix[None]
    if matrix.shape[1:] != shape or len(matrix) not in (1, len(vertices)):
        expected = ", ".join(map(str, shape))
        raise ValueError(f"{name} must be (B, {expected}) with B = {len(vertices)}, not {tuple(matrix.shape)}")
    _finite(matrix, name)
    return matrix


def check_in_front(projected: Tensor) -> None:
    """Every mesh has a vertex before the camera."""
    behind = ~(projected[..., 2].detach() > 0).any(1)
    if bool(behind.any()):
        which = behind.nonzero()[0].item()
        raise ValueError(
            f"vertices of mesh {which} lie wholly behind the camera: the camera must be placed so that some have z > 0"
        )


def check_size(image_size: int) -> None:
    """A picture has at least one pixel."""
    if isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < 1:
        raise ValueError(f"image_size must be a whole number of pixels, 1 or more, not {image_size}")


def check_limits(near: float, far: float, eps: float | None) -> None:
    """0 < near < far < ∞ and eps > 0."""
    if not 0 < near < far < float("inf"):
        raise ValueError(f"near and far must be finite with 0 < near < far, not {near} and {far}")
    if eps is not None and not 0 < eps < float("inf"):
        raise ValueError(f"eps must be above 0 and finite, not {eps}")


def _same_device(value: Tensor, name: str, vertices: Tensor) -> None:
    if value.device != vertices.device:
        raise ValueError(f"{name} are on {value.device}, but the vertices on {vertices.device}: move one of them")
