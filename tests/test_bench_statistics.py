"""Paired intervals: the usual t interval for one seed, and honest coverage where trainings vary as images do."""

import math

import numpy as np
import pytest
from recon_bench.collect import paired_interval
from scipy import stats


def crossed(generator, seeds, images, *, mean, seed, image, rest):
    """Differences (S, N) with a normal effect of the training, of the image, and of both, of given deviations."""
    return (
        mean
        + seed * generator.normal(size=(seeds, 1))
        + image * generator.normal(size=(1, images))
        + rest * generator.normal(size=(seeds, images))
    )


def test_one_seed_gives_the_paired_t_interval():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 37))
    found = paired_interval((first - second)[None])
    low, high = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)  # rounding of two orders of summation
    assert (found.seeds, found.images) == (1, 37)
    assert found.mean == pytest.approx((first - second).mean(), rel=1e-12)


def test_seeds_that_agree_in_every_image_are_one():
    row = np.random.default_rng(1).normal(size=(1, 50))
    one, two = paired_interval(row), paired_interval(np.repeat(row, 2, axis=0))
    # With no other variation than that of images, a second training adds nothing.
    assert (two.low, two.high) == pytest.approx((one.low, one.high), rel=1e-9)
    assert two.seeds == 2


def test_images_that_agree_leave_the_t_interval_over_seeds():
    by_seed = np.array([0.3, 0.5, 1.0])
    found = paired_interval(np.repeat(by_seed[:, None], 40, axis=1))
    low, high = stats.ttest_1samp(by_seed, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)


COVERAGE_RUNS = 200
#: Correct intervals hold the truth in 95 % of 200 simulations, with a deviation of √(0.95·0.05/200) = 1.5 % by chance;
#: four deviations below that is a failure of one in 30 000.
LOWEST = 0.95 - 4 * math.sqrt(0.95 * 0.05 / COVERAGE_RUNS)


@pytest.mark.parametrize(
    ("seeds", "deviations"),
    [
        (2, {"seed": 0.3, "image": 1.0, "rest": 1.0}),
        (3, {"seed": 0.3, "image": 1.0, "rest": 1.0}),
        (3, {"seed": 0.0, "image": 1.0, "rest": 0.5}),
    ],
)
def test_the_interval_holds_the_true_mean(seeds, deviations):
    generator = np.random.default_rng(2)
    held = 0
    for _ in range(COVERAGE_RUNS):
        found = paired_interval(crossed(generator, seeds, 60, mean=0.7, **deviations))
        held += found.low <= 0.7 <= found.high
    assert held / COVERAGE_RUNS >= LOWEST


@pytest.mark.parametrize(
    ("seeds", "deviations"),
    [(1, {"seed": 0.0, "image": 1.0, "rest": 0.5}), (3, {"seed": 1.0, "image": 0.1, "rest": 0.1})],
)
def test_the_interval_is_no_wider_than_it_must_be(seeds, deviations):
    """Where one kind of variation rules, the interval is exact: 95 %, neither more nor less."""
    generator = np.random.default_rng(3)
    intervals = [paired_interval(crossed(generator, seeds, 60, mean=0.7, **deviations)) for _ in range(COVERAGE_RUNS)]
    held = np.mean([found.low <= 0.7 <= found.high for found in intervals])
    assert LOWEST <= held <= 0.95 + 4 * math.sqrt(0.95 * 0.05 / COVERAGE_RUNS)


def test_an_interval_over_images_alone_misses_the_variation_of_trainings():
    """Why one seed is marked: where trainings differ, the interval over images holds the truth too rarely."""
    generator = np.random.default_rng(4)
    held = 0
    for _ in range(COVERAGE_RUNS):
        found = paired_interval(crossed(generator, 1, 400, mean=0.7, seed=0.3, image=1.0, rest=0.0))
        held += found.low <= 0.7 <= found.high
    # The interval has a half width of 0.098, so it holds with the probability of |a + b̄| < 0.098: 0.25.
    assert held / COVERAGE_RUNS < 0.4  # five deviations more


def test_images_without_a_score_are_left_out_of_all_trainings():
    values = np.random.default_rng(5).normal(size=(2, 20))
    holed = values.copy()
    holed[0, 3], holed[1, 7] = np.nan, np.inf
    found = paired_interval(holed)
    assert found == paired_interval(np.delete(values, [3, 7], axis=1))
    assert found.images == 18


def test_constant_differences_have_an_interval_without_width():
    for seeds in (1, 3):
        found = paired_interval(np.full((seeds, 10), 0.25))
        assert (found.mean, found.low, found.high) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize(
    "values", [np.zeros((1, 1)), np.zeros((3, 1)), np.zeros((0, 5)), np.full((2, 5), np.nan), np.zeros((1, 0))]
)
def test_too_few_values_have_no_interval(values):
    assert paired_interval(values) is None


def test_more_confidence_is_a_wider_interval():
    values = np.random.default_rng(6).normal(size=(3, 30))
    narrow, wide = paired_interval(values, 0.8), paired_interval(values, 0.99)
    assert wide.low < narrow.low < narrow.mean == wide.mean < narrow.high < wide.high
