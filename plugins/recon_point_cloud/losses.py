"""The losses of Lin, Kong and Lucey (AAAI 2018): masks by cross-entropy, depths by L1, and points near their pixels.

Depth maps of the data set (``fixed_depth`` and ``novel_depth``) are 0 where the object is not; that is its mask.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from recon_toolkit import Batch, ModelOutput, ReconError

Views = Literal["fixed", "novel"]


class _OfViews:
    """What the losses share: which views they look at, and their true depth.

    Args:
        views: ``fixed``, those that the network predicts; or ``novel``, those that are pseudo-rendered.
    """

    name: str

    def __init__(self, *, views: Views = "fixed") -> None:
        self.views = views

    @property
    def batch_fields(self) -> tuple[str, ...]:
        """The field of the data set with the true depth."""
        return (f"{self.views}_depth",)

    def truth(self, output: ModelOutput, batch: Batch, size: int) -> Tensor:
        """The true depth (B, V, S, S) in the views that the output shows."""
        depth = batch.of(f"{self.views}_depth", f"the loss {self.name}")
        if self.views == "novel":
            chosen = output.factor("novel_chosen", self.name)
            depth = depth.gather(1, chosen[..., None, None].expand(-1, -1, *depth.shape[2:]))
        if depth.shape[-1] != size:
            raise ReconError(
                f"the loss {self.name} compares views of {size} pixels with depth maps of {depth.shape[-1]}",
                where="encoders.structure.output_size",
                remedy=f"set it to {depth.shape[-1]}, or dataset.depth_size to {size}",
            )
        return depth


class ViewMask(_OfViews):
    """Cross-entropy of the mask's logits with the true mask: the mean over all pixels of all views."""

    name = "view-mask"

    def __call__(self, output: ModelOutput, batch: Batch) -> Tensor:
        """A scalar."""
        logits = output.factor(f"{self.views}_logits", self.name)
        truth = self.truth(output, batch, logits.shape[-1])
        return F.binary_cross_entropy_with_logits(logits, (truth > 0).to(logits.dtype))


class ViewDepth(_OfViews):
    """Absolute error of depth, where the object is and a point is seen.

    In fixed views every pixel has a point; in novel ones only pixels that a visible point landed in are compared.

    Args:
        views: ``fixed`` or ``novel``.
        over: what the sum of errors is divided by: the number of pixels that are compared (``object``), or that of all
            pixels (``picture``), which weighs depth against mask as the paper's sums do.
    """

    name = "view-depth"

    def __init__(self, *, views: Views = "fixed", over: Literal["object", "picture"] = "object") -> None:
        super().__init__(views=views)
        self.over = over

    def __call__(self, output: ModelOutput, batch: Batch) -> Tensor:
        """A scalar, in units of the object's size; 0 where there is nothing to compare."""
        if self.views == "fixed":
            depth = output.factor("coordinates", self.name)[..., 2]
            seen = torch.ones_like(depth, dtype=torch.bool)
        else:
            depth, seen = output.factor("novel_depth", self.name), output.factor("novel_visible", self.name)
        truth = self.truth(output, batch, depth.shape[-1])
        both = seen & (truth > 0)
        error = torch.where(both, (depth - truth).abs(), 0)
        return error.mean() if self.over == "picture" else error.sum() / both.sum().clamp(min=1)


def view_grid(output: ModelOutput) -> Tensor:
    """How far the points of the fixed views lie from their own pixels, across plus down: the mean, in pixels (L1).

    In the first stage every pixel's point is wanted at that pixel.

    Args:
        output: with the factor ``coordinates`` (B, V, S, S, 3).
    """
    pixels = output.factor("coordinates", "view-grid")
    axis = torch.arange(pixels.shape[-2], device=pixels.device, dtype=pixels.dtype)
    return (pixels[..., 0] - axis).abs().mean() + (pixels[..., 1] - axis[:, None]).abs().mean()
