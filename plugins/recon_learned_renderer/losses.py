"""The loss that teaches a learned renderer what no picture shows."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from recon_toolkit import ModelOutput


def factor_supervision(output: ModelOutput, *, depth_share: float = 1.0, coverage_share: float = 0.4) -> Tensor:
    """Depth and coverage against the exact renderer's: a scalar.

    The mean absolute error of depth where the exact renderer covers a pixel, in units of the depth range, and the
    binary cross-entropy of coverage over all pixels.

    Args:
        output: of the model ``learned-renderer``.
        depth_share, coverage_share: factors of the two.
    """
    factors = output.factors
    low, high = factors["depth_range"].unbind(-1)
    mask = factors["target_mask"]
    error = (factors["depth"] - factors["target_depth"]).abs() * mask
    depth = error.sum() / mask.sum().clamp(min=1) / (high - low)
    return depth_share * depth + coverage_share * F.binary_cross_entropy_with_logits(factors["coverage_logits"], mask)
