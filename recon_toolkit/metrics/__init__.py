"""What predictions are judged by: metrics of depth, images and clouds, of plugins and models; baselines."""

from recon_toolkit.metrics.metric import Metric, MetricScores, MetricSet, Scored

__all__ = ["Metric", "MetricScores", "MetricSet", "Scored"]
