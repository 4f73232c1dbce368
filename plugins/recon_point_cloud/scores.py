"""The metrics of a cloud, and the baselines that it must beat: the mean shape, the most similar training image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from recon_point_cloud.model import MEAN, NOVEL, RETRIEVED, SHEET, THRESHOLDS
from recon_point_cloud.splat import pseudo_render
from recon_toolkit import Batch
from recon_toolkit.data.packed import PackedImages, evenly_spread
from recon_toolkit.geometry.orthographic import fixed_views, to_object
from recon_toolkit.metrics import Scored
from recon_toolkit.metrics.clouds import cloud_metrics
from recon_toolkit.threads import given

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


class CloudScorer:
    """Scores clouds of batches with the fields of :data:`~recon_point_cloud.model.SHEET`.

    Baselines are scored on every image too; what they share between images is computed once.

    Args:
        clouds: images (B, 3, H, W) in [0, 1] → the predicted cloud (N, 3) of each.
        learned: what the model was trained on; without its fields there are no baselines.
        upsampling: of the pseudo-rendering in novel views.
    """

    def __init__(self, clouds: Callable[[Tensor], list[Tensor]], learned: PackedImages, *, upsampling: int = 5) -> None:
        self.clouds, self.upsampling = clouds, upsampling
        known = {"fixed_depth", "cloud", "category"} <= set(learned.fields)
        self.baselines = Baselines(learned) if known else None
        self.names = list(learned.index.provenance.get("categories", []))
        self._seen: dict[tuple[str, int, bytes], tuple[float, ...]] = {}

    def __call__(self, batch: Batch) -> Scored:
        """The scores of a batch; an image whose cloud is empty has NaN for distances and 0 for shares."""
        truth = _Truth.of(batch)
        found = self._rows(self.clouds(batch.image), truth)
        category = batch.of("category", "a score of clouds")[:, 0].long().tolist()
        words = [self.names[number] if number < len(self.names) else f"category {number}" for number in category]
        return Scored(_table(found), self._of_baselines(batch, truth, category), words)

    def _of_baselines(self, batch: Batch, truth: _Truth, category: list[int]) -> dict[str, dict[str, Tensor]]:
        if self.baselines is None:
            return {}
        means = self.baselines.mean_shapes
        # A category that was not trained on has no mean of its own.
        whole = torch.cat(list(means.values())) if len(means) > 1 else next(iter(means.values()))
        known = self.baselines
        answers: dict[str, Callable[[int], Tensor]] = {
            MEAN: lambda number: means.get(number, whole),
            RETRIEVED: known.cloud,
        }
        chosen = {MEAN: category, RETRIEVED: known.retrieved(batch.image).tolist()}
        return {who: _table(self._remembered(who, chosen[who], answers[who], truth)) for who in answers}

    def _remembered(
        self, who: str, numbers: list[int], answer: Callable[[int], Tensor], truth: _Truth
    ) -> list[tuple[float, ...]]:
        """Rows of a baseline, whose answer number n is compared with one object once, whatever image it is for."""
        keys = [(who, number, name) for number, name in zip(numbers, truth.names, strict=True)]
        new = {key: place for place, key in enumerate(keys) if key not in self._seen}
        places = list(new.values())
        rows = self._rows([answer(numbers[place]) for place in places], truth.at(places)) if places else []
        self._seen |= dict(zip(new, rows, strict=True))
        return [self._seen[key] for key in keys]

    def _rows(self, clouds: list[Tensor], truth: _Truth) -> list[tuple[float, ...]]:
        pairs = [(cloud.cpu().numpy(), true.cpu().numpy()) for cloud, true in zip(clouds, truth.cloud, strict=True)]
        with ThreadPoolExecutor(given().count) as pool:
            rows = list(pool.map(lambda pair: _row(*pair), pairs))
        depth, iou = self._novel(clouds, truth)
        return [(*row, *more) for row, more in zip(rows, zip(depth.tolist(), iou.tolist(), strict=True), strict=True)]

    def _novel(self, clouds: list[Tensor], truth: _Truth) -> tuple[Tensor, Tensor]:
        """Mean absolute depth error × 100 where both are, and the masks' intersection over union, (B,) each."""
        true = truth.depth
        found = torch.zeros_like(true)
        for number, cloud in enumerate(clouds):
            if len(cloud):
                points = cloud.to(true)[None]
                seen = pseudo_render(
                    points, torch.ones_like(points[..., 0]), truth.view[number : number + 1], true.shape[-1],
                    upsampling=self.upsampling,
                )  # fmt: skip
                found[number] = seen.depth[0]
        both, either = (found > 0) & (true > 0), (found > 0) | (true > 0)
        error = torch.where(both, (found - true).abs(), 0).double().sum((1, 2, 3))
        amount = both.sum((1, 2, 3))
        depth = 100 * torch.where(amount > 0, error / amount, torch.nan)
        return depth.cpu(), (amount / either.sum((1, 2, 3)).clamp(min=1)).double().cpu()


@dataclass(frozen=True)
class _Truth:
    """What the clouds of B images are compared with: points (B, M, 3), and depth (B, V, S, S) in views (B, V, 4)."""

    cloud: Tensor
    depth: Tensor
    view: Tensor
    names: list[bytes]  # of the objects, equal for equal objects

    @classmethod
    def of(cls, batch: Batch) -> _Truth:
        who = "a score of clouds"
        cloud = batch.of("cloud", who)
        names = [hashlib.sha256(points.cpu().numpy().tobytes()).digest() for points in cloud]
        return cls(cloud, batch.of("novel_depth", who)[:, :NOVEL], batch.of("novel_view", who)[:, :NOVEL], names)

    def at(self, places: list[int]) -> _Truth:
        return _Truth(
            self.cloud[places], self.depth[places], self.view[places], [self.names[place] for place in places]
        )


def _table(rows: list[tuple[float, ...]]) -> dict[str, Tensor]:
    values = torch.tensor(rows, dtype=torch.float64).view(len(rows), len(SHEET.metrics))
    return {metric.name: values[:, place] for place, metric in enumerate(SHEET.metrics)}


def _row(cloud: NDArray[Any], truth: NDArray[Any]) -> tuple[float, ...]:
    if not len(cloud):
        return (np.nan, np.nan, np.nan, 0.0, 0.0)
    found = cloud_metrics(cloud, truth, thresholds=THRESHOLDS)
    return (found.to_truth, found.from_truth, found.chamfer, *found.f_scores)
