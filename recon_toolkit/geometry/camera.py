"""The pinhole camera, rigid view transforms, depth maps and shading.

The camera stands at the origin and looks along +z, x right, y down; integer pixels are pixel centres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Camera:
    """A pinhole camera whose field of view spans the centres of the outermost pixels.

    fx = fy = (W − 1) / 2 / tan(fov / 2), cx = (W − 1) / 2, cy = (H − 1) / 2 (Wu et al. 2020, code). Images of
    another size with the same ``fov`` see the same scene: cropping an image narrows the field of view instead.

    Args:
        fov: horizontal field of view in degrees, in (0, 180).
    """

    fov: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.fov < 180:
            raise ValueError(f"a field of view lies between 0 and 180 degrees, not at {self.fov}")

    def focal_length(self, width: int) -> float:
        """Focal length in pixels for an image ``width`` pixels wide."""
        return (width - 1) / 2 / math.tan(math.radians(self.fov) / 2)

    def rays(
        self,
        height: int,
        width: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """K⁻¹ (u, v, 1) for every pixel: (3, H, W), with third component 1."""
        focal = self.focal_length(width)
        x = (torch.arange(width, device=device, dtype=dtype) - (width - 1) / 2) / focal
        y = (torch.arange(height, device=device, dtype=dtype) - (height - 1) / 2) / focal
        return torch.stack(
            (x.expand(height, width), y[:, None].expand(height, width), torch.ones_like(x).expand(height, width))
        )

    def project(self, points: Tensor, height: int, width: int) -> Tensor:
        """Points (B, 3, ...) in camera coordinates → (B, 3, ...): pixel u, v and depth z.

        A point at or behind the camera has no projection: its u and v are finite but mean nothing.
        """
        focal = self.focal_length(width)
        x, y, z = points.unbind(1)
        inverse = focal / torch.where(z > 0, z, 1)
        return torch.stack((x * inverse + (width - 1) / 2, y * inverse + (height - 1) / 2, z), dim=1)


#: Depth of the centre that objects turn about: the object's distance, the unit of length.
ROTATION_CENTRE_DEPTH = 1.0


def rotation_matrix(angles: Tensor) -> Tensor:
    """Rotation R = Rz·Ry·Rx from angles (B, 3) about x, y, z in radians: (B, 3, 3)."""
    cos_x, cos_y, cos_z = torch.cos(angles).unbind(-1)
    sin_x, sin_y, sin_z = torch.sin(angles).unbind(-1)
    rows = (
        cos_z * cos_y,
        cos_z * sin_y * sin_x - sin_z * cos_x,
        cos_z * sin_y * cos_x + sin_z * sin_x,
        sin_z * cos_y,
        sin_z * sin_y * sin_x + cos_z * cos_x,
        sin_z * sin_y * cos_x - cos_z * sin_x,
        -sin_y,
        cos_y * sin_x,
        cos_y * cos_x,
    )
    return torch.stack(rows, dim=-1).reshape(*angles.shape[:-1], 3, 3)


def view_matrix(view: Tensor, centre_depth: float = ROTATION_CENTRE_DEPTH) -> tuple[Tensor, Tensor]:
    """Rotation (B, 3, 3) and offset (B, 3, 1) with P' = R P + offset, from a view.

    Args:
        view: (B, 6): rotation about x, y, z in radians, then translation x, y, z.
        centre_depth: depth of the centre of rotation.
    """
    rotation = rotation_matrix(view[:, :3])
    offset = view[:, 3:, None] - centre_depth * rotation[:, :, 2:]
    centre = torch.zeros_like(offset)
    centre[:, 2] = centre_depth
    return rotation, offset + centre


def transform(points: Tensor, view: Tensor, centre_depth: float = ROTATION_CENTRE_DEPTH) -> Tensor:
    """Canonical points (B, 3, N) → the input view's (B, 3, N)."""
    rotation, offset = view_matrix(view, centre_depth)
    return rotation @ points + offset


