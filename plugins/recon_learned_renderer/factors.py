"""Synthetic factors to learn rendering from: objects from a data set, views and lights drawn by the image's index."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recon_toolkit import Batch, ReconError


@dataclass(frozen=True)
class Factors:
    """What a renderer is given, for B objects."""

    depth: Tensor  # (B, H, W) canonical, within the depth range
    albedo: Tensor  # (B, 3, H, W) canonical, in [0, 1]
    light: Tensor  # (B, 5): ambient, diffuse, direction (3, unit)
    view: Tensor  # (B, 6): rotation x, y, z in radians, translation x, y, z


@dataclass(frozen=True)
class Ranges:
    """What views and lights are drawn from, evenly.

    Args:
        rotation: largest angle about x, y and z, in degrees.
        translation: largest shift along x, y and z.
        ambient, diffuse: strengths of the light.
        side_light: light travels along normalise(x, y, 1) with x and y within ± this.
    """

    rotation: tuple[float, float, float]
    translation: tuple[float, float, float]
    ambient: tuple[float, float]
    diffuse: tuple[float, float]
    side_light: float


def draw(indices: Tensor, ranges: Ranges, seed: int, stream: int) -> tuple[Tensor, Tensor]:
    """Light (B, 5) and view (B, 6) of images, each from a generator of its own.

    An image's numbers depend on its index, the seed and the stream, not on the batch that it comes in; so a run goes
    on as it would have, and threads may divide a batch.

    Args:
        indices: (B,) positions in a split, 0 or more.
        ranges: what to draw from.
        seed: 0 or more.
        stream: 0 for training, 1 for scoring.
    """
    numbers = np.empty((len(indices), 10))
    for row, index in enumerate(indices.tolist()):
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, stream, int(index)))))
        numbers[row] = generator.random(10)
    unit = torch.from_numpy(numbers).to(torch.float32)
    signed = unit[:, :6] * 2 - 1
    limits = [math.radians(angle) for angle in ranges.rotation] + list(ranges.translation)
    view = signed * torch.tensor(limits)
    strengths = [
        low + (high - low) * value
        for (low, high), value in zip((ranges.ambient, ranges.diffuse), unit[:, 6:8].unbind(1), strict=True)
    ]
    side = (unit[:, 8:] * 2 - 1) * ranges.side_light
    direction = F.normalize(torch.cat((side, torch.ones(len(side), 1)), dim=1), dim=1)
    light = torch.cat((torch.stack(strengths, 1), direction), dim=1)
    return light.to(indices.device), view.to(indices.device)


def canonical_object(batch: Batch, depth_range: tuple[float, float], border_depth: float) -> tuple[Tensor, Tensor]:
    """Canonical depth (B, H, W) and albedo (B, 3, H, W): the true ones on the object.

    Around it there is a plane at ``border_depth`` with the picture's own colours, as a model that explains whole
    photographs has it; where the data set has no albedo the picture's colours stand in for it.

    Raises:
        ReconError: the data set has no true depth.
    """
    if batch.depth is None:
        raise ReconError(
            "the model learned-renderer needs true depth, which the data set does not have",
            where="dataset",
            remedy="use one with depth, such as synthetic-faces or depth-pairs",
        )
    mask = torch.ones_like(batch.depth, dtype=torch.bool) if batch.mask is None else batch.mask.bool()
    mask = mask & batch.depth.isfinite()
    depth = batch.depth.where(mask, border_depth).clamp(*depth_range)
    albedo = batch.image if batch.albedo is None else batch.albedo.where(mask[:, None], batch.image)
    return depth, albedo.clamp(0, 1)
