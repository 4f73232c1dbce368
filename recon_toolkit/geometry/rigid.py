"""Rigid view transforms: the object turns about a centre on the optical axis and then moves.

P' = R (P − c) + c + t with R = Rz·Ry·Rx and c = (0, 0, centre depth) (Wu et al. 2020, code).
"""

from __future__ import annotations

import torch
from torch import Tensor

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
