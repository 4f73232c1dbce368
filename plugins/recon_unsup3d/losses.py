"""Residuals of the reference method. Masking, averaging, confidence and weights are the core's work."""

from __future__ import annotations

from torch import Tensor

from recon_toolkit import ModelOutput


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
