"""Residuals of the reference method. Masking, averaging, confidence and weights are the core's work."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from recon_toolkit import ModelOutput, ReconError


def photometric(prediction: Tensor, target: Tensor, *, scale: float = 2.0) -> Tensor:
    """Absolute colour difference per channel (Wu et al. 2020, Eq. 3).

    Args:
        prediction, target: images (B, 3, H, W) in [0, 1].
        scale: factor on the difference; 2 measures it on images in [−1, 1], as published weights assume.

    Returns:
        Residual (B, 3, H, W) ≥ 0.
    """
    return scale * (prediction - target).abs()


def depth_smoothness(output: ModelOutput) -> Tensor:
    """Mean |∂depth| of the canonical depth along both axes, over the depth range (Wu et al. 2020, code): a scalar."""
    depth = output.factors["canonical_depth"]
    low, high = output.factors["depth_range"].unbind(-1)
    across = (depth[:, :, 1:] - depth[:, :, :-1]).abs().mean()
    down = (depth[:, 1:] - depth[:, :-1]).abs().mean()
    return (across + down) / (high - low)


#: relu3_3 is layer 15 of VGG16's features; the file torchvision stores its ImageNet weights under.
_RELU3_3 = 16
_WEIGHTS_FILE = "vgg16-397923af.pth"


def vgg16_weights(path: Path | None) -> Path:
    """The file of VGG16's ImageNet weights: the given one, or the one in torch's cache.

    Raises:
        ReconError: there is no such file; says where to put which.
    """
    cached = Path(torch.hub.get_dir()) / "checkpoints" / _WEIGHTS_FILE
    found = Path(path).expanduser() if path is not None else cached
    if not found.is_file():
        raise ReconError(
            f"the perceptual loss needs VGG16's ImageNet weights, and there is no file {found}",
            remedy=f"put torchvision's {_WEIGHTS_FILE} at {cached}, or name a file with --set losses.NAME.weights=FILE "
            "for every perceptual term, or train without: --set losses.NAME=null",
        )
    return found


class Perceptual(nn.Module):
    """Squared difference of VGG16's relu3_3 features (Wu et al. 2020, Eq. 7), at a quarter of the image's size.

    Use it with ``likelihood: gaussian``.

    Args:
        weights: file of VGG16's ImageNet weights (a state dict); torch's cache if not given. They are never random.

    Raises:
        ReconError: the weights are not on this machine, or the file is not VGG16's.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, weights: Path | None = None) -> None:
        super().__init__()
        from torchvision.models.vgg import cfgs, make_layers

        file = vgg16_weights(weights)
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
            features = make_layers(cfgs["D"])[:_RELU3_3]
            features.load_state_dict({k.removeprefix("features."): v for k, v in state.items() if _kept(k)})
        except Exception as error:
            raise ReconError(f"{file} does not hold VGG16's weights: {error}", remedy="fetch the file again") from error
        self.features = features.eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None])

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] → residual (B, 256, H/4, W/4) ≥ 0; one pass over both."""
        pair = (torch.cat((prediction, target)) - self.mean) / self.std
        first, second = self.features(pair).float().chunk(2)
        return (first - second).square()  # type: ignore[no-any-return]


def _kept(key: str) -> bool:
    parts = key.split(".")
    return parts[0] == "features" and int(parts[1]) < _RELU3_3
