"""Residuals between two images, by fixed filters: structure, edges, bands."""

from __future__ import annotations

from typing import Annotated

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
