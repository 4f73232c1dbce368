"""What clouds are judged by; apart from the judging, which imports more."""

from __future__ import annotations

from recon_toolkit.evaluation.own_scores import Metric, ScoreSheet

THRESHOLDS = (0.01, 0.02)
#: Novel views of each object that depth and mask are compared in: the first ones.
NOVEL = 5
MEAN, RETRIEVED = "mean-shape", "retrieval"

SHEET = ScoreSheet(
    metrics=(
        Metric("to_truth", "prediction → truth ×100", 2, "lower", ratio_to=MEAN),
        Metric("from_truth", "truth → prediction ×100", 2, "lower", ratio_to=MEAN),
        Metric("chamfer", "Chamfer ×100", 2, "lower", ratio_to=MEAN),
        Metric("f_1", "F-score at 0.01", 3, "higher"),
        Metric("f_2", "F-score at 0.02", 3, "higher"),
        Metric("novel_depth", "novel depth error ×100", 2, "lower", ratio_to=MEAN),
        Metric("novel_iou", "novel mask IoU", 3, "higher"),
    ),
    baselines={MEAN: "mean shape", RETRIEVED: "nearest training image"},
    fields=("cloud", "novel_depth", "novel_view", "category"),
)
