"""PSNR, SSIM and LPIPS: closed forms, slow loops over masked pixels, and weights that are not there."""

import math

import numpy as np
import pytest
import torch

from recon_toolkit import ImagePair
from recon_toolkit.errors import ReconError
from recon_toolkit.metrics.images import IMAGES, Lpips, find_lpips, image_metrics
from recon_toolkit.metrics.metric import MetricCollector


def images(count=3, size=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, size, size, generator=generator)


def some_mask(count=3, size=24):
    return (torch.rand(count, size, size, generator=torch.Generator().manual_seed(9)) < 0.6).float()


def reference_ssim(one, other, mask):
    """Wang et al. (2004) by loops: every window of 11 × 11, its weighted moments, and the formula."""
    offset = np.arange(11) - 5
    weights = np.exp(-(offset**2) / (2 * 1.5**2))
    window = np.outer(weights, weights) / weights.sum() ** 2
    total, count = 0.0, 0
    for v in range(5, one.shape[1] - 5):
        for u in range(5, one.shape[2] - 5):
            if not mask[v, u]:
                continue
            for channel in range(3):
                a, b = (image[channel, v - 5 : v + 6, u - 5 : u + 6] for image in (one, other))
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                var_a, var_b = (window * a * a).sum() - mean_a**2, (window * b * b).sum() - mean_b**2
                covariance = (window * a * b).sum() - mean_a * mean_b
                top = (2 * mean_a * mean_b + 0.01**2) * (2 * covariance + 0.03**2)
                total += top / ((mean_a**2 + mean_b**2 + 0.01**2) * (var_a + var_b + 0.03**2))
                count += 1
    return total / count


def test_psnr_of_a_known_error():
    target = torch.full((2, 3, 16, 16), 0.4)
    error = torch.tensor([0.1, 0.01])[:, None, None, None]
    found = image_metrics(ImagePair(target + error, target))
    # 20 and 40 dB; 0.4 + 0.01 has an error of 3e-8 in float32, which is 3e-5 dB.
    torch.testing.assert_close(found.psnr, torch.tensor([20.0, 40.0], dtype=torch.float64), rtol=0, atol=1e-4)
    assert found.psnr.dtype == torch.float64


def test_equal_images_have_ssim_one_and_infinite_psnr():
    one = images()
    found = image_metrics(ImagePair(one, one))
    assert torch.isinf(found.psnr).all()
    torch.testing.assert_close(found.ssim, torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-9)  # rounding


def test_ssim_of_two_grey_images_is_its_luminance_term():
    target, prediction = torch.full((1, 3, 16, 16), 0.5), torch.full((1, 3, 16, 16), 0.25)
    expected = (2 * 0.5 * 0.25 + 0.0001) / (0.5**2 + 0.25**2 + 0.0001)
    # The window's weights come in float32 from kornia: their sum is 1 up to 6e-8.
    assert image_metrics(ImagePair(prediction, target)).ssim.item() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("masked", [False, True])
def test_psnr_and_ssim_against_loops(masked):
    prediction, target = images(), images(seed=1)
    mask = some_mask() if masked else None
    found = image_metrics(ImagePair(prediction, target, mask))
    for i in range(3):
        inside = np.ones((24, 24), bool) if mask is None else mask[i].numpy() > 0.5
        a, b = (image[i].double().numpy() for image in (prediction, target))
        squared = [(a[c, v, u] - b[c, v, u]) ** 2 for c in range(3) for v, u in zip(*np.nonzero(inside), strict=True)]
        assert found.psnr[i].item() == pytest.approx(-10 * math.log10(sum(squared) / len(squared)), abs=1e-9)
        right_outside = np.where(inside, a, b)
        # The window's weights come in float32 from kornia: 1e-7 of values of order one, in sums of 121.
        assert found.ssim[i].item() == pytest.approx(reference_ssim(right_outside, b, inside), abs=1e-5)


def test_what_lies_outside_the_mask_does_not_count():
    prediction, target, mask = images(), images(seed=1), some_mask()
    other = torch.where(mask[:, None] > 0.5, prediction, images(seed=2))
    one, two = (image_metrics(ImagePair(p, target, mask)) for p in (prediction, other))
    assert torch.equal(one.psnr, two.psnr) and torch.equal(one.ssim, two.ssim)


