"""Residuals between two images, by fixed filters: structure, edges, bands, a bank of oriented filters."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Annotated, Literal

import kornia
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from recon_toolkit import ReconError


def _full_precision(image: Tensor) -> Tensor:
    """At least float32: differences of means and neighbours are lost in the rounding of half precision."""
    return image.to(torch.promote_types(image.dtype, torch.float32))


def ssim(prediction: Tensor, target: Tensor, *, window: Annotated[int, Field(ge=3)] = 11) -> Tensor:
    """Structural dissimilarity (1 − SSIM) / 2 per channel (Wang et al. 2004; as a loss: Godard et al. 2017).

    Args:
        prediction, target: images (B, C, H, W) in [0, 1].
        window: side of the Gaussian window in pixels, odd, at most twice the image's; its spread is 1.5.

    Returns:
        Residual (B, C, H, W) in [0, 1].

    Raises:
        ReconError: ``window`` is even.
    """
    if window % 2 == 0:
        raise ReconError(f"the window of SSIM has {window} pixels", remedy="make losses.NAME.window odd")
    with torch.autocast(prediction.device.type, enabled=False):
        # eps guards against constants of zero, which these are not; without it, equal images give exactly 1.
        similarity = kornia.metrics.ssim(_full_precision(prediction), _full_precision(target), window, eps=0.0)
        return ((1 - similarity) / 2).clamp(0, 1)


def edges(prediction: Tensor, target: Tensor) -> Tensor:
    """Absolute difference of Sobel derivatives, per channel and direction (Sobel and Feldman 1968).

    Derivatives are per pixel: a ramp of slope s gives s. A step of height h gives h/2 on both of its sides.

    Args:
        prediction, target: images (B, C, H, W) in [0, 1].

    Returns:
        Residual (B, 2C, H, W) ≥ 0: ∂x and ∂y of the first channel, then of the next.
    """
    # The filter is linear: the difference of the images is filtered once.
    with torch.autocast(prediction.device.type, enabled=False):
        difference = _full_precision(prediction) - _full_precision(target)
        gradient: Tensor = kornia.filters.spatial_gradient(difference, mode="sobel")
    return gradient.flatten(1, 2).abs()


class LaplacianPyramid:
    """Absolute difference in every band of a Laplacian pyramid (Burt and Adelson 1983).

    As a loss it is Lap1 of Bojanowski et al. 2018: their weight 4^k of level k is the number of pixels that one of its
    values stands for, so the mean of this map is their sum over the number of pixels.

    Args:
        levels: how many, the last being the low-pass rest; the coarsest is the image's size over 2^(levels − 1), at
            least one pixel.
        level_weights: factor of each level, finest first; all 1 if not given.

    Raises:
        ReconError: there is not one weight for each level.
    """

    def __init__(
        self, *, levels: Annotated[int, Field(ge=1, le=8)] = 4, level_weights: list[float] | None = None
    ) -> None:
        self.weights = [1.0] * levels if level_weights is None else list(level_weights)
        if len(self.weights) != levels:
            message = f"the Laplacian pyramid has {levels} levels and {len(self.weights)} weights"
            raise ReconError(message, remedy="give losses.NAME.level_weights as many entries as losses.NAME.levels")

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] → residual (B, C, H, W) ≥ 0, the weighted sum over levels at full size.

        Raises:
            ReconError: the images are too small for that many levels.
        """
        side, levels = min(prediction.shape[-2:]), len(self.weights)
        if side < 2 ** (levels - 1):
            message = f"a Laplacian pyramid of {levels} levels needs sides of {2 ** (levels - 1)} pixels, not {side}"
            raise ReconError(message, remedy=f"set losses.NAME.levels to {side.bit_length()} or less")
        with torch.autocast(prediction.device.type, enabled=False):
            # Every level is linear in the image: one pyramid, of the difference.
            level = _full_precision(prediction) - _full_precision(target)
            total = torch.zeros_like(level)
            for weight in self.weights[:-1]:
                coarser = kornia.geometry.transform.pyrdown(level, border_type="replicate")
                total = total + weight * _resized((level - _resized(coarser, level)).abs(), total)
                level = coarser
            return total + self.weights[-1] * _resized(level.abs(), total)


def _resized(image: Tensor, like: Tensor) -> Tensor:
    # A pixel of a coarser level covers four: areas are aligned, not the centres of corner pixels.
    if image.shape[-2:] == like.shape[-2:]:
        return image
    return F.interpolate(image, like.shape[-2:], mode="bilinear", align_corners=False)


#: Spread of a filter's envelope in wavelengths: a bandwidth of about one octave.
SPREAD = 0.56


def morlet(wavelength: float, frequency: float, stride: int, zero_mean: bool) -> Tensor:
    """One axis of a Gabor filter: a Gaussian times a complex wave, of unit L1 norm: (K,) complex128.

    Args:
        wavelength: of the two-dimensional filter in pixels; sets the Gaussian's spread.
        frequency: of the wave along this axis, in radians per pixel.
        stride: K − stride is even, so that samples can lie that many pixels apart and symmetrically.
        zero_mean: subtract as much of the Gaussian as makes the sum zero (Morlet).
    """
    radius = math.ceil(3 * SPREAD * wavelength)
    offset = torch.arange(2 * radius + stride, dtype=torch.float64) - (2 * radius + stride - 1) / 2
    envelope = torch.exp(-0.5 * (offset / (SPREAD * wavelength)) ** 2)
    taps = torch.polar(envelope, frequency * offset)
    if zero_mean:
        taps = taps - taps.sum() / envelope.sum() * envelope
    return taps / taps.abs().sum()


