"""Depth metrics against closed forms, and against a slow reference with explicit loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from recon_toolkit.geometry.camera import Camera
from recon_toolkit.metrics.depth import DepthMetrics, depth_metrics, erode, foreground
from recon_toolkit.metrics.report import DepthEvaluator, average_depth

CAMERA = Camera(10.0)
EVERYWHERE = torch.ones(1, 24, 24, dtype=torch.bool)


def plane(tilt: float, size: int = 24) -> Tensor:
    """Depth of a plane through (0, 0, 1) whose normal is turned by ``tilt`` degrees about y: (1, size, size)."""
    normal = torch.tensor([math.sin(math.radians(tilt)), 0.0, math.cos(math.radians(tilt))], dtype=torch.float64)
    rays = CAMERA.rays(size, size, dtype=torch.float64)
    return (normal[2] / (normal[:, None, None] * rays).sum(0))[None]


def sphere(size: int = 24, radius: float = 0.07) -> tuple[Tensor, Tensor]:
    """Depth and mask of a sphere about (0, 0, 1); the background lies at 1.1."""
    rays = CAMERA.rays(size, size, dtype=torch.float64)
    squared = rays.square().sum(0)
    under_root = 1 - squared * (1 - radius**2)
    mask = under_root > 0
    depth = torch.where(mask, (1 - under_root.clamp(min=0).sqrt()) / squared, 1.1)
    return depth[None], mask[None]


def score(prediction: Tensor, truth: Tensor, **masks: Tensor) -> dict[str, float]:
    metrics = depth_metrics(prediction, truth, CAMERA, **masks)
    return {name: float(getattr(metrics, name)[0]) for name in DepthMetrics.__dataclass_fields__}


def test_a_scaled_depth_has_no_scale_invariant_error() -> None:
    truth, _ = sphere()
    found = score(truth * 1.3, truth)
    # Sums of 500 numbers in float64; SIDE is a root, which turns 1e-16 into 1e-8, in units of 1e-2.
    assert found["side"] < 1e-6
    assert found["mad"] < 1e-5  # the surface is only larger: the same normals
    assert found["slope"] == pytest.approx(1, abs=1e-9)
    assert found["correlation"] == pytest.approx(1, abs=1e-9)
    assert found["coverage"] == 1


@pytest.mark.parametrize("tilt", [0.5, 10.0, 60.0, -75.0])
def test_a_tilted_plane_is_off_by_its_tilt(tilt: float) -> None:
    found = score(plane(tilt), plane(0.0), truth_mask=EVERYWHERE)
    # Central differences of a plane lie in it: exact but for float64 rounding of differences of 1e-2 about 1.
    assert found["mad"] == pytest.approx(abs(tilt), abs=1e-9)


@pytest.mark.parametrize("power", [0.5, 1.44, -1.0])
def test_the_slope_is_the_exponent(power: float) -> None:
    truth, mask = sphere()
    inner = erode(mask)
    found = score(truth**power, truth)
    spread = truth.log()[inner].std(correction=0)
    assert found["slope"] == pytest.approx(power, abs=1e-9)
    assert found["correlation"] == pytest.approx(math.copysign(1, power), abs=1e-9)
    assert found["side"] == pytest.approx(100 * abs(power - 1) * float(spread), rel=1e-9)


def test_errors_of_an_offset() -> None:
    truth, _ = sphere()
    found = score(truth + 0.03, truth)
    assert found["mae"] == pytest.approx(0.03, rel=1e-12)
    assert found["mse"] == pytest.approx(0.0009, rel=1e-12)


def slow_reference(
    prediction: np.ndarray, truth: np.ndarray, prediction_mask: np.ndarray, truth_mask: np.ndarray
) -> dict[str, float]:
    """One image, pixel by pixel, as unsup3d's code does it but for the maximum per image."""
    size = len(truth)
    focal = (size - 1) / 2 / math.tan(math.radians(CAMERA.fov) / 2)

    def point(depth: np.ndarray, v: int, u: int) -> np.ndarray:
        centre = (size - 1) / 2
        return depth[v, u] * np.array([(u - centre) / focal, (v - centre) / focal, 1.0])

    def normal(depth: np.ndarray, v: int, u: int) -> np.ndarray:
        across = point(depth, v, u + 1) - point(depth, v, u - 1)
        down = point(depth, v + 1, u) - point(depth, v - 1, u)
        found = np.cross(across, down)
        return found / np.linalg.norm(found)

    def eroded(mask: np.ndarray, v: int, u: int) -> bool:
        neighbours = [(v + dv, u + du) for dv in (-1, 0, 1) for du in (-1, 0, 1)]
        return all(0 <= a < size and 0 <= b < size and mask[a, b] for a, b in neighbours)

    logs, angles, errors = [], [], []
    for v in range(size):
        for u in range(size):
            if eroded(prediction_mask, v, u) and eroded(truth_mask, v, u):
                logs.append(math.log(prediction[v, u]) - math.log(truth[v, u]))
                cosine = float(np.dot(normal(prediction, v, u), normal(truth, v, u)))
                angles.append(math.degrees(math.acos(min(1.0, max(-1.0, cosine)))))
                errors.append(prediction[v, u] - truth[v, u])
    mean = sum(logs) / len(logs)
    return {
        "side": 100 * math.sqrt(sum((x - mean) ** 2 for x in logs) / len(logs)),
        "mad": sum(angles) / len(angles),
        "mae": sum(abs(x) for x in errors) / len(errors),
        "mse": sum(x * x for x in errors) / len(errors),
    }