def test_predictions_are_clamped():
    target = torch.ones(1, 3, 16, 16)
    assert torch.isinf(image_metrics(ImagePair(target * 1.5, target)).psnr).all()


def test_numbers_are_per_image_whatever_the_batches():
    prediction, target, mask = images(), images(seed=1), some_mask()
    whole = image_metrics(ImagePair(prediction, target, mask))
    collector = MetricCollector(IMAGES)
    for i in range(3):
        collector.add(image_metrics(ImagePair(prediction[i : i + 1], target[i : i + 1], mask[i : i + 1])).scored())
    joined = {name: torch.tensor(values, dtype=torch.float64) for name, values in collector.columns().items()}
    torch.testing.assert_close(joined["psnr"], whole.psnr, rtol=1e-12, atol=0)  # sums in another order
    torch.testing.assert_close(joined["ssim"], whole.ssim, rtol=1e-9, atol=0)
    report = collector.report()
    assert report.values["psnr"].mean == pytest.approx(float(whole.psnr.mean()))
    assert report.values["psnr"].std == pytest.approx(float(np.std(whole.psnr.numpy())))
    assert (report.images, report.empty) == (3, 0) and [metric.name for metric in report.metrics] == ["psnr", "ssim"]


def test_an_image_without_a_pixel_is_counted_as_empty():
    mask = some_mask()
    mask[1] = 0
    collector = MetricCollector(IMAGES)
    collector.add(image_metrics(ImagePair(images(), images(seed=1), mask)).scored())
    report = collector.report()
    assert (report.images, report.empty) == (3, 1) and math.isfinite(report.values["psnr"].mean)


@pytest.mark.parametrize(
    ("prediction", "target", "mask", "message"),
    [
        ((1, 3, 16, 16), (1, 3, 16, 12), None, "differ in shape"),
        ((1, 3, 8, 8), (1, 3, 8, 8), None, "at least 11 pixels"),
        ((1, 3, 16, 16), (1, 3, 16, 16), (1, 8, 8), r"mask has shape \(1, 8, 8\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(prediction, target, mask, message):
    pair = ImagePair(torch.zeros(prediction), torch.zeros(target), None if mask is None else torch.zeros(mask))
    with pytest.raises(ValueError, match=message):
        image_metrics(pair)


def test_lpips_without_its_weights_says_where_they_go(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    found, reason = find_lpips(torch.device("cpu"))
    assert found is None and "alexnet-owt-7be5be79.pth" in reason and str(tmp_path) in reason
    broken = tmp_path / "alexnet.pth"
    broken.write_bytes(b"not weights")
    with pytest.raises(ReconError, match="does not hold AlexNet's weights"):
        Lpips(broken)


def test_lpips_of_given_weights(tmp_path):
    """The map is that of Zhang et al.'s formula, written out on torchvision's own layers; 0 for equal images."""
    import lpips
    from torchvision.models import alexnet

    network = alexnet(weights=None)
    file = tmp_path / "alexnet.pth"
    torch.save(network.state_dict(), file)
    before = torch.get_rng_state()
    measure = Lpips(file)
    assert torch.equal(torch.get_rng_state(), before)  # a training run's numbers are left alone
    one, other = images(1, 64), images(1, 64, seed=1)
    assert measure(one, one).abs().max() == 0
    heads = torch.load(f"{lpips.__path__[0]}/weights/v0.1/alex.pth", map_location="cpu", weights_only=True)
    shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    features = [(image * 2 - 1 - shift) / scale for image in (one, other)]
    expected, start = torch.zeros(1, 1, 64, 64), 0
    for level, end in enumerate((2, 5, 8, 10, 12)):
        features = [network.features[start:end](x) for x in features]
        a, b = (x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) for x in features)
        difference = ((a - b).square() * heads[f"lin{level}.model.1.weight"]).sum(1, keepdim=True)
        expected += torch.nn.functional.interpolate(difference, size=(64, 64), mode="bilinear", align_corners=False)
        start = end
    torch.testing.assert_close(measure(one, other), expected, rtol=1e-4, atol=1e-6)  # float32, sums in another order
    pair = ImagePair(one, other)
    assert image_metrics(pair, measure).lpips.item() == pytest.approx(expected.mean().item(), rel=1e-4)