def filter_matrix(taps: Tensor, size: int, stride: int) -> Tensor:
    """Filtering along an axis of ``size`` pixels, with its ends repeated, as a matrix (samples, size)."""
    samples = -(-size // stride)
    first = torch.arange(samples) * stride - (len(taps) - stride) // 2
    index = (first[:, None] + torch.arange(len(taps))).clamp(0, size - 1)
    return torch.zeros(samples, size, dtype=taps.dtype).scatter_add_(1, index, taps.expand(samples, -1))


@lru_cache(maxsize=16)
def _bank(
    orientations: int,
    wavelengths: tuple[float, ...],
    stride: int,
    size: tuple[int, int],
    like: torch.dtype,
    device: str,
) -> tuple[Tensor, Tensor]:
    """Matrices along y (F, h, H) and along x (F, W, w), wavelengths outermost; a product of two is a filter."""
    down, across = [], []
    for wavelength in wavelengths:
        for n in range(orientations):
            angle = math.pi * n / orientations
            fx, fy = (2 * math.pi / wavelength * part(angle) for part in (math.cos, math.sin))
            # A product has no mean if one factor has none: that of the faster wave, whose mean is small already.
            x = morlet(wavelength, fx, stride, zero_mean=abs(fx) > abs(fy) - 1e-9)
            y = morlet(wavelength, fy, stride, zero_mean=abs(fy) > abs(fx) - 1e-9)
            down.append(filter_matrix(y, size[0], stride))
            across.append(filter_matrix(x, size[1], stride).T)
    with torch.inference_mode(False):  # kept for later calls, which may take gradients
        return torch.stack(down).to(device, like), torch.stack(across).to(device, like)


@lru_cache(maxsize=16)
def _factors(weights: tuple[float, ...], like: torch.dtype, device: str) -> Tensor:
    """The weights as a tensor (F, 1, 1), made once: making one copies to the device and waits for it."""
    with torch.inference_mode(False):
        return torch.tensor(weights, dtype=like, device=device)[:, None, None]


class FilterBank:
    """Difference of images in a bank of oriented band-pass filters, per filter.

    The filters are complex Gabor filters of zero mean (Gabor 1946; Daugman 1985), even and odd part in quadrature, so a
    residual is an amplitude and does not oscillate with the phase. Kernels are products of one-dimensional ones of unit
    L1 norm, the image's border is repeated, and responses are sampled every ``stride`` pixels.

    Args:
        orientations: how many, evenly over 180°; the first has its wave along x, i.e. it sees vertical edges.
        wavelengths: in pixels of the image, each 2 or more, at least one; one band each.
        scale_weights: factor of each wavelength's residuals; all 1 if not given.
        compare: ``difference``: the amplitude of the difference, |R(prediction) − R(target)|. ``amplitude``: the
            difference of amplitudes, ||R(prediction)| − |R(target)||, which forgives small shifts.
        colour: filter each channel; otherwise the mean over channels.
        stride: pixels between samples.

    Raises:
        ReconError: there is not one weight for each wavelength.
    """

    def __init__(
        self,
        *,
        orientations: Annotated[int, Field(ge=1)] = 4,
        wavelengths: Annotated[list[Annotated[float, Field(ge=2)]], Field(min_length=1)] = [4.0, 8.0, 16.0],  # noqa: B006
        scale_weights: list[float] | None = None,
        compare: Literal["difference", "amplitude"] = "difference",
        colour: bool = False,
        stride: Annotated[int, Field(ge=1)] = 2,
    ) -> None:
        weights = [1.0] * len(wavelengths) if scale_weights is None else list(scale_weights)
        if len(weights) != len(wavelengths):
            message = f"the filter bank has {len(wavelengths)} wavelengths and {len(weights)} weights"
            raise ReconError(message, remedy="give losses.NAME.scale_weights as many entries as wavelengths")
        self.bank = orientations, tuple(wavelengths), stride
        self.weights = tuple(weight for weight in weights for _ in range(orientations))
        self.compare, self.colour = compare, colour

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] → residual (B, F, H/stride, W/stride) ≥ 0, or (B, C·F, …) with ``colour``.

        F = wavelengths × orientations, orientations of the first wavelength first.
        """
        if self.compare == "difference":
            residual = self._amplitude(prediction - target)
        else:
            residual = (self._amplitude(prediction) - self._amplitude(target)).abs()
        return (residual * _factors(self.weights, residual.dtype, str(residual.device))).flatten(1, 2)

    def _amplitude(self, image: Tensor) -> Tensor:
        """(B, C or 1, F, h, w), in full precision: in bfloat16 no filter has zero mean."""
        image = image.to(torch.promote_types(image.dtype, torch.float32))
        image = image if self.colour else image.mean(1, keepdim=True)
        (batch, channels, height, _), device = image.shape, image.device
        # A matrix product for each axis: for few channels several times faster than convolution, at any wavelength.
        down, across = _bank(*self.bank, tuple(image.shape[-2:]), image.dtype.to_complex(), str(device))
        count, width = len(down), across.shape[-1]
        with torch.autocast(device.type, enabled=False):
            pair = torch.view_as_real(across.permute(1, 0, 2)).flatten(1)  # (W, F·w·2)
            rows = torch.view_as_complex(
                (image @ pair).view(batch, channels, height, count, width, 2)
            )  # (B, C, H, F, w)
            rows = rows.permute(3, 2, 0, 1, 4).reshape(count, height, -1)
            response = torch.view_as_real(down @ rows).square().sum(-1)
        # A floor of 1e-12 under the square: the root's slope at zero is finite, its value there taken off again.
        amplitude = (response + 1e-12).sqrt() - 1e-6
        return amplitude.reshape(count, -1, batch, channels, width).permute(2, 3, 0, 1, 4)
