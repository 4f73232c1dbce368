"""The model ``point-cloud``: one image becomes a cloud of points, by pictures of coordinates from fixed viewpoints.

Lin, Kong and Lucey, "Learning Efficient Point Cloud Generation for Dense 3D Object Reconstruction", AAAI 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recon_point_cloud.framing import PlainBackground
from recon_point_cloud.sheet import SHEET
from recon_point_cloud.splat import Collisions, pseudo_render
from recon_toolkit import Batch, Model, ModelOutput, Reconstruction, Rendering
from recon_toolkit.data.packed import PackedImages
from recon_toolkit.evaluation.own_scores import Scorer, ScoreSheet
from recon_toolkit.export.cloud_pictures import cloud_pictures
from recon_toolkit.geometry import Camera
from recon_toolkit.geometry.orthographic import DISTANCE, fixed_views, to_object


@dataclass(frozen=True)
class Structure:
    """What the network says of B images.

    Attributes:
        pixels: (B, V, S, S, 3): column, row and depth in each fixed view.
        logits: (B, V, S, S): above 0 where the point is part of the object.
        points: (B, V·S·S, 3): the same points in the object's frame.
    """

    pixels: Tensor
    logits: Tensor
    points: Tensor


class PointCloud(Model):
    """Image → points in the object's frame, with a logit each that says whether they belong to the object.

    The network ``structure`` predicts, for each of the fixed views, how far each pixel's point lies from that pixel
    across and down, and from the object's distance in depth; and a logit of the mask.

    Args:
        encoders: the network by its role, ``structure``: 3 channels in, 4 a view out.
        renderer: ignored; the pseudo-renderer is part of the method and has no parameters.
        camera: ignored; the method's views are orthographic.
        image_size: ignored; the network has it.
        views: how many of the eight fixed views.
        novel_views: how many random views of each object a training step looks at by pseudo-rendering: 0 for the first
            stage, 5 for the second in the paper.
        upsampling, collisions: of :func:`~recon_point_cloud.splat.pseudo_render`.
    """

    scores: ClassVar[ScoreSheet] = SHEET
    #: Pictures to reconstruct show one object on a plain background, as those that the model learns from do.
    detector: ClassVar[PlainBackground] = PlainBackground()

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        renderer: Callable[[Tensor, Tensor, Tensor], Rendering] | None,
        camera: Camera,
        image_size: int,
        *,
        views: int = 8,
        novel_views: int = 0,
        upsampling: int = 5,
        collisions: Collisions = "nearest",
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(dict(encoders))
        self.novel_views, self.upsampling, self.collisions = novel_views, upsampling, collisions
        self.batch_fields = ("image", "novel_view") if novel_views else ("image",)
        self._views: Tensor
        self.register_buffer("_views", fixed_views(views), persistent=False)

    @classmethod
    def encoder_channels(cls, *, views: int = 8, **_options: Any) -> dict[str, tuple[int, int]]:
        """Channels in and out of the one network."""
        return {"structure": (3, 4 * views)}

    def structure(self, images: Tensor) -> Structure:
        """What the network says of images (B, 3, H, W) in [0, 1]."""
        raw = self.encoders["structure"](images * 2 - 1).float()
        batch, count = len(images), len(self._views)
        size = raw.shape[-1]
        maps = raw.view(batch, 4, count, size, size)
        axis = torch.arange(size, device=raw.device, dtype=raw.dtype)
        pixels = torch.stack((maps[:, 0] + axis, maps[:, 1] + axis[:, None], maps[:, 2] + DISTANCE), dim=-1)
        points = to_object(pixels.flatten(2, 3), self._views, size).flatten(1, 2)
        return Structure(pixels, maps[:, 3], points)

    def forward(self, batch: Batch) -> ModelOutput:
        """Coordinates and logits in the fixed views, and depth and logits in some random ones if so set.

        The factors are ``coordinates`` (B, V, S, S, 3) and ``fixed_logits`` (B, V, S, S), and with ``novel_views``
        also ``novel_depth``, ``novel_logits`` (B, K, S, S), ``novel_visible`` (B, K, S, S) bool and ``novel_chosen``
        (B, K) int64, which of the data set's views they are.
        """
        with torch.autocast(batch.image.device.type, enabled=False):
            found = self.structure(batch.image)
        factors = {"coordinates": found.pixels, "fixed_logits": found.logits}
        if self.novel_views:
            views = batch.of("novel_view", "the model 'point-cloud'")
            chosen = _chosen(batch, views.shape[1], self.novel_views)
            seen = pseudo_render(
                found.points,
                found.logits.flatten(1),
                views.gather(1, chosen[..., None].expand(-1, -1, 4)),
                found.logits.shape[-1],
                upsampling=self.upsampling,
                collisions=self.collisions,
            )
            factors |= {"novel_depth": seen.depth, "novel_logits": seen.logits, "novel_chosen": chosen}
            factors |= {"novel_visible": seen.visible}
        return ModelOutput(pairs={}, factors=factors)

    def reconstruct(self, images: Tensor) -> Reconstruction:
        """The cloud that images (B, 3, H, W) in [0, 1] show: all points, with those of the object marked."""
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            found = self.structure(images)
        return Reconstruction(image=images, points=found.points, points_mask=found.logits.flatten(1) > 0)

    def clouds(self, images: Tensor) -> list[Tensor]:
        """The points (N, 3) of each image's object."""
        return self.reconstruct(images).clouds() or []

    def scorer(self, learned: PackedImages) -> Scorer:
        """What scores batches, beside the mean shape and the nearest training image's object."""
        from recon_point_cloud.scores import CloudScorer

        return CloudScorer(self.clouds, learned, upsampling=self.upsampling)

    def sheet_columns(self, batch: Batch) -> Mapping[str, Tensor]:
        """Pictures of a batch for a contact sheet, and the true clouds beside where the data set has them."""
        truth = batch.extra.get("cloud")
        size = batch.image.shape[-1]
        columns = {"input": batch.image} | cloud_pictures(self.clouds(batch.image), size)
        return columns | ({} if truth is None else cloud_pictures(list(truth), size, label="true, "))


def _chosen(batch: Batch, count: int, wanted: int) -> Tensor:
    """Which views of each object are looked at, (B, wanted): at random in training, else the first."""
    wanted = min(wanted, count)
    device = batch.image.device
    if batch.draw is None:
        return torch.arange(wanted, device=device).expand(len(batch), wanted)
    generator = torch.Generator().manual_seed(int(batch.draw[0]))
    return torch.rand(len(batch), count, generator=generator).topk(wanted).indices.to(device)
