"""The five networks of Wu et al. (2020, supplementary tables 7-9), parametric in image size and width.

At 64 pixels and the default widths the parameter counts are the published ones. An image of another size has one
stride-2 stage more or fewer for each factor of two. All return raw values: the model applies the activations.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZES = (32, 64, 128, 256)


def _stages(image_size: int) -> int:
    """Number of stride-2 convolutions that take an image to 4×4."""
    if image_size not in SIZES:
        raise ValueError(f"these networks exist for images of {', '.join(map(str, SIZES))} pixels, not {image_size}")
    return image_size.bit_length() - 3


def _check_width(width: int) -> None:
    if width < 4 or width % 4:
        raise ValueError(f"width is a multiple of 4 (normalisation groups have four channels), not {width}")


def _channels(image_size: int, width: int) -> list[int]:
    return [width * min(2**i, 8) for i in range(_stages(image_size))]


def _down(cin: int, cout: int) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, 4, stride=2, padding=1, bias=False)


def _up(cin: int, cout: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(cin, cout, 4, stride=2, padding=1, bias=False)


def _same(cin: int, cout: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, kernel, padding=kernel // 2, bias=False)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // 4, channels)


def _rectifier(slope: float) -> nn.Module:
    return nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)


class _DoubledConv(nn.Conv2d):
    """Nearest-neighbour doubling and a 3×3 convolution as one transposed convolution: the same map, 4/9 of the work.

    Each output pixel meets only 2×2 different input pixels, so taps that fall on the same one are added up first.
    """

    def forward(self, image: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, out_channels, 2H, 2W)."""
        taps = F.pad(self.weight, (0, 1)) + F.pad(self.weight, (1, 0))
        taps = F.pad(taps, (0, 0, 0, 1)) + F.pad(taps, (0, 0, 1, 0))
        return F.conv_transpose2d(image, taps.transpose(0, 1).flip(-1, -2), stride=2, padding=1)


def _laid_out(image: Tensor) -> Tensor:
    """Channels last for training in fp32 on a CPU: a third faster there, where bf16 is faster with channels first.

    Not for results: normalisation then takes variances as differences of means, and loses a digit.
    """
    fp32 = image.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if image.device.type == "cpu" and fp32 and torch.is_grad_enabled():
        return image.contiguous(memory_format=torch.channels_last)
    return image


def _contract(in_channels: int, channels: list[int], latent: int, slope: float = 0.0) -> list[nn.Module]:
    """Image → (B, latent, 1, 1); every stage but the last is normalised."""
    layers: list[nn.Module] = []
    for cin, cout in zip([in_channels, *channels[:-2]], channels[:-1], strict=True):
        layers += [_down(cin, cout), _norm(cout), nn.LeakyReLU(0.2, inplace=True)]
    layers += [_down(channels[-2], channels[-1]), nn.LeakyReLU(0.2, inplace=True)]
    return [*layers, nn.Conv2d(channels[-1], latent, 4, bias=False), _rectifier(slope)]


