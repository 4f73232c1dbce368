"""The structure generator of Lin, Kong and Lucey (AAAI 2018): an image becomes a few pictures of coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


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
