"""How far a cloud of points is from the true one: distances both ways, Chamfer distance, F-score.

Distances are in units of the objects' frame × 100, as Lin, Kong and Lucey (AAAI 2018) print them, and over all points;
their code draws 200 of the source at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Pairs of points up to which all are compared; with more, a tree is quicker.
_ALL_PAIRS = 1 << 20


@dataclass(frozen=True)
class CloudMetrics:
    """The errors of one predicted cloud.

    Attributes:
        to_truth: mean distance × 100 of a predicted point to the nearest true one: does the shape resemble it?
        from_truth: mean distance × 100 of a true point to the nearest predicted one: is all of it covered?
        chamfer: the sum of both.
        f_scores: for each threshold, the harmonic mean of the shares of predicted and of true points that have a
            partner within it, in [0, 1] (Tatarchenko et al. 2019).
    """

    to_truth: float
    from_truth: float
    chamfer: float
    f_scores: tuple[float, ...]


def nearest_distances(source: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """Distance of each point of ``source`` (N, 3) to the nearest of ``target`` (M, 3), (N,).

    Raises:
        ValueError: a shape is wrong, ``target`` is empty, or a coordinate is not finite.
    """
    one, other = _points(source, "source"), _points(target, "target")
    if not len(other):
        raise ValueError("the target has no points to be near to")
    if len(one) * len(other) <= _ALL_PAIRS:
        return np.asarray(np.sqrt(((one[:, None] - other) ** 2).sum(-1).min(1)), dtype=np.float64)
    from scipy.spatial import cKDTree

    distances, _ = cKDTree(other).query(one, workers=-1)
    return np.asarray(distances, dtype=np.float64)


def cloud_metrics(
    prediction: ArrayLike, truth: ArrayLike, *, thresholds: Sequence[float] = (0.01, 0.02)
) -> CloudMetrics:
    """Score a cloud.

    Args:
        prediction: (N, 3). An empty one covers nothing: its distances are infinite and its F-scores 0.
        truth: (M, 3), M ≥ 1.
        thresholds: of the F-scores, in units of the objects' frame.

    Raises:
        ValueError: a shape is wrong, there is no truth, or a coordinate is not finite.
    """
    found, true = _points(prediction, "prediction"), _points(truth, "truth")
    if not len(true):
        raise ValueError("the truth has no points")
    if not len(found):
        return CloudMetrics(np.inf, np.inf, np.inf, (0.0,) * len(thresholds))
    there, back = nearest_distances(found, true), nearest_distances(true, found)
    scores = []
    for threshold in thresholds:
        precision, recall = float((there <= threshold).mean()), float((back <= threshold).mean())
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    to_truth, from_truth = 100 * float(there.mean()), 100 * float(back.mean())
    return CloudMetrics(to_truth, from_truth, to_truth + from_truth, tuple(scores))


def _points(values: ArrayLike, name: str) -> NDArray[np.float64]:
    points = np.asarray(values, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"{name} must be (N, 3), not {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError(f"{name} holds coordinates that are not finite")
    return points
