"""What may be drawn: every check raises a ValueError that names the argument, what was found and what is expected."""

from __future__ import annotations

import torch
from torch import Tensor


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
