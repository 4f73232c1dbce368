"""Metrics as a third party writes them: of depth, of images, of the output."""

from __future__ import annotations

from torch import Tensor

from recon_toolkit import Batch, ModelOutput, metric


@metric("abs-rel", label="AbsRel", better="lower")
def abs_rel(prediction: Tensor, truth: Tensor, mask: Tensor, *, power: float = 1.0) -> Tensor:
    """Mean relative error of depth."""
    error = ((prediction - truth).abs() / truth) ** power
    return error.where(mask, 0.0).sum((1, 2)) / mask.sum((1, 2))


@metric("mean-error", label="mean error", digits=4, of="image")
def mean_error(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute error of colours where there is a prediction."""
    error = (prediction - target).abs().mean(1)
    return error.where(mask, 0.0).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)


@metric("turn", label="turn °", digits=1, better="one", of="output")
def turn(output: ModelOutput, batch: Batch) -> Tensor:
    """How far objects are turned sideways, in degrees."""
    return output.factor("view", "turn")[:, 1].abs().rad2deg()