class ConvRegressor(nn.Module):
    """Image → vector, for light and view.

    Args:
        in_channels, out_channels: channels of the image, length of the vector.
        image_size: 32, 64, 128 or 256.
        width: channels of the first stage; 32 in the paper.
    """

    def __init__(self, in_channels: int, out_channels: int, image_size: int, *, width: int = 32) -> None:
        super().__init__()
        channels = _channels(image_size, width)
        layers: list[nn.Module] = []
        for cin, cout in zip([in_channels, *channels[:-1]], channels, strict=True):
            layers += [_down(cin, cout), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(channels[-1], channels[-1], 4, bias=False), nn.ReLU(inplace=True)]
        self.network = nn.Sequential(*layers, nn.Conv2d(channels[-1], out_channels, 1, bias=False))

    def forward(self, image: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, out_channels)."""
        return self.network(image).flatten(1)  # type: ignore[no-any-return]


class ConvAutoencoder(nn.Module):
    """Image → image through a bottleneck, for depth and albedo.

    Args:
        in_channels, out_channels: channels of the input and the output.
        image_size: 32, 64, 128 or 256.
        width: channels of the first stage; 64 in the paper.
        latent: size of the bottleneck; 4 × width (256 in the paper) if not given.
        bottleneck_slope: of the three activations around the bottleneck for negative values, 0 in the paper. These
            layers have neither normalisation nor bias, and at a high learning rate most units of the bottleneck die:
            then all images get one answer. 0.2 keeps them alive.
        last_kernel: side of the last two kernels, 5 in the paper.
        last_width: channels of the layers at full size, which take most of the network's time; ``width`` if not given.
        upsampling: how the decoder doubles its maps: ``transposed``, a transposed convolution with a kernel of 4 as in
            the paper, which can leave a checkerboard (Odena et al. 2016), or ``nearest``, doubling and a kernel of 3,
            which cannot.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        image_size: int,
        *,
        width: int = 64,
        latent: int | None = None,
        bottleneck_slope: float = 0.0,
        last_kernel: Literal[3, 5] = 5,
        last_width: int | None = None,
        upsampling: Literal["transposed", "nearest"] = "transposed",
    ) -> None:
        super().__init__()
        for channels_of in (width, last_width or width):
            _check_width(channels_of)
        if not 0 <= bottleneck_slope < 1:
            raise ValueError(f"bottleneck_slope {bottleneck_slope} must be 0 or more, and below 1")
        channels, latent = _channels(image_size, width), latent or 4 * width
        layers = _contract(in_channels, channels, latent, bottleneck_slope)
        layers += [nn.ConvTranspose2d(latent, channels[-1], 4, bias=False), _rectifier(bottleneck_slope)]
        layers += [_same(channels[-1], channels[-1], 3), _rectifier(bottleneck_slope)]
        for cin, cout in zip(channels[:0:-1], channels[-2::-1], strict=True):
            up = _up(cin, cout) if upsampling == "transposed" else _DoubledConv(cin, cout, 3, bias=False)
            layers += [up, _norm(cout), nn.ReLU(inplace=True)]
            layers += [_same(cout, cout, 3), _norm(cout), nn.ReLU(inplace=True)]
        # Doubling has no weights, but a place in the numbering of published ones.
        last = last_width or width
        layers += [nn.Identity(), _DoubledConv(width, last, 3, bias=False), _norm(last), nn.ReLU(inplace=True)]
        layers += [_same(last, last, last_kernel), _norm(last), nn.ReLU(inplace=True)]
        self.network = nn.Sequential(*layers, _same(last, out_channels, last_kernel))

    def forward(self, image: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, out_channels, H, W)."""
        return self.network(_laid_out(image)).contiguous()  # type: ignore[no-any-return]


class ConvConfidence(nn.Module):
    """Image → one map at full size and one at a quarter of it, for the spreads of the two losses.

    Args:
        in_channels, out_channels: channels of the image and of each map.
        image_size: 32, 64, 128 or 256.
        width: channels of the first stage; 64 in the paper.
        latent: size of the bottleneck; 2 × width (128 in the paper) if not given.
    """

    def __init__(
        self, in_channels: int, out_channels: int, image_size: int, *, width: int = 64, latent: int | None = None
    ) -> None:
        super().__init__()
        _check_width(width)
        channels, latent = _channels(image_size, width), latent or 2 * width
        layers = _contract(in_channels, channels, latent)
        layers += [nn.ConvTranspose2d(latent, channels[-1], 4, bias=False), nn.ReLU(inplace=True)]
        for cin, cout in zip(channels[:1:-1], channels[-2:0:-1], strict=True):
            layers += [_up(cin, cout), _norm(cout), nn.ReLU(inplace=True)]
        self.network = nn.Sequential(*layers)
        fine: list[nn.Module] = []
        for cin in (channels[1], width):
            fine += [_up(cin, width), _norm(width), nn.ReLU(inplace=True)]
        self.fine = nn.Sequential(*fine, _same(width, out_channels, 5))
        self.coarse = nn.Sequential(_same(channels[1], out_channels, 3))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, in_channels, H, W) → (B, out_channels, H, W) and (B, out_channels, H/4, W/4)."""
        features = self.network(_laid_out(image))
        return self.fine(features).contiguous(), self.coarse(features).contiguous()
