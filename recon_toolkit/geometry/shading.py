"""Lambertian shading with one ambient and one directional light."""

from __future__ import annotations

from torch import Tensor


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
