"""The losses of the shipped plugins against closed forms, slow references and finite differences."""

import math
from pathlib import Path

import kornia
import lpips
import numpy as np
import pytest
import torch
from recon_losses.albedo import AlbedoSmoothness, smoothness_map
from recon_losses.factors import normal_consistency, symmetry
from recon_losses.filter_bank import FilterBank
from recon_losses.image import LaplacianPyramid, edges, ssim
from recon_losses.lpips_map import LpipsMap
from recon_losses.truth import silhouette, supervised_depth
from recon_unsup3d.losses import Perceptual
from torch.nn import functional as F

from recon_toolkit import Batch, ModelOutput, ReconError, build_losses, load_pipeline, load_plugins
from recon_toolkit.geometry import Camera, backproject

RANGE = torch.tensor([0.9, 1.1])
PLUGIN = Path(__file__).parent.parent / "plugins" / "recon_losses"
PAIR_LOSSES = {
    "ssim": ssim,
    "edges": edges,
    "laplacian-pyramid": LaplacianPyramid(),
    "filter-bank": FilterBank(),
    "filter-bank of amplitudes": FilterBank(compare="amplitude", colour=True),
}


@pytest.fixture(scope="module")
def random_lpips():
    return LpipsMap(weights="random")


@pytest.fixture(scope="module")
def host():
    host = load_plugins()
    return host if "ssim" in host.registry.names("loss") else load_plugins([PLUGIN])


def output(**factors):
    return ModelOutput({}, {"depth_range": RANGE, **factors})


def batch(**fields):
    return Batch(image=fields.pop("image", torch.zeros(2, 3, 4, 4)), index=torch.arange(2), **fields)


def wave(wavelength, angle, size=64, phase=0.0):
    """A sinusoid across the image, of amplitude 0.5 about 0.5, its wave vector at ``angle``: (1, 3, size, size)."""
    axis = torch.arange(size, dtype=torch.float64)
    along = axis * math.cos(angle) + axis[:, None] * math.sin(angle)
    return (0.5 + 0.5 * torch.sin(2 * math.pi * along / wavelength + phase)).expand(1, 3, size, size)


# -- between two images ----------------------------------------------------------------------------------------------


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
def test_mirrored_images_give_the_mirrored_residual_somewhere(name):
    """No loss prefers a side: its mean is the same for mirrored images."""
    one, other = torch.rand(2, 2, 3, 32, 32, dtype=torch.float64)
    found, mirrored = PAIR_LOSSES[name](one, other).mean(), PAIR_LOSSES[name](one.flip(-1), other.flip(-1)).mean()
    torch.testing.assert_close(found, mirrored, rtol=1e-9, atol=0)  # float64 sums in another order


def test_gradients_at_equal_flat_images_are_finite(random_lpips):
    """Where roots and norms have no derivative, training must not meet a NaN."""
    for loss in (*PAIR_LOSSES.values(), random_lpips, Perceptual(weights="random")):
        for value in (0.0, 0.5):
            flat = torch.full((1, 3, 32, 32), value, requires_grad=True)
            loss(flat, torch.full((1, 3, 32, 32), value)).sum().backward()
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


# -- with a network's features ---------------------------------------------------------------------------------------


