"""The metrics that a table can show: their names, units and which way is better."""

from __future__ import annotations

from collections.abc import Iterable

from recon_toolkit.evaluation.own_scores import Metric, ScoreSheet

#: Those of the toolkit; models may bring more.
METRICS = {
    metric.name: metric
    for metric in (
        Metric("side", "SIDE ×10⁻²", 3, "lower", "depth", "constant"),
        Metric("mad", "MAD °", 2, "lower", "depth", "constant"),
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

#: Rows that need no training, and what a table calls them; models may bring more.
BASELINES = {"constant": "constant depth", "average": "average depth"}


def known_metrics(sheets: Iterable[ScoreSheet]) -> dict[str, Metric]:
    """The toolkit's metrics and those of some models and pipelines, by name."""
    return METRICS | {metric.name: metric for sheet in sheets for metric in sheet.metrics}


def known_baselines(sheets: Iterable[ScoreSheet]) -> dict[str, str]:
    """The toolkit's baselines and those of some models and pipelines: name → label."""
    return BASELINES | {name: label for sheet in sheets for name, label in sheet.baselines.items()}
