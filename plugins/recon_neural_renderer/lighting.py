"""Flat Lambert shading: one ambient and one directional light, one value per face."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from recon_neural_renderer.cameras import SHORTEST, Vector, batch_vectors


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
