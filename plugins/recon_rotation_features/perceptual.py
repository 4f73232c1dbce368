"""The loss ``self-supervised-perceptual``: images compared by features that were learned without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from recon_rotation_features.model import LAYERS, ConvFeatures
from recon_toolkit import CheckpointError, ReconError
from recon_toolkit.engine.checkpoint import Checkpoint, inference_checkpoint

_REMEDY = (
    "train them first: `recon run --pipeline rotation-features --out RUN`, then --set losses.NAME.weights=RUN "
    "for every such term"
)
#: `recon run --pipeline rotation-features --seed 0` with one worker, without the classifier's head.
BUNDLED = Path(__file__).parent / "synthetic-faces.safetensors"
_PREFIX = "encoders.features."
#: Added to the mean square of a place: keeps one without features harmless.
_EPSILON = 1e-4
#: Width, number of features and seed of random weights.
_RANDOM = (32, 128, 0)


class SelfSupervisedPerceptual(nn.Module):
    """Squared difference of features learned by predicting rotations (Wu et al. 2020, ablation "self-sup. perceptual").

    Takes the place of the loss ``perceptual`` without its download; use it with ``likelihood: gaussian``. As in LPIPS
    (Zhang et al. 2018), the features of a place are a vector whose length carries no meaning: it is set so that their
    mean square is 1. The scale is therefore the same for every layer and every network and needs no statistics; as
    features are never negative, the residual lies between 0 and 2, the latter where two places share no feature.

    Args:
        weights: a run folder of the pipeline ``rotation-features``, or a safetensors file from one; or ``bundled``, for
            those that come with the package, learned from synthetic faces; or ``random``, for features that nothing
            was learned for (a baseline; the same in every run).
        layers: which of the network's layers to compare, of 1 (edges, half the image's size), 2 and 3 (a quarter).
            Several count equally.

    Raises:
        CheckpointError: there are no such weights, or they are of another pipeline or network.
        ReconError: ``layers`` is empty or names one twice or one that does not exist.
    """

    def __init__(self, *, weights: Path | Literal["bundled", "random"], layers: tuple[int, ...] = (LAYERS,)) -> None:
        super().__init__()
        self.layers = tuple(sorted(layers))
        if not layers or len(set(layers)) < len(layers) or not set(layers) <= set(range(1, LAYERS + 1)):
            raise ReconError(
                f"layers {list(layers)} are not distinct layers of 1 to {LAYERS}", remedy="try layers: [3]"
            )
        if weights == "random":
            network = _random()
        else:
            network = read_features(BUNDLED if weights == "bundled" else Path(weights))
        self.features = network.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> SelfSupervisedPerceptual:
        """Stay in evaluation mode: the features are finished."""
        return super().train(False)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1], sides multiples of 4 → residual (B, 1, h, w) in [0, 2].

        h and w are those of the coarsest layer; the mean over channels is taken, and then over layers.
        """
        return self.compare(prediction, self.prepare(target))

    def prepare(self, target: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) in [0, 1] → their normalised features, of every layer that is compared."""
        maps = self.features.maps(target * 2 - 1, self.layers[-1])
        return [_normalised(maps[layer - 1].float()) for layer in self.layers]

    def compare(self, prediction: Tensor, prepared: list[Tensor]) -> Tensor:
        """As :meth:`forward`, with the target's features given."""
        residuals = [
            (found - wanted).square().mean(1, keepdim=True)
            for found, wanted in zip(self.prepare(prediction), prepared, strict=True)
        ]
        size = residuals[-1].shape[-2:]
        return torch.stack([F.adaptive_avg_pool2d(r, (size[0], size[1])) for r in residuals]).mean(0)


def _normalised(features: Tensor) -> Tensor:
    """Features (B, C, h, w) whose mean square over C is 1."""
    return features * (features.square().mean(1, keepdim=True) + _EPSILON).rsqrt()


def _random() -> ConvFeatures:
    width, channels, seed = _RANDOM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ConvFeatures(3, channels, 64, width=width)


def read_features(path: Path) -> ConvFeatures:
    """The trained network in a run folder of ``rotation-features``, or in a safetensors file of one.

    Its width is that of the pipeline which the file records.

    Raises:
        CheckpointError: there is nothing there, it cannot be read, or it is of another pipeline or network.
    """
    path = path.expanduser()
    if not path.exists():
        raise CheckpointError("there are no features here", where=str(path), remedy=_REMEDY)
    saved, file = inference_checkpoint(path)
    state = {k.removeprefix(_PREFIX): v for k, v in saved.weights.items() if k.startswith(_PREFIX)}
    if not state:
        raise CheckpointError("it is a run of another pipeline: it has no features", where=str(file), remedy=_REMEDY)
    network = _recorded(saved, str(file))
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"these are not the weights of conv-features: {error}", where=str(file), remedy=_REMEDY
        ) from error
    return network


def _recorded(saved: Checkpoint, where: str) -> ConvFeatures:
    """A network as the file's pipeline describes it, its weights not loaded yet."""
    pipeline = yaml.safe_load(saved.pipeline)
    encoder = dict(pipeline["encoders"]["features"])
    name = encoder.pop("name")
    if name != "conv-features":
        raise CheckpointError(
            f"its features are those of '{name}', and this loss knows conv-features only", where=where, remedy=_REMEDY
        )
    return ConvFeatures(3, pipeline["model"]["channels"], pipeline["image_size"], **encoder)
