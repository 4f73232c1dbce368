"""The model ``rotation-classifier``: features are learned by telling how far an image was turned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recon_toolkit import Batch, Model, ModelOutput, Rendering
from recon_toolkit.geometry import Camera

LAYERS = 3
_GROUP = 8  # channels that are normalised together


class ConvFeatures(nn.Module):
    """Image → features, in three layers of convolution, group normalisation and ReLU.

    Layer 1: ``width`` channels at half the image's size; layer 2: 2 × ``width`` at a quarter; layer 3:
    ``out_channels`` at a quarter, as relu3_3 of VGG16 has. No batch statistics: an image's features do not depend on
    the others of its batch. Any image whose sides are multiples of 4 can be given, of whatever size.

    Args:
        in_channels, out_channels: channels of the image and of the last layer; the latter a multiple of 8.
        image_size: side of the images that it is trained on, a multiple of 4.
        width: channels of the first layer, a multiple of 8.

    Raises:
        ValueError: a number is not such a multiple.
    """

    def __init__(self, in_channels: int, out_channels: int, image_size: int, *, width: int = 32) -> None:
        super().__init__()
        for name, value in (("width", width), ("the number of features", out_channels)):
            if value < _GROUP or value % _GROUP:
                raise ValueError(f"{name} is a multiple of {_GROUP} (normalisation groups), not {value}")
        if image_size % 4:
            raise ValueError(f"sides of images are multiples of 4, not {image_size}")
        self.layers = nn.ModuleList(
            (
                _layer(nn.Conv2d(in_channels, width, 4, stride=2, padding=1, bias=False)),
                _layer(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=False)),
                _layer(nn.Conv2d(2 * width, out_channels, 3, padding=1, bias=False)),
            )
        )

    def maps(self, image: Tensor, count: int = LAYERS) -> list[Tensor]:
        """Images (B, in_channels, H, W), about −1 to 1 → the output of the first ``count`` layers, first to last."""
        found = []
        for layer in self.layers[:count]:
            image = layer(image)
            found.append(image)
        return found

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, in_channels, H, W), about −1 to 1 → (B, out_channels, H/4, W/4)."""
        return self.maps(image)[-1]


def _layer(convolution: nn.Conv2d) -> nn.Sequential:
    channels = convolution.out_channels
    return nn.Sequential(convolution, nn.GroupNorm(channels // _GROUP, channels), nn.ReLU())


def rotation(output: ModelOutput) -> Tensor:
    """Cross-entropy of the predicted rotation (Gidaris et al. 2018): a scalar, ln 4 by chance.

    Args:
        output: of the model ``rotation-classifier``.
    """
    return F.cross_entropy(output.factors["logits"], output.factors["labels"])


def rotation_accuracy(output: ModelOutput) -> Tensor:
    """Share of the rotations told: a scalar without gradient, to be logged with weight 0.

    Args:
        output: of the model ``rotation-classifier``.
    """
    return (output.factors["logits"].argmax(1) == output.factors["labels"]).float().mean()


TURNS = 4


def turned(images: Tensor) -> Tensor:
    """Images (B, C, H, H) turned by 0, 90, 180 and 270 degrees counter-clockwise: (4B, C, H, H), turn by turn."""
    return torch.cat([images.rot90(turns, (-2, -1)) for turns in range(TURNS)])


class RotationClassifier(Model):
    """Learns features by predicting rotations (Gidaris et al., ICLR 2018, "RotNet").

    Every image is seen in all four rotations by quarter turns, and a small head on top of the features says which it
    is. No labels are needed, and no random numbers are drawn. Nothing is reconstructed: a run has no score, only the
    loss and, with the loss ``rotation-accuracy``, the share of rotations told, a quarter by chance.

    Args:
        encoders: the network by its role, ``features``: image (B, 3, H, W) → (B, channels, h, w).
        renderer: ignored; a pipeline needs none.
        camera: ignored.
        image_size: side of the square images; the network has it.
        channels: of the features.
    """

    #: What training reads of a data set: no ground truth.
    batch_fields = ("image",)

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        renderer: Callable[[Tensor, Tensor, Tensor], Rendering] | None,
        camera: Camera,
        image_size: int,
        *,
        channels: int = 128,
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(dict(encoders))
        # One more convolution between features and answer, so that the features need not be the answer themselves.
        self.head = nn.Sequential(
            nn.Conv2d(channels, channels, 4, stride=2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(channels, TURNS),
        )  # fmt: skip

    @classmethod
    def encoder_channels(cls, *, channels: int = 128, **_options: Any) -> dict[str, tuple[int, int]]:
        """Channels in and out of the one network."""
        return {"features": (3, channels)}

    def forward(self, batch: Batch) -> ModelOutput:
        """The factors ``logits`` (4B, 4) and ``labels`` (4B,) int64, the quarter turns of each; no image pairs."""
        images = turned(batch.image)
        logits = self.head(self.encoders["features"](images * 2 - 1)).float()
        labels = torch.arange(TURNS, device=images.device).repeat_interleave(len(batch))
        return ModelOutput(pairs={}, factors={"logits": logits, "labels": labels})

    @torch.no_grad()
    def sheet_columns(self, batch: Batch) -> dict[str, Tensor]:
        """Columns of the contact sheet, (B, C, H, W) in [0, 1]: the image, and how strong its features are where."""
        features = self.encoders["features"](batch.image * 2 - 1).float()
        strength = features.square().mean(1, keepdim=True).sqrt()
        strength = strength / strength.amax((1, 2, 3), keepdim=True).clamp(min=1e-9)
        return {"input": batch.image, "features": F.interpolate(strength, batch.image.shape[-2:], mode="nearest")}
