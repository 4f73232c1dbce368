"""Distances between clouds, against closed forms and all pairs."""

import numpy as np
import pytest

from recon_toolkit.metrics.clouds import cloud_metrics, nearest_distances


def test_distances_of_shifted_grids_are_the_shift():
    grid = np.stack(np.meshgrid(*(np.arange(5.0),) * 3), -1).reshape(-1, 3)
    found = cloud_metrics(grid + np.array((0.3, 0, 0)), grid, thresholds=(0.25, 0.3000001))
    assert found.to_truth == pytest.approx(30) and found.from_truth == pytest.approx(30)
    assert found.chamfer == pytest.approx(60) and found.f_scores == (0.0, 1.0)


def test_both_ways_differ_where_a_part_is_missing():
    """Half of two points is found: what is found is right, and half of the truth is 3 away."""
    found = cloud_metrics([(0, 0, 0)], [(0, 0, 0), (0, 0, 3)], thresholds=(0.1,))
    assert (found.to_truth, found.from_truth) == (0, 150)
    assert found.f_scores == pytest.approx((2 * 1 * 0.5 / 1.5,))


@pytest.mark.parametrize("count", [10, 3000])  # all pairs, and a tree
def test_nearest_is_nearest(count):
    random = np.random.default_rng(0)
    one, other = random.normal(size=(count, 3)), random.normal(size=(count // 2, 3))
    expected = [min(np.linalg.norm(other - point, axis=1)) for point in one]
    np.testing.assert_allclose(nearest_distances(one, other), expected, rtol=1e-12)


def test_an_empty_prediction_is_as_bad_as_can_be():
    found = cloud_metrics(np.zeros((0, 3)), [(0, 0, 0)])
    assert found.chamfer == np.inf and found.f_scores == (0, 0)


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (np.zeros((4, 2)), np.zeros((1, 3)), r"prediction must be \(N, 3\)"),
        (np.zeros((4, 3)), np.zeros((0, 3)), "the truth has no points"),
        (np.full((1, 3), np.nan), np.zeros((1, 3)), "prediction holds coordinates that are not finite"),
    ],
)
def test_what_is_no_cloud_is_refused(prediction, truth, message):
    with pytest.raises(ValueError, match=message):
        cloud_metrics(prediction, truth)
