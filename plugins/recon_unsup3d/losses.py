"""Residuals of the reference method: photometric, and by features of a network that was trained on ImageNet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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


BackboneName = Literal["vgg16", "squeezenet"]
Layer = Literal[
    "relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu3_3",
    "relu4_1", "relu4_2", "relu4_3", "relu5_1", "relu5_2", "relu5_3",
    "relu1", "fire2", "fire3", "fire4", "fire5", "fire6", "fire7", "fire8", "fire9",
]  # fmt: skip
#: Keeps a place without features harmless when its length is divided by.
_EPSILON = 1e-4


@dataclass(frozen=True)
class Backbone:
    """A network of torchvision's whose convolutional layers are compared.

    Attributes:
        title: its name in messages.
        file: what torchvision calls the file of its ImageNet weights.
        build: makes all convolutional layers, without weights that mean anything.
        layers: name of each rectified layer → how many of the modules of ``build()`` lead to it.
        usual: the layer that is compared if none is named.
        padding: pixels repeated at the border first, so that a map has 1/2, 1/4, ... of the image's side.
    """

    title: str
    file: str
    build: Callable[[], nn.Sequential]
    layers: dict[str, int]
    usual: str
    padding: int = 0


def _vgg16() -> nn.Sequential:
    from torchvision.models.vgg import cfgs, make_layers

    return make_layers(cfgs["D"])  # type: ignore[no-any-return]


def _squeezenet() -> nn.Sequential:
    from torchvision.models import squeezenet1_0

    return squeezenet1_0(weights=None).features  # type: ignore[no-any-return]


def _vgg16_layers() -> dict[str, int]:
    """16 to relu3_3: in each of five blocks, pairs of convolution and ReLU, then a pooling."""
    ends, position = {}, 0
    for block, convolutions in enumerate((2, 2, 3, 3, 3), start=1):
        for number in range(1, convolutions + 1):
            position += 2
            ends[f"relu{block}_{number}"] = position
        position += 1
    return ends


BACKBONES: dict[BackboneName, Backbone] = {
    "vgg16": Backbone("VGG16", "vgg16-397923af.pth", _vgg16, _vgg16_layers(), "relu3_3"),
    "squeezenet": Backbone(
        "SqueezeNet 1.0",
        "squeezenet1_0-b66bff10.pth",
        _squeezenet,
        # A ReLU, three fire modules after a pooling, four after the next, one after the last.
        {"relu1": 2, **{f"fire{k}": k + 2 + (k > 4) + (k > 8) for k in range(2, 10)}},
        "fire4",
        padding=3,
    ),
}


def backbone_weights(name: BackboneName, path: Path | None) -> Path:
    """The file of a backbone's ImageNet weights: the given one, or the one in torch's cache.

    Raises:
        ReconError: there is no such file; says where to put which.
    """
    backbone = BACKBONES[name]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / backbone.file
    file = Path(path).expanduser() if path is not None else cached
    if not file.is_file():
        raise ReconError(
            f"the perceptual loss needs {backbone.title}'s ImageNet weights, and there is no file {file}",
            remedy=f"put torchvision's {backbone.file} at {cached}, or name a file with --set losses.NAME.weights=FILE "
            "for every perceptual term, or train without: --set losses.NAME=null; what runs now, with nothing to "
            "download: recon run --pipeline unsup3d-quick --set dataset.name=image-folder --data DIR, or here "
            "--set 'losses.NAME={name: self-supervised-perceptual, weights: bundled, likelihood: gaussian}'",
        )
    return file


def backbone_features(name: BackboneName, depth: int, weights: Path | Literal["random"] | None) -> nn.Sequential:
    """The first layers of a backbone, for images normalised as ImageNet's.

    Args:
        name: of the backbone.
        depth: how many of torchvision's modules.
        weights: file of ImageNet weights, torchvision's or a safetensors file with the same names; torch's cache if
            None; ``random``: torchvision's initialisation, drawn from a seed of its own, the same in every run.

    Raises:
        ReconError: the weights are not on this machine, or the file is not this backbone's.
    """
    backbone = BACKBONES[name]
    file = None if weights == "random" else backbone_weights(name, None if weights is None else Path(weights))
    try:
        # Drawn before it is loaded; torch's global generator is left as it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            features = backbone.build()[:depth]
            for layer in features.modules():
                if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                    nn.init.zeros_(layer.bias)
        if file is not None:
            state = _read(file)
            features.load_state_dict({key: state[f"features.{key}"].float() for key in features.state_dict()})
    except Exception as error:
        raise ReconError(
            f"{file} does not hold {backbone.title}'s weights: {error}", remedy="fetch the file again"
        ) from error
    return features.eval().requires_grad_(False)


def _read(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return state


class Perceptual(nn.Module):
    """Squared difference of a network's features (Wu et al. 2020, Eq. 7: VGG16's relu3_3); ``likelihood: gaussian``.

    Several layers at once compare low- and high-level features together (Johnson et al. 2016): each layer's squared
    difference is average-pooled to the coarsest layer's size and multiplied by its weight, and all are channels of one
    residual. Without ``normalise`` their mean counts a layer by its channels (VGG16: 64, 128, 256, 512, 512 in blocks 1
    to 5), with it each layer is one channel.

    Args:
        layers: VGG16's ``relu1_1`` to ``relu5_3``, or SqueezeNet's ``relu1`` and ``fire2`` to ``fire9``, at least one;
            by default relu3_3, or fire4, both of which have a quarter of the image's side. VGG16's block k has
            1/2^(k − 1) of it; SqueezeNet's relu1 has a half, fire2 to 4 a quarter, fire5 to 8 an eighth.
        layer_weights: factor of each layer's residual; all 1 if not given.
        weights: file of the backbone's ImageNet weights (a state dict, .pth or .safetensors); torch's cache if not
            given. They are random only if this is the word ``random``: torchvision's initialisation, the same in every
            run.
        backbone: the network: ``vgg16`` (Simonyan and Zisserman 2015) or ``squeezenet``, which is SqueezeNet 1.0
            (Iandola et al. 2016), a tenth of the work.
        normalise: set the features of every place to a mean square of 1, so that residuals lie in [0, 2] for any
            backbone and layer and weights compare (cf. LPIPS); if not given, for every backbone but VGG16, whose
            published weight assumes features as they are.

    Raises:
        ReconError: the weights are not on this machine, or the file is not the backbone's; a layer is not the
            backbone's; or there is not one ``layer_weights`` for each layer.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        layers: Annotated[list[Layer], Field(min_length=1)] | None = None,
        layer_weights: list[float] | None = None,
        weights: Path | Literal["random"] | None = None,
        backbone: BackboneName = "vgg16",
        normalise: bool | None = None,
    ) -> None:
        super().__init__()
        network = BACKBONES[backbone]
        chosen = [network.usual] if layers is None else list(layers)
        unknown = [layer for layer in chosen if layer not in network.layers]
        if unknown:
            raise ReconError(
                f"{network.title} has no layer {', '.join(unknown)}",
                remedy=f"losses.NAME.layers holds some of {', '.join(network.layers)}",
            )
        factors = [1.0] * len(chosen) if layer_weights is None else list(layer_weights)
        if len(factors) != len(chosen) or len(set(chosen)) != len(chosen):
            raise ReconError(
                f"the perceptual loss has the layers {', '.join(chosen)} and {len(factors)} layer weights",
                remedy="name each layer once, and give losses.NAME.layer_weights as many entries",
            )
        #: (end in ``features``, factor), shallow layers first.
        self.taps = sorted((network.layers[layer], factor) for layer, factor in zip(chosen, factors, strict=True))
        self.padding = network.padding
        self.normalise = backbone != "vgg16" if normalise is None else normalise
        self.features = backbone_features(backbone, self.taps[-1][0], weights)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None])

    def train(self, mode: bool = True) -> Perceptual:
        """Stay in evaluation mode: the features are finished."""
        return super().train(False)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] → residual (B, C, h, w) ≥ 0.

        (B, 256, H/4, W/4) for relu3_3 alone, (B, 1, H/4, W/4) for fire4 alone. With several layers C is the sum of
        their channels, or with ``normalise`` their number, shallow ones first, and h, w the size of the deepest.
        """
        return self.compare(prediction, self.prepare(target))

    def prepare(self, target: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) in [0, 1] → their features, of every layer that is compared, shallow ones first."""
        values, start, maps = (target - self.mean) / self.std, 0, []
        if self.padding:
            values = F.pad(values, (self.padding,) * 4, mode="replicate")
        for end, _ in self.taps:
            values, start = self.features[start:end](values), end
            maps.append(_normalised(values.float()) if self.normalise else values.float())
        return maps

    def compare(self, prediction: Tensor, prepared: list[Tensor]) -> Tensor:
        """As :meth:`forward`, with the target's features given."""
        residuals = []
        for predicted, target, (_, factor) in zip(self.prepare(prediction), prepared, self.taps, strict=True):
            residual = (predicted - target).square()
            residual = residual.mean(1, keepdim=True) if self.normalise else residual
            residuals.append(residual if factor == 1 else residual * factor)
        size = residuals[-1].shape[-2:]
        return torch.cat([_pooled(residual, size) for residual in residuals], dim=1)


def _normalised(features: Tensor) -> Tensor:
    """Features (B, C, h, w) whose mean square over C is 1."""
    return features * (features.square().mean(1, keepdim=True) + _EPSILON).rsqrt()


def _pooled(residual: Tensor, size: torch.Size) -> Tensor:
    return residual if residual.shape[-2:] == size else F.adaptive_avg_pool2d(residual, (size[0], size[1]))
