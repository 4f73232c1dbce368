"""What a predicted cloud must beat: the mean shape, and the object of the most similar training image.

The mean shape is the best answer of a network that does not look at its image: of the depth maps in the fixed views of
all training objects of a category, at each pixel the mask of the majority and the median depth where it holds, fused
to a cloud.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from recon_toolkit.data.packed import PackedImages, evenly_spread
from recon_toolkit.geometry.orthographic import fixed_views, to_object

#: Objects whose depth maps are enough for a mean.
MEAN_OF = 500
#: Pixels a side at which images are compared.
COMPARED_AT = 32
_CHUNK = 4096


def mean_shape(depth: Tensor) -> Tensor:
    """The cloud (N, 3) of the mean of depth maps (M, V, S, S) in the first V fixed views; 0 is where nothing is.

    Where the majority agrees on no pixel at all, the pixels that most objects cover are taken.
    """
    share = (depth > 0).float().mean(0)
    covered = share > 0.5 if bool((share > 0.5).any()) else share == share.max()
    middle = torch.where(depth > 0, depth, torch.nan).nanmedian(0).values
    return fused(middle[None].where(covered, 0.0))[0]


def fused(depth: Tensor) -> list[Tensor]:
    """The clouds (N, 3) of depth maps (B, V, S, S) in the fixed views."""
    batch, views, size = depth.shape[:3]
    axis = torch.arange(size, dtype=depth.dtype)
    row, column = torch.meshgrid(axis, axis, indexing="ij")
    pixels = torch.stack((column.expand_as(depth), row.expand_as(depth), depth), dim=-1).flatten(2, 3)
    points = to_object(pixels, fixed_views(views).to(depth.dtype), size).flatten(1, 2)
    return [cloud[keep] for cloud, keep in zip(points, (depth > 0).view(batch, -1), strict=True)]


class Baselines:
    """The baselines that training data give.

    Args:
        learned: with images, and the fields ``fixed_depth``, ``cloud`` and ``category``.
    """

    def __init__(self, learned: PackedImages) -> None:
        self.learned = learned
        each = learned.index.fields["cloud"].each
        self.first = np.arange(0, len(learned), each)  # an image of each object
        self.each = each

    @cached_property
    def categories(self) -> NDArray[np.int64]:
        """The category of each training object."""
        found = [
            self.learned.batch(chunk, ("image", "category")).extra["category"] for chunk in self._chunks(self.first)
        ]
        return torch.cat(found)[:, 0].long().numpy()

    @cached_property
    def mean_shapes(self) -> dict[int, Tensor]:
        """The mean shape (N, 3) of each category."""
        shapes = {}
        for category in np.unique(self.categories):
            own = self.first[self.categories == category]
            own = own[evenly_spread(len(own), MEAN_OF)]
            depth = [
                self.learned.batch(chunk, ("image", "fixed_depth")).extra["fixed_depth"] for chunk in self._chunks(own)
            ]
            shapes[int(category)] = mean_shape(torch.cat(depth))
        return shapes

    @cached_property
    def _images(self) -> Tensor:
        every = np.arange(len(self.learned))
        return torch.cat([_small(self.learned.batch(chunk, ("image",)).image) for chunk in self._chunks(every)])

    @cached_property
    def _squares(self) -> Tensor:
        return self._images.square().sum(1)

    def retrieved(self, image: Tensor) -> NDArray[np.int64]:
        """For images (B, 3, H, W) the training object, by its first image, that one of the nearest image is of."""
        small = _small(image.cpu())
        nearest = (self._squares - 2 * small @ self._images.T).argmin(1)
        return np.asarray(nearest.numpy() // self.each * self.each, dtype=np.int64)

    def cloud(self, image: int) -> Tensor:
        """The true cloud (N, 3) of a training image."""
        return self.learned.batch(np.array([image]), ("image", "cloud")).extra["cloud"][0]

    @staticmethod
    def _chunks(indices: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return [indices[start : start + _CHUNK] for start in range(0, len(indices), _CHUNK)]


def _small(image: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(image, min(COMPARED_AT, image.shape[-1])).flatten(1)
