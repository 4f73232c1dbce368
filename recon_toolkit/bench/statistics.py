"""Paired differences with intervals that count images and trainings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval."""

    mean: float
    low: float
    high: float
    seeds: int
    images: int


def paired_interval(differences: NDArray[np.float64], confidence: float = CONFIDENCE) -> Interval | None:
    """Mean difference of two settings with its confidence interval; None where there are too few values.

    The differences d (S, N) of S trainings, paired by seed, on the same N images are taken as a mean plus an effect
    of the training, one of the image, and a rest: d[s, i] = μ + a[s] + b[i] + e[s, i], all but μ random (a crossed
    two-way layout with one value a cell). The variance of the mean is (MS_a + MS_b − MS_e) / (S·N) in terms of the
    mean squares, its degrees of freedom are Satterthwaite's (Searle, Casella and McCulloch, *Variance Components*,
    1992, sections 4.3 and 4.7), and the interval is Student's. With S = 1 this is the usual paired t interval over
    images, which knows nothing of what another training would give.

    Args:
        differences: (S, N); images (columns) with a value that is not finite are left out.
        confidence: of the interval.
    """
    from scipy.stats import t

    values = differences[:, np.isfinite(differences).all(0)]
    seeds, images = values.shape
    if seeds == 0 or images < 2:
        return None
    mean = float(values.mean())
    by_seed, by_image = values.mean(1), values.mean(0)
    image_square = seeds * float(by_image.var(ddof=1))
    if seeds == 1:
        variance, freedom = image_square / images, images - 1.0
    else:
        seed_square = images * float(by_seed.var(ddof=1))
        rest = values - by_seed[:, None] - by_image[None] + mean
        rest_square = float(np.square(rest).sum()) / ((seeds - 1) * (images - 1))
        # The estimate may come out too small, or negative, by chance; each of the two alone is a lower bound.
        square = max(seed_square + image_square - rest_square, seed_square, image_square)
        parts = ((seed_square, seeds - 1), (image_square, images - 1), (rest_square, (seeds - 1) * (images - 1)))
        weight = sum(part**2 / degrees for part, degrees in parts)
        variance, freedom = square / (seeds * images), square**2 / weight if weight > 0 else math.inf
    half = float(t.ppf(0.5 + confidence / 2, freedom)) * math.sqrt(variance)
    return Interval(mean, mean - half, mean + half, seeds, images)
