"""The metrics that a table can show: their names, units and which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One column of a table.

    Args:
        name: as tables and ``scores.csv`` name it.
        label: as a heading shows it, with its unit.
        digits: decimals to print.
        better: which way is better; ``one`` means that 1 is right.
        needs: what the images must have, or the model must offer.
    """

    name: str
    label: str
    digits: int
    better: Literal["lower", "higher", "one"]
    needs: Literal["depth", "pictures"]

    def loss(self, value: float) -> float:
        """A number that is smaller for a better value."""
        return {"lower": value, "higher": -value, "one": abs(value - 1)}[self.better]


METRICS = {
    metric.name: metric
    for metric in (
        Metric("side", "SIDE ×10⁻²", 3, "lower", "depth"),
        Metric("mad", "MAD °", 2, "lower", "depth"),
        Metric("mae", "MAE", 4, "lower", "depth"),
        Metric("mse", "MSE", 6, "lower", "depth"),
        Metric("slope", "relief slope", 2, "one", "depth"),
        Metric("correlation", "correlation", 3, "higher", "depth"),
        Metric("coverage", "coverage", 3, "higher", "depth"),
        Metric("psnr", "PSNR dB", 2, "higher", "pictures"),
        Metric("ssim", "SSIM", 3, "higher", "pictures"),
        Metric("lpips", "LPIPS", 3, "lower", "pictures"),
    )
}