def test_lpips_is_the_packages_own_map(tmp_path, random_lpips):
    """Weights are taken from the file that the user names, here the random ones, shaken."""
    slices = random_lpips.network.net.children()
    features = {
        f"features.{k}": v + 0.05 * torch.randn_like(v) for part in slices for k, v in part.state_dict().items()
    }
    torch.save(features, tmp_path / "alex.pth")
    loss = LpipsMap(weights=tmp_path / "alex.pth")
    one, other = torch.rand(2, 2, 3, 48, 48)
    found = loss(one, other)
    assert found.shape == (2, 1, 48, 48) and found.min() >= 0 and loss(one, one).abs().max() == 0
    assert torch.equal(loss.network.net.slice2.state_dict()["3.weight"], features["features.3.weight"])
    # By hand, with the heads that the package ships: unit features, squared difference, head, full size, sum.
    heads = torch.load(Path(lpips.__file__).parent / "weights/v0.1/alex.pth", map_location="cpu", weights_only=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected, values = 0, [(image - mean[:, None, None]) / std[:, None, None] for image in (one, other)]
    for n, part in enumerate(loss.network.net.children()):
        values = [part(value) for value in values]
        first, second = (F.normalize(value, dim=1) for value in values)
        layer = ((first - second).square() * heads[f"lin{n}.model.1.weight"][0]).sum(1, keepdim=True)
        expected = expected + F.interpolate(layer, (48, 48), mode="bilinear", align_corners=False)
    # The package rounds ImageNet's means and spreads to three digits after its own scaling.
    torch.testing.assert_close(found, expected, rtol=0.02, atol=1e-4)
    assert not torch.isclose(found, random_lpips(one, other)).all()
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_lpips_says_which_weights_it_lacks(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for net, file in (("alex", "alexnet-owt-7be5be79.pth"), ("vgg", "vgg16-397923af.pth")):
        with pytest.raises(ReconError, match=rf"no file .*{file} \(put torchvision's {file} at .*losses\.NAME=null"):
            LpipsMap(net=net)
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    with pytest.raises(ReconError, match="does not hold the weights of 'alex'"):
        LpipsMap(weights=tmp_path / "broken.pth")


@pytest.mark.parametrize(
    ("layers", "shape"),
    [(["relu1_1"], (64, 32, 32)), (["relu5_3"], (512, 2, 2)), (["relu4_3", "relu1_2", "relu2_2"], (704, 4, 4))],
)
def test_perceptual_layers(layers, shape):
    found = Perceptual(layers=layers, weights="random")(*torch.rand(2, 1, 3, 32, 32))
    assert found.shape == (1, *shape) and found.min() >= 0 and found.mean() > 0


def test_several_layers_are_each_layer_pooled_and_weighted():
    one, other = torch.rand(2, 1, 3, 32, 32)
    together = Perceptual(layers=["relu1_2", "relu3_3"], layer_weights=[0.5, 1], weights="random")(one, other)
    low, high = (Perceptual(layers=[layer], weights="random")(one, other) for layer in ("relu1_2", "relu3_3"))
    expected = torch.cat((0.5 * F.avg_pool2d(low, 4), high), 1)
    torch.testing.assert_close(together, expected)
    with pytest.raises(ReconError, match="relu1_2 and 2 layer weights"):
        Perceptual(layers=["relu1_2"], layer_weights=[1, 2], weights="random")
    with pytest.raises(ReconError, match="each layer once"):
        Perceptual(layers=["relu1_2", "relu1_2"], weights="random")


def test_random_weights_are_the_same_in_every_run_and_leave_the_generator_alone():
    state = torch.get_rng_state()
    first = Perceptual(weights="random")
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    again = Perceptual(weights="random")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    weight = first.features[10].weight  # conv3_1, 128 → 256: spread √(2 / (256 · 9)) after He et al. 2015
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (256 * 9)), rel=0.01)  # of 294,912 draws
    assert not any(parameter.requires_grad for parameter in first.parameters())


# -- on factors ------------------------------------------------------------------------------------------------------


def slow_smoothness(albedo, image, depth):
    """LeMul's formula, pixel by pixel."""
    _, height, width = image.shape
    found = torch.zeros(height, width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            pull = torch.zeros(3, dtype=torch.float64)
            for v in range(max(y - 1, 0), min(y + 2, height)):
                for u in range(max(x - 1, 0), min(x + 2, width)):
                    colour = ((image[:, y, x] - image[:, v, u]) ** 2).sum()
                    w_c = math.exp(-colour / 0.1) if colour < 0.5 else 0.0
                    w_d = math.exp(-((depth[y, x] - depth[v, u]) ** 2) / 4)
                    pull += w_c * w_d * (albedo[:, y, x] - albedo[:, v, u])
            found[y, x] = (pull**2).sum()
    return found


def test_albedo_smoothness_is_lemuls_formula():
    albedo, image = torch.rand(2, 1, 3, 7, 6, dtype=torch.float64) * 2 - 1
    image = image * 0.5  # so that some neighbours differ by more than the threshold, and some by less
    depth = torch.rand(1, 7, 6, dtype=torch.float64) * 3
    found = smoothness_map(albedo, image, depth)
    torch.testing.assert_close(found[0], slow_smoothness(albedo[0], image[0], depth[0]))
    assert smoothness_map(torch.full_like(albedo, 0.3), image, depth).abs().max() == 0
    assert torch.autograd.gradcheck(smoothness_map, (albedo.requires_grad_(), image, depth.requires_grad_()))


def test_albedo_smoothness_compares_in_the_input_view():
    """In the view of the canonical frame the warp does nothing, and the map is the formula's."""
    albedo, image = torch.rand(2, 2, 3, 16, 16)
    depth = torch.full((2, 16, 16), 1.0)
    mask = torch.zeros(2, 16, 16)
    mask[:, 2:9] = 1
    given = output(canonical_albedo=albedo, depth=depth, view=torch.zeros(2, 6), mask=mask)
    found = AlbedoSmoothness()(given, batch(image=image))
    expected = smoothness_map(albedo * 2 - 1, image * 2 - 1, depth) * mask
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)  # pixel positions pass through the warp in float32
    yawed = torch.zeros(2, 6)
    yawed[:, 1] = 0.3
    turned = AlbedoSmoothness()(output(**{**given.factors, "view": yawed}), batch(image=image))
    assert (turned - expected).abs().mean() > 1e-3
    with pytest.raises(ReconError, match=r"needs the factor 'view', and the model offers: .*depth"):
        AlbedoSmoothness()(output(canonical_albedo=albedo, depth=depth), batch(image=image))


