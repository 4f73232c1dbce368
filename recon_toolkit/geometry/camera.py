"""The pinhole camera: at the origin, looking along +z, x right, y down; integer pixels are pixel centres."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