def test_against_a_slow_reference() -> None:
    random = np.random.default_rng(3)
    truth, truth_mask = sphere(20, 0.08)
    truths = truth.repeat(3, 1, 1)
    predictions = truths + torch.from_numpy(random.normal(scale=0.004, size=truths.shape))
    prediction_masks = torch.from_numpy(random.random(truths.shape) > 0.02)
    found = depth_metrics(predictions, truths, CAMERA, prediction_mask=prediction_masks)
    for row in range(3):
        expected = slow_reference(
            predictions[row].numpy(), truth[0].numpy(), prediction_masks[row].numpy(), truth_mask[0].numpy()
        )
        for name, value in expected.items():
            # Both are float64; the reference's arccos loses digits near 0 degrees only.
            assert float(getattr(found, name)[row]) == pytest.approx(value, rel=1e-9), name


def test_an_image_does_not_depend_on_its_batch() -> None:
    near, _ = sphere()
    far = near + 0.2  # a maximum over the batch would take the whole of the near image for its object
    both = depth_metrics(torch.cat((near, far)) * 1.01 + 0.01, torch.cat((near, far)), CAMERA)
    alone = depth_metrics(near * 1.01 + 0.01, near, CAMERA)
    for name in DepthMetrics.__dataclass_fields__:
        assert torch.equal(getattr(both, name)[:1], getattr(alone, name)), name


def test_what_lies_outside_the_masks_does_not_matter() -> None:
    truth, mask = sphere()
    prediction = truth * 1.02 + 0.01
    expected = score(prediction, truth, prediction_mask=mask, truth_mask=mask)
    spoilt, spoilt_truth = prediction.clone(), truth.clone()
    for value in (math.nan, math.inf, 0.0, -3.0):
        spoilt[~mask] = value
        spoilt_truth[~mask] = value
        assert score(spoilt, truth, prediction_mask=mask) == expected
        assert score(spoilt, spoilt_truth) == expected  # such values are the background without being told


