"""Losses between two images against closed forms, slow references and finite differences."""

import math

import kornia
import numpy as np
import pytest
import torch
from recon_losses.image import FilterBank, LaplacianPyramid, edges, ssim
from recon_unsup3d.losses import photometric
from torch.nn import functional as F

from recon_toolkit import ReconError

PAIR_LOSSES = {
    "photometric": photometric,
    "ssim": ssim,
    "edges": edges,
    "laplacian-pyramid": LaplacianPyramid(),
    "filter-bank": FilterBank(),
    "filter-bank of amplitudes": FilterBank(compare="amplitude", colour=True),
}


def wave(wavelength, angle, size=64, phase=0.0):
    """A sinusoid across the image, of amplitude 0.5 about 0.5, its wave vector at ``angle``: (1, 3, size, size)."""
    axis = torch.arange(size, dtype=torch.float64)
    along = axis * math.cos(angle) + axis[:, None] * math.sin(angle)
    return (0.5 + 0.5 * torch.sin(2 * math.pi * along / wavelength + phase)).expand(1, 3, size, size)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_equal_images_give_zero_and_others_a_positive_map(name):
    loss = PAIR_LOSSES[name]
    one, other = torch.rand(2, 2, 3, 32, 32)
    # Rounding of float32 where products of means are subtracted (ssim) and where a floor is taken off (the bank).
    assert loss(one, one).abs().max() < 1e-6
    found = loss(one, other)
    assert found.ndim == 4 and len(found) == 2 and found.min() >= 0 and found.mean() > 0.01


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_gradients_are_those_of_finite_differences(name):
    one, other = torch.rand(2, 1, 3, 8, 8, dtype=torch.float64)
    assert torch.autograd.gradcheck(PAIR_LOSSES[name], (one.requires_grad_(), other), fast_mode=True)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_no_loss_prefers_a_side(name):
    """The residual of mirrored images is the mirrored residual; in the bank, that of the mirrored filters."""
    one, other = torch.rand(2, 2, 3, 32, 32, dtype=torch.float64)
    found, mirrored = PAIR_LOSSES[name](one, other), PAIR_LOSSES[name](one.flip(-1), other.flip(-1))
    if name.startswith("filter-bank"):  # of the angles 0, 45, 90 and 135°, the second and the last change places
        found = found.unflatten(1, (-1, 4))[:, :, [0, 3, 2, 1]].flatten(1, 2)
    # float64 sums in another order; the root takes 1e-16 to 1e-8 where an amplitude is small.
    torch.testing.assert_close(found.flip(-1), mirrored, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_half_precision_around_them_changes_nothing(name):
    """Training runs losses under autocast: in bfloat16 the small differences that they measure would be lost."""
    target = torch.rand(2, 3, 32, 32)
    prediction = (target + 0.01 * torch.randn_like(target)).clamp(0, 1)
    plain = PAIR_LOSSES[name](prediction, target)
    with torch.autocast("cpu", torch.bfloat16):
        found = PAIR_LOSSES[name](prediction, target)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5)  # float32
    halves = PAIR_LOSSES[name](prediction.bfloat16(), target.bfloat16())
    expected = PAIR_LOSSES[name](prediction.bfloat16().float(), target.bfloat16().float())
    if name != "photometric":  # one subtraction, which bfloat16 may do
        torch.testing.assert_close(halves, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_gradients_at_equal_flat_images_are_finite(name):
    """Where roots and norms have no derivative, training must not meet a NaN."""
    for value in (0.0, 0.5):
        flat = torch.full((1, 3, 32, 32), value, requires_grad=True)
        PAIR_LOSSES[name](flat, torch.full((1, 3, 32, 32), value)).sum().backward()
        assert flat.grad is not None and flat.grad.isfinite().all()


def test_ssim_of_constants_by_hand():
    """Without structure only the luminance term is left: (2ab + c) / (a² + b² + c), c = 0.01²."""
    a, b = 0.3, 0.6
    found = ssim(torch.full((1, 3, 16, 16), a), torch.full((1, 3, 16, 16), b))
    expected = (1 - (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)) / 2
    torch.testing.assert_close(found, torch.full((1, 3, 16, 16), expected), rtol=0, atol=1e-4)  # variances in float32
    opposite = torch.rand(1, 1, 16, 16, dtype=torch.float64)
    assert 0.5 < ssim(opposite, 1 - opposite).mean() <= 1  # anticorrelated
    with pytest.raises(ReconError, match="window"):
        ssim(opposite, opposite, window=8)


def test_edges_of_a_step_and_of_a_ramp():
    step = torch.zeros(1, 1, 8, 8)
    step[..., 4:] = 0.6
    found = edges(step, torch.zeros_like(step))
    expected = torch.zeros(8)
    expected[3:5] = 0.3  # half the step on either side
    torch.testing.assert_close(found[0, 0], expected.expand(8, 8))
    assert found[0, 1].abs().max() < 1e-7  # float32
    ramp = 0.1 * torch.arange(8.0)[:, None].expand(1, 1, 8, 8)
    torch.testing.assert_close(edges(ramp, 0 * ramp)[0, 1, 1:-1], torch.full((6, 8), 0.1))
    one, other = torch.rand(2, 2, 3, 9, 9)
    both = (kornia.filters.spatial_gradient(one) - kornia.filters.spatial_gradient(other)).abs()
    torch.testing.assert_close(edges(one, other), both.flatten(1, 2))


def test_a_constant_difference_is_in_the_last_level_alone():
    one, other = torch.full((1, 3, 32, 32), 0.7), torch.full((1, 3, 32, 32), 0.2)
    found = LaplacianPyramid(levels=4, level_weights=[5, 5, 5, 2])(one, other)
    torch.testing.assert_close(found, torch.ones(1, 3, 32, 32))
    assert LaplacianPyramid(levels=4, level_weights=[1, 1, 1, 0])(one, other).abs().max() < 1e-6  # float32


def test_the_bands_of_a_pyramid_separate_fine_from_coarse():
    flat = torch.full((1, 3, 64, 64), 0.5, dtype=torch.float64)

    def share(wavelength):
        image = wave(wavelength, 0)
        one_level = ([float(n == k) for n in range(4)] for k in range(4))
        return [LaplacianPyramid(level_weights=weights)(image, flat).mean().item() for weights in one_level]

    assert np.argmax(share(2.5)) == 0 and np.argmax(share(32)) >= 2
    one, other = torch.rand(2, 1, 3, 20, 12)  # of sizes that are no powers of two
    assert LaplacianPyramid()(one, other).shape == (1, 3, 20, 12)
    torch.testing.assert_close(LaplacianPyramid(levels=1)(one, other), (one - other).abs())
    with pytest.raises(ReconError, match="4 levels and 2 weights"):
        LaplacianPyramid(level_weights=[1, 1])


def test_a_pyramid_has_as_many_levels_as_the_image_can_be_halved():
    one, other = torch.rand(2, 1, 3, 64, 24)
    assert LaplacianPyramid(levels=5)(one, other).isfinite().all()  # 24, 12, 6, 3, 1
    with pytest.raises(ReconError, match=r"6 levels needs sides of 32 pixels, not 24 \(set .*levels to 5 or less"):
        LaplacianPyramid(levels=6)(one, other)
    one, other = torch.rand(2, 1, 3, 64, 64)
    assert LaplacianPyramid(levels=7)(one, other).isfinite().all()
    with pytest.raises(ReconError, match="levels to 7 or less"):
        LaplacianPyramid(levels=8)(one, other)


@pytest.mark.parametrize("band", range(3))
@pytest.mark.parametrize("turn", range(4))
def test_a_wave_answers_in_the_filter_of_its_own_direction_and_length(band, turn):
    wavelengths = [4.0, 8.0, 16.0]
    image = wave(wavelengths[band], math.pi * turn / 4, phase=0.4)
    found = FilterBank(wavelengths=wavelengths)(image, torch.full_like(image, 0.5))
    assert found.shape == (1, 12, 32, 32)
    middle = found[0, :, 12:20, 12:20].mean((1, 2))  # away from the borders
    assert middle.argmax() == 4 * band + turn
    assert middle.sort().values[-2] < 0.6 * middle.max()
    # An amplitude: it does not swing with the phase of the wave. What is left is the filter's answer to −ω.
    inner = found[0, 4 * band + turn, 12:20, 12:20]
    assert inner.std() < 0.02 * inner.mean()


def test_filters_equal_the_convolution_with_their_two_dimensional_kernels():
    """A slow reference: Gabor kernels written out, convolved over the image with its border repeated."""
    image, wavelength = torch.rand(1, 1, 24, 24, dtype=torch.float64), 5.0
    found = FilterBank(orientations=2, wavelengths=[wavelength], stride=1)(image, torch.zeros_like(image))
    spread = 0.56 * wavelength
    radius = math.ceil(3 * spread)
    offset = torch.arange(-radius, radius + 1, dtype=torch.float64)
    gauss = torch.exp(-0.5 * (offset / spread) ** 2)
    for turn in range(2):
        u = offset[None] if turn == 0 else offset[:, None]
        envelope = gauss[:, None] * gauss
        waves = torch.polar(torch.ones_like(envelope), (2 * math.pi / wavelength * u).expand_as(envelope))
        kernel = envelope * waves
        kernel = kernel - kernel.sum() / envelope.sum() * envelope
        kernel = kernel / kernel.abs().sum()
        assert kernel.sum().abs() < 1e-12  # zero mean
        padded = F.pad(image, (radius,) * 4, mode="replicate")
        parts = [F.conv2d(padded, part[None, None]) for part in (kernel.real, kernel.imag)]
        expected = (parts[0].square() + parts[1].square()).sqrt()
        torch.testing.assert_close(found[:, turn : turn + 1], expected, rtol=0, atol=1e-6)  # the floor under the root


def test_options_of_the_filter_bank():
    one, other = torch.rand(2, 2, 3, 32, 32)
    plain = FilterBank()(one, other)
    weighted = FilterBank(scale_weights=[1, 0, 2])(one, other)
    torch.testing.assert_close(weighted, plain * torch.tensor([1.0, 0, 2]).repeat_interleave(4)[:, None, None])
    colour = FilterBank(colour=True, stride=4)(one, other)
    assert colour.shape == (2, 36, 8, 8)
    # The amplitude of a wave forgets its place; the difference does not.
    still, moved = wave(8, 0), wave(8, 0, phase=math.pi)
    inner = slice(12, 20)
    by_amplitude = FilterBank(wavelengths=[8], compare="amplitude")(moved, still)[0, 0, inner, inner]
    by_difference = FilterBank(wavelengths=[8])(moved, still)[0, 0, inner, inner]
    assert by_amplitude.mean() < 0.02 * by_difference.mean()
    with pytest.raises(ReconError, match="3 wavelengths and 1 weights"):
        FilterBank(scale_weights=[1])
    with torch.autocast("cpu", torch.bfloat16):  # a constant in bfloat16 filters would leave 0.003
        assert FilterBank()(one + 0.5, one).max() < 1e-5


def test_the_filter_bank_makes_no_tensors_of_numbers_after_its_first_call(monkeypatch):
    """On a GPU each would be a copy that waits for the device, and is not allowed in a captured graph."""
    bank, images = FilterBank(scale_weights=[1, 2, 3]), torch.rand(2, 1, 3, 32, 32)
    expected = bank(*images)

    def refused(*_):
        raise AssertionError("a tensor is made of numbers")

    monkeypatch.setattr(torch.Tensor, "new_tensor", refused)
    monkeypatch.setattr(torch, "tensor", refused)
    found = bank(*images)
    monkeypatch.undo()
    assert torch.equal(found, expected)
