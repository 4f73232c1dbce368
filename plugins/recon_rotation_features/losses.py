"""The losses that features are trained with and watched by."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from recon_toolkit import ModelOutput


def rotation(output: ModelOutput) -> Tensor:
    """Cross-entropy of the predicted rotation (Gidaris et al. 2018): a scalar, ln 4 by chance.

    Args:
        output: of the model ``rotation-classifier``.
    """
    return F.cross_entropy(output.factors["logits"], output.factors["labels"])


def rotation_accuracy(output: ModelOutput) -> Tensor:
    """Share of the rotations told: a scalar without gradient, to be logged with weight 0.

    Args:
        output: of the model ``rotation-classifier``.
    """
    return (output.factors["logits"].argmax(1) == output.factors["labels"]).float().mean()