def test_an_empty_mask_is_nan_counted_and_left_out() -> None:
    truth, mask = sphere()
    masks = torch.cat((mask, mask & False))
    truths = truth.repeat(2, 1, 1)
    metrics = depth_metrics(truths + 0.01, truths, CAMERA, prediction_mask=masks)
    assert metrics.side.isnan().tolist() == [False, True]
    assert metrics.coverage.tolist() == [1, 0]
    summary = metrics.summary()
    assert (summary.images, summary.empty) == (1, 1)
    assert summary.mae.mean == pytest.approx(0.01)
    assert summary.mae.std == 0
    assert summary.coverage.mean == 0.5


def test_constant_predictions_have_no_correlation() -> None:
    truth, _ = sphere()
    found = score(torch.ones_like(truth), truth)
    assert math.isnan(found["correlation"])
    assert found["slope"] == pytest.approx(0, abs=1e-12)
    found = score(truth, torch.ones_like(truth), truth_mask=EVERYWHERE)
    assert math.isnan(found["slope"])


def test_erosion_and_foreground() -> None:
    mask = torch.zeros(1, 7, 7, dtype=torch.bool)
    mask[0, :5, :5] = True
    expected = torch.zeros_like(mask)
    expected[0, 1:4, 1:4] = True  # outside the picture nothing holds
    assert torch.equal(erode(mask), expected)
    depth = torch.tensor([[[1.0, 1.1], [1.1, 0.9]], [[2.0, math.nan], [0.0, 1.0]]])
    assert foreground(depth).tolist() == [[[True, False], [False, True]], [[True, False], [False, True]]]


def test_float32_input_is_scored_in_float64() -> None:
    truth, _ = sphere()
    metrics = depth_metrics(truth.float() * 1.5, truth.float(), CAMERA)
    assert metrics.side.dtype == torch.float64
    assert float(metrics.side) < 1e-4  # 1e-2 × the relative rounding of float32, 6e-8, with room


def test_shapes_are_checked() -> None:
    truth, mask = sphere()
    with pytest.raises(ValueError, match="truth has shape"):
        depth_metrics(truth[:, 1:], truth, CAMERA)
    with pytest.raises(ValueError, match="at least 3"):
        depth_metrics(truth[:, :2, :2], truth[:, :2, :2], CAMERA)
    with pytest.raises(ValueError, match="prediction_mask"):
        depth_metrics(truth, truth, CAMERA, prediction_mask=mask[:, 1:])


def test_the_average_is_over_objects_only() -> None:
    truth = torch.tensor([[[1.0, 9.0, 9.0]], [[3.0, 2.0, 9.0]]])
    mask = torch.tensor([[[True, False, False]], [[True, True, False]]])
    assert average_depth(truth, mask).tolist() == [[2.0, 2.0, 2.0]]


def test_baselines_in_the_report() -> None:
    evaluator = DepthEvaluator(CAMERA)
    truth, mask = sphere()
    evaluator.add(truth, truth)
    evaluator.add(truth.float(), truth)
    report = evaluator.report()
    assert (report.images, report.skipped, report.empty) == (2, 0, 0)
    assert report.side < 1e-4 and report.baselines.average is not None
    assert report.baselines.average.side < 1e-4  # two equal faces are their own average, in float32
    constant = report.baselines.constant
    expected = score(torch.ones_like(truth), truth, truth_mask=mask)
    assert constant.side == pytest.approx(expected["side"], rel=1e-5)  # the truth is kept in float32
    assert constant.mad == pytest.approx(expected["mad"], rel=1e-5)
    assert constant.side == pytest.approx(100 * float(truth.log()[erode(mask)].std(correction=0)), rel=1e-5)


def test_images_of_several_sizes_have_no_average() -> None:
    evaluator = DepthEvaluator(CAMERA)
    for size in (16, 24):
        truth, _ = sphere(size)
        evaluator.add(truth * 1.1, truth)
    report = evaluator.report()
    assert report.images == 2
    assert report.baselines.average is None
    with pytest.raises(ValueError, match="no image"):
        DepthEvaluator(CAMERA).report()