def inverse_transform(points: Tensor, view: Tensor, centre_depth: float = ROTATION_CENTRE_DEPTH) -> Tensor:
    """The input view's points (B, 3, N) → canonical (B, 3, N): first −t, then Rᵀ about the centre."""
    rotation, offset = view_matrix(view, centre_depth)
    return rotation.transpose(1, 2) @ (points - offset)


def backproject(depth: Tensor, camera: Camera) -> Tensor:
    """Depth (B, H, W) → camera-space points (B, 3, H, W): P = depth · K⁻¹ (u, v, 1)."""
    rays = camera.rays(depth.shape[-2], depth.shape[-1], device=depth.device, dtype=depth.dtype)
    return depth[:, None] * rays


def normals_from_depth(depth: Tensor, camera: Camera, *, epsilon: float = 0.0) -> Tensor:
    """Unit normals (B, 3, H, W) of a depth map (B, H, W) by central differences of its points.

    n = tu × tv, so a surface that faces the camera has n_z > 0; a border of one pixel is (0, 0, 1)
    (Wu et al. 2020, code). Both sides need at least three pixels.

    Args:
        depth: (B, H, W).
        camera: the depth map's camera.
        epsilon: added to the length |tu × tv| that is divided by. The original's code has 1e-7, which makes normals at
            64 pixels up to 0.4 % too short; 0 makes them unit.
    """
    points = backproject(depth, camera)
    tu = points[:, :, 1:-1, 2:] - points[:, :, 1:-1, :-2]
    tv = points[:, :, 2:, 1:-1] - points[:, :, :-2, 1:-1]
    # The cross product by components: several times faster on the CPU than torch.linalg.cross and F.normalize.
    (ux, uy, uz), (vx, vy, vz) = tu.unbind(1), tv.unbind(1)
    x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    # At 256 pixels |tu × tv|² is about 1e-12: far above the floor, so only true zeros are affected.
    square = (x * x + y * y + z * z).clamp(min=1e-24)
    scale = square.rsqrt() if epsilon == 0 else 1 / (square.sqrt() + epsilon)
    inner = torch.stack((x * scale, y * scale, z * scale), dim=1)
    normals = torch.zeros_like(points)
    normals[:, 2] = 1
    normals[:, :, 1:-1, 1:-1] = inner
    return normals


@lru_cache(maxsize=32)
def _grid_faces(height: int, width: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # kept for later calls, which may take gradients
        index = torch.arange(height * width, dtype=torch.int32, device=device).reshape(height, width)
        v00, v01 = index[:-1, :-1], index[:-1, 1:]
        v10, v11 = index[1:, :-1], index[1:, 1:]
        first = torch.stack((v00, v10, v01), dim=-1)
        second = torch.stack((v01, v10, v11), dim=-1)
        return torch.stack((first, second), dim=2).reshape(-1, 3).contiguous()


def grid_faces(height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Faces (2 (H−1) (W−1), 3) int32 of the mesh over a grid of H × W vertices in row order.

    Each quad gives (v00, v10, v01) and (v01, v10, v11) (Wu et al. 2020, code). The result is
    shared: do not write to it.
    """
    return _grid_faces(height, width, torch.empty(0, device=device).device)  # with its index: cuda:0, not cuda


def lambert(normals: Tensor, direction: Tensor) -> Tensor:
    """max(0, n·l) from unit normals (B, 3, H, W) and unit light directions (B, 3): (B, 1, H, W) in [0, 1]."""
    return (normals * direction[:, :, None, None]).sum(1, keepdim=True).clamp(min=0)


def shade(albedo: Tensor, normals: Tensor, light: Tensor) -> tuple[Tensor, Tensor]:
    """The lit image and its shading: albedo · (ambient + diffuse · max(0, n·l)) (Wu et al. 2020, Eq. 5).

    Args:
        albedo: (B, 3, H, W) in [0, 1].
        normals: (B, 3, H, W) unit vectors.
        light: (B, 5): ambient strength, diffuse strength, unit direction.

    Returns:
        The image (B, 3, H, W), not clamped, and the shading factor (B, 1, H, W).
    """
    ambient, diffuse = light[:, 0, None, None, None], light[:, 1, None, None, None]
    shading = ambient + diffuse * lambert(normals, light[:, 2:])
    return albedo * shading, shading
