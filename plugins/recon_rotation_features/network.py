"""The network whose features are learned: three convolutional layers, the last two at a quarter of the image's size."""

from __future__ import annotations

from torch import Tensor, nn

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
