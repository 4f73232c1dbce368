"""Clouds of points as small pictures for contact sheets: seen from two sides, near bright and far dark."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from recon_toolkit.export.pictures import depth_picture
from recon_toolkit.geometry.orthographic import looking_from, to_picture

#: Sides that clouds are seen from: label, azimuth and elevation in degrees. 0 looks at what faces −y.
SIDES = (("from the front", 30.0, 25.0), ("from behind", 210.0, 25.0))


def cloud_pictures(clouds: Sequence[Tensor], size: int, *, label: str = "") -> dict[str, Tensor]:
    """Clouds from each of :data:`SIDES`: label → (B, 1, size, size) in [0, 1]; where no point lands it is black.

    Args:
        clouds: B of them, (N, 3) each, in the object's frame about the unit cube.
        size: of the pictures in pixels.
        label: before that of the side.
    """
    angles = torch.tensor([side[1:] for side in SIDES]) * (math.pi / 180)
    views = looking_from(angles[:, 0], angles[:, 1])[None]
    depth = torch.stack([_nearest(cloud.detach().float().cpu(), views, size) for cloud in clouds])
    return {
        f"{label}{name}": depth_picture(depth[:, place], depth[:, place].isfinite())
        for place, (name, *_) in enumerate(SIDES)
    }


def _nearest(points: Tensor, views: Tensor, size: int) -> Tensor:
    """The nearest depth in each pixel, (V, size, size); infinite where no point lands."""
    column, row, depth = to_picture(points[None], views, size)[0].unbind(-1)  # (V, N) each
    i, j = (row + 0.5).floor().long(), (column + 0.5).floor().long()
    inside = (i >= 0) & (i < size) & (j >= 0) & (j < size)
    flat = torch.where(inside, i * size + j, size * size)  # what lies outside goes to a cell of its own
    canvas = torch.full((len(flat), size * size + 1), torch.inf)
    return canvas.scatter_reduce(1, flat, depth, "amin")[:, :-1].view(-1, size, size)
