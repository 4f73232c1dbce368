"""Image metrics of predictions against targets: PSNR, SSIM and LPIPS, per image, where the pair's mask holds."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recon_toolkit.errors import ReconError
from recon_toolkit.metrics.depth import masked_mean
from recon_toolkit.metrics.metric import Metric, MetricSet, Scored
from recon_toolkit.structures import ImagePair

#: Side of SSIM's Gaussian window in pixels, with a spread of 1.5 (Wang et al. 2004).
SSIM_WINDOW = 11
_ALEXNET = "alexnet-owt-7be5be79.pth"


#: What images are judged by: the fields of :class:`ImageMetrics`, in their order.
IMAGES = MetricSet(
    (
        Metric("psnr", "PSNR dB", 2, "higher", "pictures"),
        Metric("ssim", "SSIM", 3, "higher", "pictures"),
        Metric("lpips", "LPIPS", 3, "lower", "pictures"),
    )
)


@dataclass(frozen=True)
class ImageMetrics:
    """One number an image, each (B,) float64 on the CPU; NaN where the image has no pixel to compare.

    Predictions are clamped to [0, 1] first. A pair's mask holds where it is above one half; without a mask everything
    counts. Each image has a number of its own, and a score is the mean of these numbers over images (PSNR is not
    computed from the mean error of all).

    Args:
        psnr: −10 log₁₀ of the mean squared error over the mask's pixels and three channels, in dB for a peak of 1;
            infinite where the images are equal.
        ssim: mean over the mask's pixels and three channels of the map of Wang et al. (2004), with a Gaussian window
            of 11 pixels (spread 1.5) and constants 0.01² and 0.03². Outside the mask the prediction counts as right,
            since windows reach beyond it. Pixels closer than half a window to the image's edge are left out, as in
            the authors' code.
        lpips: mean over the mask's pixels of the LPIPS map (Zhang et al. 2018, AlexNet, version 0.1) at the images'
            size, with the prediction counting as right outside the mask; None where the weights are absent.
    """

    psnr: Tensor
    ssim: Tensor
    lpips: Tensor | None = None

    def __len__(self) -> int:
        return int(self.psnr.shape[0])

    def scored(self) -> Scored:
        """The numbers by metric; without LPIPS where its weights are absent."""
        return Scored({name: value for name, value in vars(self).items() if value is not None})


@torch.no_grad()
def image_metrics(pair: ImagePair, lpips: Lpips | None = None) -> ImageMetrics:
    """Compare a pair's prediction with its target, image by image; see :class:`ImageMetrics` for the protocol.

    Args:
        pair: prediction and target (B, 3, H, W) in [0, 1], mask (B, H, W) or None; H and W at least 11.
        lpips: computes the LPIPS map, see :func:`find_lpips`.

    Raises:
        ValueError: shapes differ, or the images are smaller than SSIM's window.
    """
    target = pair.target.detach().float().clamp(0, 1)
    if pair.prediction.shape != target.shape or target.ndim != 4:
        raise ValueError(f"prediction {tuple(pair.prediction.shape)} and target {tuple(target.shape)} differ in shape")
    if min(target.shape[2:]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs images of at least {SSIM_WINDOW} pixels, got {tuple(target.shape[2:])}")
    mask = torch.ones_like(target[:, 0], dtype=torch.bool) if pair.mask is None else pair.mask > 0.5
    if mask.shape != target[:, 0].shape:
        raise ValueError(f"mask has shape {tuple(mask.shape)}, expected {tuple(target[:, 0].shape)}")
    prediction = pair.prediction.detach().float().clamp(0, 1).where(mask[:, None], target)
    perceived = None if lpips is None else _mean(lpips(prediction, target)[:, 0].cpu(), mask.cpu())
    prediction, target, mask = (tensor.cpu() for tensor in (prediction, target, mask))
    error = (prediction.double() - target.double()).square().mean(1)
    return ImageMetrics(psnr=-10 * _mean(error, mask).log10(), ssim=_ssim(prediction, target, mask), lpips=perceived)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return masked_mean(values.double(), mask)


def _ssim(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    from kornia.metrics import ssim

    values = ssim(prediction.double(), target.double(), SSIM_WINDOW, padding="valid").mean(1)
    edge = SSIM_WINDOW // 2
    return _mean(values, mask[:, edge:-edge, edge:-edge])


class Lpips(nn.Module):
    """The LPIPS map of two images (Zhang et al. 2018): AlexNet's features, weighed by the heads that `lpips` ships.

    Args:
        weights: file of torchvision's AlexNet weights (a state dict); that in torch's cache if not given. They are
            never random.

    Raises:
        ReconError: there is no such file (says where to put which), or it does not hold AlexNet's weights.
    """

    def __init__(self, weights: Path | None = None) -> None:
        super().__init__()
        import lpips

        file = Path(torch.hub.get_dir()) / "checkpoints" / _ALEXNET if weights is None else Path(weights)
        if not file.is_file():
            raise ReconError(
                f"LPIPS is not computed: it needs AlexNet's ImageNet weights, and there is no file {file}",
                remedy=f"put torchvision's {_ALEXNET} there",
            )
        try:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            # The network is drawn at random before it is loaded, with arguments that torchvision warns of.
            with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                self.network = lpips.LPIPS(net="alex", pnet_rand=True, spatial=True, verbose=False)
            for name, part in self.network.net.named_children():  # slice1 … slice5, layers named as torchvision's
                layers = part.state_dict()
                self.network.net.get_submodule(name).load_state_dict({k: state[f"features.{k}"] for k in layers})
        except Exception as error:
            raise ReconError(
                f"LPIPS is not computed: {file} does not hold AlexNet's weights ({error})", remedy="fetch it again"
            ) from error
        self.requires_grad_(False).eval()

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1], sides of 32 or more → (B, 1, H, W) ≥ 0."""
        return self.network(prediction, target, normalize=True)  # type: ignore[no-any-return]


def find_lpips(device: torch.device, weights: Path | None = None) -> tuple[Lpips | None, str | None]:
    """LPIPS on a device, or None with one sentence that says why not and what to do."""
    try:
        return Lpips(weights).to(device), None
    except ReconError as error:
        return None, f"{error.message}; {error.remedy}"