def test_bending_of_planes_spheres_and_folds():
    camera = Camera(10)
    rays = camera.rays(32, 32, dtype=torch.float64)
    normal = torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64)
    plane = (1 / (normal[:, None, None] * rays).sum(0))[None]  # n·P = 1 for every pixel
    assert normal_consistency(output(canonical_depth=plane)) < 1e-12  # rounding of float64
    # A sphere of radius r about (0, 0, c): between pixels s apart on it, normals turn by s / r.
    radius, centre = 0.5, 1.4
    b, c2 = rays[2] * centre / rays.square().sum(0), (centre**2 - radius**2) / rays.square().sum(0)
    sphere = (b - (b * b - c2).sqrt())[None]
    points = backproject(sphere, camera)[0]
    normals = (points - torch.tensor([0, 0, centre], dtype=torch.float64)[:, None, None]) / radius
    inner = normals[:, 1:-1, 1:-1]
    across = (1 - (inner[..., 1:] * inner[..., :-1]).sum(0)).mean()
    down = (1 - (inner[..., 1:, :] * inner[..., :-1, :]).sum(0)).mean()
    found = normal_consistency(output(canonical_depth=sphere))
    torch.testing.assert_close(found, across + down, rtol=1e-3, atol=0)  # central differences against true normals
    rough = sphere + 0.001 * torch.rand_like(sphere)
    assert normal_consistency(output(canonical_depth=rough)) > 30 * found


def test_bending_has_the_gradient_of_finite_differences():
    depth = 1 + 0.01 * torch.rand(1, 6, 6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda d: normal_consistency(output(canonical_depth=d)), depth.requires_grad_())


def test_symmetry_by_hand():
    depth, albedo = 0.9 + 0.2 * torch.rand(2, 6, 6), torch.rand(2, 3, 6, 6)
    even = output(canonical_depth=(depth + depth.flip(-1)) / 2, canonical_albedo=(albedo + albedo.flip(-1)) / 2)
    assert symmetry(even) == 0
    ramp = torch.tensor([0.9, 1.0, 1.1]).expand(2, 3, 3)  # differs from its mirror by 0.2, 0 and 0.2
    given = output(canonical_depth=ramp, canonical_albedo=torch.tensor([0.0, 0.5, 0.6]).expand(2, 3, 3, 3))
    assert symmetry(given, albedo_share=0).item() == pytest.approx(2 / 3, rel=1e-5)  # float32
    assert symmetry(given, depth_share=0).item() == pytest.approx(0.4, rel=1e-5)
    assert symmetry(given, depth_share=3, albedo_share=0.5).item() == pytest.approx(2.2, rel=1e-5)
    with pytest.raises(ReconError, match="both shares"):
        symmetry(given, depth_share=0, albedo_share=0)


# -- with ground truth -----------------------------------------------------------------------------------------------


def test_supervised_depth_by_hand():
    true = torch.tensor([[[1.0, 1.0], [1.0, math.nan]], [[1.0, 1.0], [1.0, 1.0]]])
    mask = torch.tensor([[[True, True], [True, False]], [[True, True], [False, False]]])
    depth = torch.tensor([[[1.0, 1.1], [0.9, 5.0]], [[1.04, 0.96], [9.0, 9.0]]]).requires_grad_()
    loss = supervised_depth(output(depth=depth), batch(depth=true, mask=mask))
    # (0 + 0.1 + 0.1) / 3 and 0.04 over a range of 0.2, and the mean of the two images.
    assert loss.item() == pytest.approx((0.2 / 3 / 0.2 + 0.04 / 0.2) / 2, rel=1e-5)  # float32
    loss.backward()
    assert depth.grad.isfinite().all() and (depth.grad[~mask] == 0).all()
    covered = torch.ones(2, 2, 2)
    covered[0, 0, 1] = 0
    part = supervised_depth(output(depth=depth, mask=covered), batch(depth=true, mask=mask))
    assert part.item() == pytest.approx((0.1 / 2 / 0.2 + 0.04 / 0.2) / 2, rel=1e-5)
    assert supervised_depth(output(depth=depth), batch(depth=true, mask=mask & False)) == 0
    with pytest.raises(ReconError, match="needs true mask"):
        supervised_depth(output(depth=depth), batch(depth=true))


