"""Residuals of the reference method. Masking, averaging, confidence and weights are the core's work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

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
    """Mean |∂depth| of the canonical depth along both axes, over the depth range (Wu et al. 2020, code): a scalar.

    Args:
        output: with the factors ``canonical_depth`` (B, H, W) and ``depth_range`` (2,).

    Raises:
        ReconError: the model lacks one of them.
    """
    depth = output.factor("canonical_depth", "depth-smoothness")
    low, high = output.factor("depth_range", "depth-smoothness").unbind(-1)
    across = (depth[:, :, 1:] - depth[:, :, :-1]).abs().mean()
    down = (depth[:, 1:] - depth[:, :-1]).abs().mean()
    return (across + down) / (high - low)


#: The file torchvision stores VGG16's ImageNet weights under.
_WEIGHTS_FILE = "vgg16-397923af.pth"
Layer = Literal[
    "relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu3_3",
    "relu4_1", "relu4_2", "relu4_3", "relu5_1", "relu5_2", "relu5_3",
]  # fmt: skip


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
            "for every perceptual term, or train without: --set losses.NAME=null; what runs now, with nothing to "
            "download: recon run --pipeline unsup3d-quick --set dataset.name=image-folder --data DIR, or here "
            "--set 'losses.NAME={name: self-supervised-perceptual, weights: bundled, likelihood: gaussian}'",
        )
    return found


def vgg16_features(depth: int, weights: Path | Literal["random"] | None) -> nn.Sequential:
    """The first layers of VGG16 (Simonyan and Zisserman 2015), for images normalised as ImageNet's.

    Args:
        depth: how many of torchvision's layers (convolutions, ReLUs and poolings count).
        weights: file of ImageNet weights; torch's cache if None; ``random``: torchvision's initialisation, drawn from
            a seed of its own, the same in every run.

    Raises:
        ReconError: the weights are not on this machine, or the file is not VGG16's.
    """
    from torchvision.models.vgg import cfgs, make_layers

    file = None if weights == "random" else vgg16_weights(None if weights is None else Path(weights))
    try:
        # Drawn before it is loaded; torch's global generator is left as it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            features: nn.Sequential = make_layers(cfgs["D"])[:depth]
            for layer in features:
                if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                    nn.init.zeros_(layer.bias)
        if file is not None:
            state = torch.load(file, map_location="cpu", weights_only=True)
            features.load_state_dict({k: state[f"features.{k}"] for k in features.state_dict()})
    except Exception as error:
        raise ReconError(f"{file} does not hold VGG16's weights: {error}", remedy="fetch the file again") from error
    return features.eval().requires_grad_(False)


def _layer_ends() -> dict[str, int]:
    """How many of torchvision's layers lead to each named ReLU: 16 to relu3_3."""
    from torchvision.models.vgg import cfgs

    ends, position, block, number = {}, 0, 1, 0
    for entry in cfgs["D"]:
        if entry == "M":
            position, block, number = position + 1, block + 1, 0
        else:
            position, number = position + 2, number + 1
            ends[f"relu{block}_{number}"] = position
    return ends


class Perceptual(nn.Module):
    """Squared difference of VGG16's features (Wu et al. 2020, Eq. 7: relu3_3); use it with ``likelihood: gaussian``.

    Several layers at once compare low- and high-level features together (Johnson et al. 2016): each layer's squared
    difference is average-pooled to the coarsest layer's size and multiplied by its weight, and all are channels of one
    residual. Their mean counts a layer by its channels (64, 128, 256, 512, 512 in blocks 1 to 5).

    Args:
        layers: ``relu1_1`` to ``relu5_3``, at least one. Block k has 1/2^(k − 1) of the image's size.
        layer_weights: factor of each layer's residual; all 1 if not given.
        weights: file of VGG16's ImageNet weights (a state dict); torch's cache if not given. They are random only if
            this is the word ``random``: torchvision's initialisation, the same in every run.

    Raises:
        ReconError: the weights are not on this machine, or the file is not VGG16's; or there is not one
            ``layer_weights`` for each layer.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        layers: Annotated[list[Layer], Field(min_length=1)] = ["relu3_3"],  # noqa: B006  not written to
        layer_weights: list[float] | None = None,
        weights: Path | Literal["random"] | None = None,
    ) -> None:
        super().__init__()
        factors = [1.0] * len(layers) if layer_weights is None else list(layer_weights)
        if len(factors) != len(layers) or len(set(layers)) != len(layers):
            raise ReconError(
                f"the perceptual loss has the layers {', '.join(layers)} and {len(factors)} layer weights",
                remedy="name each layer once, and give losses.NAME.layer_weights as many entries",
            )
        ends = _layer_ends()
        #: (end in ``features``, factor), shallow layers first.
        self.taps = sorted((ends[layer], factor) for layer, factor in zip(layers, factors, strict=True))
        self.features = vgg16_features(self.taps[-1][0], weights)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None])

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] → residual (B, C, h, w) ≥ 0.

        (B, 256, H/4, W/4) for relu3_3 alone. With several layers C is the sum of their channels, shallow ones first,
        and h, w the size of the deepest.
        """
        return self.compare(prediction, self.prepare(target))

    def prepare(self, target: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) in [0, 1] → their features, of every layer that is compared, shallow ones first."""
        values, start, found = (target - self.mean) / self.std, 0, []
        for end, _ in self.taps:
            values, start = self.features[start:end](values), end
            found.append(values.float())
        return found

    def compare(self, prediction: Tensor, prepared: list[Tensor]) -> Tensor:
        """As :meth:`forward`, with the target's features given."""
        residuals = [
            _scaled((found - wanted).square(), factor)
            for found, wanted, (_, factor) in zip(self.prepare(prediction), prepared, self.taps, strict=True)
        ]
        size = residuals[-1].shape[-2:]
        return torch.cat([_pooled(residual, size) for residual in residuals], dim=1)


def _scaled(residual: Tensor, factor: float) -> Tensor:
    return residual if factor == 1 else residual * factor


def _pooled(residual: Tensor, size: torch.Size) -> Tensor:
    return residual if residual.shape[-2:] == size else F.adaptive_avg_pool2d(residual, (size[0], size[1]))
