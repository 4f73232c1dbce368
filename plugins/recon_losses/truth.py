"""Comparison with ground truth, for baselines that are told what the others must find out."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from recon_toolkit import Batch, ModelOutput, ReconError


def _true(batch: Batch, name: Literal["depth", "mask"], who: str) -> Tensor:
    value = batch.depth if name == "depth" else batch.mask
    if value is None:
        raise ReconError(
            f"the loss {who} needs true {name}, and the data has none", remedy="use data with ground truth"
        )
    return value


def supervised_depth(output: ModelOutput, batch: Batch, *, scale_invariant: bool = False) -> Tensor:
    """Absolute error of depth in the input view, inside the true mask: the supervised baseline of Wu et al. (Table 2).

    Args:
        output: with the factors ``depth`` (B, H, W) and ``depth_range`` (2,); where there is a factor ``mask``
            (B, H, W), pixels outside it do not count either: no depth was drawn there.
        batch: with ``depth`` and ``mask``.
        scale_invariant: compare logarithms less their mean difference in each image (Eigen et al. 2014), so that a
            factor on depth costs nothing.

    Returns:
        A scalar ≥ 0: the mean over pixels of each image, then over images, in units of the depth range (of the range
        of ln depth with ``scale_invariant``). An image without a pixel to compare counts as 0.
    """
    depth, (low, high) = output.factor("depth", "supervised-depth"), output.factor("depth_range", "supervised-depth")
    inside = _true(batch, "mask", "supervised-depth").bool()
    if "mask" in output.factors:
        inside = inside & (output.factors["mask"] > 0.5)
    # The true depth outside its mask may be anything, NaN too.
    true, depth = (torch.where(inside, d, 1) for d in (_true(batch, "depth", "supervised-depth"), depth))
    count = inside.sum((1, 2)).clamp(min=1)
    if not scale_invariant:
        absolute: Tensor = ((depth - true).abs().sum((1, 2)) / count).mean() / (high - low)
        return absolute
    error = depth.log() - true.log()
    error = (error - (error.sum((1, 2)) / count)[:, None, None]) * inside
    relative: Tensor = (error.abs().sum((1, 2)) / count).mean() / (high / low).log()
    return relative


def silhouette(
    output: ModelOutput, batch: Batch, *, measure: Literal["cross-entropy", "iou"] = "cross-entropy"
) -> Tensor:
    """Coverage against the true mask, by binary cross-entropy or 1 − IoU (Liu et al. 2019).

    Args:
        output: with a factor ``coverage`` (B, H, W), a probability in [0, 1] with a gradient.
        batch: with ``mask``.
        measure: ``cross-entropy``, a map per pixel, or ``iou``, one value per image.

    Returns:
        (B, H, W) ≥ 0, or (B,) in [0, 1]; 1 − IoU of nothing against nothing is 0.

    Raises:
        ReconError: the model has no such factor. Its ``mask`` cannot stand in: that has no gradient.
    """
    if "coverage" not in output.factors:
        raise ReconError(
            "the loss silhouette needs differentiable coverage, and the model offers none",
            remedy="use a model with a factor 'coverage' (B, H, W) in [0, 1], or --set losses.NAME=null",
        )
    coverage = output.factors["coverage"].float()
    mask = _true(batch, "mask", "silhouette").to(coverage.dtype)
    if measure == "iou":
        both = (coverage * mask).sum((1, 2))
        either = (coverage + mask - coverage * mask).sum((1, 2))
        return torch.where(either > 0, 1 - both / either.clamp(min=1e-6), 0)
    # Squeezed and not cut off: a wrong answer of exactly 0 or 1 keeps its gradient.
    sure = 1e-6 + (1 - 2e-6) * coverage
    return -(mask * sure.log() + (1 - mask) * (1 - sure).log())


supervised_depth.batch_fields = ("depth", "mask")  # type: ignore[attr-defined]
silhouette.batch_fields = ("mask",)  # type: ignore[attr-defined]