def test_supervised_depth_without_scale():
    true = 0.9 + 0.2 * torch.rand(2, 5, 5, dtype=torch.float64)
    mask = torch.rand(2, 5, 5) > 0.3
    truth = batch(depth=true, mask=mask)
    scaled = true * torch.tensor([1.3, 0.8], dtype=torch.float64)[:, None, None]
    assert supervised_depth(output(depth=scaled), truth, scale_invariant=True) < 1e-12  # rounding of float64
    depth = 0.9 + 0.2 * torch.rand(2, 5, 5, dtype=torch.float64)
    expected = []
    for n in range(2):
        error = depth[n][mask[n]].log() - true[n][mask[n]].log()
        expected.append((error - error.mean()).abs().mean() / math.log(1.1 / 0.9))
    found = supervised_depth(output(depth=depth), truth, scale_invariant=True)
    torch.testing.assert_close(found, sum(expected) / 2, rtol=1e-6, atol=0)  # the range is float32

    def of(depth):
        return supervised_depth(output(depth=depth), truth, scale_invariant=True)

    assert torch.autograd.gradcheck(of, depth.requires_grad_())


def test_silhouette_by_hand():
    coverage = torch.tensor([[[0.5, 1.0], [0.0, 0.25]]]).expand(2, 2, 2)
    mask = torch.tensor([[[True, True], [False, True]]]).expand(2, 2, 2)
    given, truth = output(coverage=coverage), batch(mask=mask)
    # Certainty is cut off at 1e-6, which is what right answers cost.
    expected = torch.tensor([[math.log(2), 0], [0, math.log(4)]])
    torch.testing.assert_close(silhouette(given, truth)[1], expected, rtol=0, atol=2e-6)
    # Both: 0.5 + 1 + 0.25; either: 1 + 1 + 0 + 1.
    torch.testing.assert_close(silhouette(given, truth, measure="iou"), torch.full((2,), 1 - 1.75 / 3))
    with pytest.raises(ReconError, match="needs differentiable coverage"):
        silhouette(output(mask=coverage), truth)
    with pytest.raises(ReconError, match="needs true mask"):
        silhouette(given, batch())


# -- in a pipeline ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("term", "takes", "fields"),
    [
        ("{name: ssim, window: 7}", "pair", set()),
        ("{name: edges, likelihood: laplace}", "pair", set()),
        ("{name: laplacian-pyramid, levels: 2, level_weights: [1, 0.5]}", "pair", set()),
        ("{name: filter-bank, wavelengths: [3, 6.5], scale_weights: [1, 2], compare: amplitude}", "pair", set()),
        ("{name: albedo-smoothness, weight: 0.5}", "output and batch", set()),
        ("{name: normal-consistency, fov: 10}", "output", set()),
        ("{name: symmetry, albedo_share: 0}", "output", set()),
        ("{name: supervised-depth, scale_invariant: true}", "output and batch", {"depth", "mask"}),
        ("{name: silhouette, measure: iou}", "output and batch", {"mask"}),
        ("{name: perceptual, layers: [relu1_2, relu3_3], weights: random}", "pair", set()),
    ],
)
def test_every_loss_is_built_from_yaml(host, term, takes, fields):
    (built,) = [
        term for term in build_losses(load_pipeline("unsup3d-quick", [f"losses.x={term}"], host)) if term.name == "x"
    ]
    assert (built.takes, built.batch_fields) == (takes, fields)


def test_weights_are_random_only_by_that_word(host, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("perceptual", "lpips"):

        def options(weights, name=name):
            resolved = load_pipeline("unsup3d-quick", [f"losses.x={{name: {name}{weights}}}"], host)
            return resolved, resolved.components["losses", "x"].options["weights"]

        assert options(", weights: random")[1] == "random"
        assert options(f", weights: {tmp_path}/w.pth")[1] == tmp_path / "w.pth"
        resolved, weights = options("")
        assert weights is None
        with pytest.raises(ReconError, match="there is no file"):
            build_losses(resolved)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ("{name: perceptual, layers: [relu3_4]}", "relu3_4"),
        ("{name: perceptual, layers: []}", "layers"),
        ("{name: lpips, net: squeeze}", "'alex' or 'vgg'"),
        ("{name: filter-bank, wavelengths: [1]}", "greater than or equal to 2"),
        ("{name: silhouette, measure: dice}", "'cross-entropy' or 'iou'"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_built(host, term, message):
    with pytest.raises(ReconError, match=message):
        load_pipeline("unsup3d-quick", [f"losses.x={term}"], host)
