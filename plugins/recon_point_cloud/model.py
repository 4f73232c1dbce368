"""The model ``point-cloud``: one image becomes a cloud of points, by images of coordinates from fixed viewpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recon_point_cloud.framing import PlainBackground
from recon_point_cloud.splat import Collisions, pseudo_render
from recon_toolkit import Batch, Model, ModelOutput, Reconstruction, Rendering
from recon_toolkit.data.packed import PackedImages
from recon_toolkit.geometry import Camera
from recon_toolkit.geometry.orthographic import DISTANCE, fixed_views, to_object
from recon_toolkit.io.contact_sheet import cloud_pictures
from recon_toolkit.metrics.metric import Metric, MetricSet, Scorer

THRESHOLDS = (0.01, 0.02)
#: Novel views of each object that depth and mask are compared in: the first ones.
NOVEL = 5
MEAN, RETRIEVED = "mean-shape", "retrieval"

SHEET = MetricSet(
    metrics=(
        Metric("to_truth", "prediction → truth ×100", 2, "lower", ratio_to=MEAN),
        Metric("from_truth", "truth → prediction ×100", 2, "lower", ratio_to=MEAN),
        Metric("chamfer", "Chamfer ×100", 2, "lower", ratio_to=MEAN),
        Metric("f_1", "F-score at 0.01", 3, "higher"),
        Metric("f_2", "F-score at 0.02", 3, "higher"),
        Metric("novel_depth", "novel depth error ×100", 2, "lower", ratio_to=MEAN),
        Metric("novel_iou", "novel mask IoU", 3, "higher"),
    ),
    baselines={MEAN: "mean shape", RETRIEVED: "nearest training image"},
    fields=("cloud", "novel_depth", "novel_view", "category"),
)


class StructureGenerator(nn.Module):
    """Image → (B, out_channels, S, S) by a bottleneck of fully connected layers and 2D convolutions only.

    Four strided convolutions, three fully connected layers to the latent code, three from it, and as many steps of
    nearest upsampling and convolution as lead from 4 × 4 to ``output_size``; batch normalisation and a rectifier after
    each but the last layers of both halves. The defaults are the paper's, for 64 → 128 pixels.

    Args:
        in_channels, out_channels: of the image and of the pictures: 3, and 4 for each view.
        image_size: side of the image, a multiple of 16.
        output_size: side of the pictures: 4 times a power of two; twice the image's if not given.
        encoder_channels: of the four convolutions.
        hidden: sizes of the fully connected layers before the code.
        latent: size of the code.
        decoder_hidden: sizes of those after it, before the one that makes the 4 × 4 picture.
        decoder_start: channels of the 4 × 4 picture.
        decoder_channels: of the last convolutions before the output; the first is repeated where there are fewer
            than steps.

    Raises:
        ValueError: a size does not fit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        image_size: int,
        *,
        output_size: int | None = None,
        encoder_channels: Sequence[int] = (96, 128, 192, 256),
        hidden: Sequence[int] = (2048, 1024),
        latent: int = 512,
        decoder_hidden: Sequence[int] = (1024, 2048),
        decoder_start: int = 256,
        decoder_channels: Sequence[int] = (192, 128, 96, 64, 48),
    ) -> None:
        super().__init__()
        output_size = output_size or 2 * image_size
        steps = output_size.bit_length() - 3
        if output_size < 8 or output_size != 4 << steps:
            raise ValueError(f"output_size is 4 times a power of two, such as 32, 64 or 128, not {output_size}")
        shrink = 2 ** len(encoder_channels)
        if image_size < shrink or image_size % shrink:
            raise ValueError(f"image_size is a multiple of {shrink} for {len(encoder_channels)} strided convolutions")
        channels = [*decoder_channels]
        channels = channels[-steps:] if len(channels) >= steps else [channels[0]] * (steps - len(channels)) + channels
        self.output_size = output_size
        self.encoder = nn.Sequential(*_contract(in_channels, encoder_channels), nn.Flatten())
        side = image_size // shrink
        self.to_code = nn.Sequential(
            *_dense((side * side * encoder_channels[-1], *hidden)), nn.Linear(hidden[-1], latent)
        )
        self.from_code = nn.Sequential(*_dense((latent, *decoder_hidden, 16 * decoder_start)))
        self.decoder = nn.Sequential(
            nn.Unflatten(1, (decoder_start, 4, 4)),
            *_expand(decoder_start, channels),
            nn.Conv2d(channels[-1], out_channels, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, out_channels, output_size, output_size)."""
        code = self.to_code(self.encoder(image)).relu()
        return self.decoder(self.from_code(code))  # type: ignore[no-any-return]


def _contract(in_channels: int, channels: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for cin, cout in zip((in_channels, *channels[:-1]), channels, strict=True):
        layers += [
            nn.Conv2d(cin, cout, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(cout),
            nn.ReLU(inplace=True),
        ]
    return layers


def _dense(sizes: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for size, following in pairwise(sizes):
        layers += [nn.Linear(size, following, bias=False), nn.BatchNorm1d(following), nn.ReLU(inplace=True)]
    return layers


def _expand(start: int, channels: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for cin, cout in zip((start, *channels[:-1]), channels, strict=True):
        layers += [nn.Upsample(scale_factor=2, mode="nearest")]
        layers += [nn.Conv2d(cin, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)]
    return layers


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

    scores: ClassVar[MetricSet] = SHEET
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
