"""The reference method: published sizes, factor ranges, and what its options take away."""

import math

import pytest
import torch
from recon_unsup3d.losses import Perceptual, depth_smoothness, photometric
from recon_unsup3d.model import Unsup3D
from recon_unsup3d.networks import SIZES, ConvAutoencoder, ConvConfidence, ConvRegressor

from recon_toolkit import Batch
from recon_toolkit.engine.environment import parameter_count
from recon_toolkit.errors import ReconError
from recon_toolkit.geometry import Camera
from recon_toolkit.rendering import DepthMeshRenderer


def model(size=32, confidence=True, **options):
    torch.manual_seed(0)
    camera = Camera()
    encoders = {
        "depth": ConvAutoencoder(3, 1, size, width=8),
        "albedo": ConvAutoencoder(3, 3, size, width=8),
        "light": ConvRegressor(3, 4, size, width=8),
        "view": ConvRegressor(3, 6, size, width=8),
    }
    if confidence:
        encoders["confidence"] = ConvConfidence(3, 2, size, width=8)
    return Unsup3D(encoders, DepthMeshRenderer(camera=camera, depth_range=(0.9, 1.1)), camera, size, **options)


def batch(size=32, count=2):
    generator = torch.Generator().manual_seed(1)
    return Batch(image=torch.rand(count, 3, size, size, generator=generator), index=torch.arange(count))


def test_the_albedo_network_has_the_published_weights_layer_by_layer():
    published = [
        3072, 128, 131072, 256, 524288, 512, 2097152, 2097152, 2097152, 2359296, 2097152, 512, 589824, 512, 524288,
        256, 147456, 256, 131072, 128, 36864, 128, 36864, 128, 102400, 128, 4800,
    ]  # fmt: skip
    network = ConvAutoencoder(3, 3, 64).network
    counts = [sum(p.numel() for p in layer.parameters()) for layer in network]
    assert [count for count in counts if count] == published


def test_the_five_networks_have_the_published_size():
    networks = [
        ConvAutoencoder(3, 1, 64), ConvAutoencoder(3, 3, 64), ConvRegressor(3, 4, 64), ConvRegressor(3, 6, 64),
        ConvConfidence(3, 2, 64),
    ]  # fmt: skip
    assert round(sum(parameter_count(network) for network in networks) / 1e6, 2) == 37.12


@pytest.mark.parametrize("size", SIZES)
def test_networks_fit_every_size(size):
    image = torch.zeros(1, 3, size, size)
    assert ConvAutoencoder(3, 1, size, width=8)(image).shape == (1, 1, size, size)
    assert ConvRegressor(3, 6, size, width=8)(image).shape == (1, 6)
    fine, coarse = ConvConfidence(3, 2, size, width=8)(image)
    assert fine.shape == (1, 2, size, size) and coarse.shape == (1, 2, size // 4, size // 4)


def test_sizes_and_widths_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="32, 64, 128, 256"):
        ConvRegressor(3, 6, 48)
    with pytest.raises(ValueError, match="multiple of 4"):
        ConvAutoencoder(3, 1, 64, width=10)


def test_a_bottleneck_below_zero_tells_images_apart_only_with_a_slope():
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for slope in (0.0, 0.2):
        network = ConvAutoencoder(3, 1, 32, width=8, bottleneck_slope=slope)
        layers = list(network.network)
        after = next(i for i, layer in enumerate(layers) if isinstance(layer, torch.nn.ConvTranspose2d))
        layers[after - 2].register_forward_hook(lambda _layer, _inputs, out: -out.abs())  # the bottleneck's convolution
        one, other = network(images)
        assert torch.equal(one, other) == (slope == 0)
    with pytest.raises(ValueError, match="bottleneck_slope 1 must be 0 or more"):
        ConvAutoencoder(3, 1, 32, width=8, bottleneck_slope=1)


def test_factors_lie_in_their_documented_ranges():
    found = model(translation_z_range=0.05, ambient_range=(0.1, 0.6), diffuse_range=(0.5, 1.0)).reconstruct(
        batch(count=4).image
    )
    assert ((found.canonical_depth >= 0.9) & (found.canonical_depth <= 1.1)).all()
    assert ((found.canonical_albedo >= 0) & (found.canonical_albedo <= 1)).all()
    assert ((found.light[:, 0] >= 0.1) & (found.light[:, 0] <= 0.6)).all()
    assert ((found.light[:, 1] >= 0.5) & (found.light[:, 1] <= 1.0)).all()
    torch.testing.assert_close(found.light[:, 2:].norm(dim=1), torch.ones(4))
    assert (found.view[:, :3].abs() <= math.radians(60)).all() and (found.view[:, 5].abs() <= 0.05).all()
    # The two outermost columns on either side are clamped to 0.7 · 1.1 + 0.3 · 0.9.
    torch.testing.assert_close(found.canonical_depth[:, :, [0, 1, -2, -1]], torch.full((4, 32, 4), 1.04))


def test_depth_has_mean_zero_before_its_tanh():
    depth = model().canonical(batch().image).depth[:, :, 2:-2]
    inside = torch.atanh((depth - 1.0) / 0.1)
    # The mean is over all columns; with an untrained network the four clamped ones hardly move it.
    assert inside.mean((1, 2)).abs().max() < 0.05


def test_the_flipped_pair_is_the_mirrored_object_in_the_same_view_and_light():
    net = model(confidence=False)
    found = net(batch())
    depth, albedo = found.factors["canonical_depth"], found.factors["canonical_albedo"]
    image = net.lit(depth.flip(-1), albedo.flip(-1), found.factors["light"]).image
    expected = net.renderer(depth.flip(-1), image, found.factors["view"])
    torch.testing.assert_close(found.pairs["flipped"].prediction, expected.image)
    plain = net.lit(depth, albedo, found.factors["light"]).image
    mask = net.renderer(depth, plain, found.factors["view"]).mask & expected.mask
    assert torch.equal(found.pairs["plain"].mask, mask.float())


def test_options_take_parts_away():
    plain = model(confidence=False, flip_depth=False, flip_albedo=False)(batch())
    assert set(plain.pairs) == {"plain"} and plain.pairs["plain"].spreads == ()
    found = model(shading=False).reconstruct(batch().image)
    torch.testing.assert_close(found.canonical_image, found.canonical_albedo)


@pytest.mark.parametrize("shading", [True, False])
def test_unused_networks_are_those_that_no_gradient_reaches(shading):
    net = model(shading=shading)
    found = net(batch())
    sum(pair.prediction.sum() + sum(s.sum() for s in pair.spreads) for pair in found.pairs.values()).backward()
    without = {role for role, part in net.encoders.items() if all(p.grad is None for p in part.parameters())}
    assert net.unused_encoders == without == (set() if shading else {"light"})


def test_a_step_makes_no_tensors_of_numbers(monkeypatch):
    """On a GPU each would be a copy that waits for the device, and is not allowed in a captured graph."""

    def refused(*_):
        raise AssertionError("a tensor is made of numbers")

    net = model(translation_z_range=0.05, depth_min=0.8)
    monkeypatch.setattr(torch.Tensor, "new_tensor", refused)
    found = net(batch())
    monkeypatch.undo()
    torch.testing.assert_close(found.factors["depth_range"], torch.tensor([0.8, 1.1]), rtol=0, atol=0)
    turn = math.radians(60)
    expected = torch.tensor([turn, turn, turn, 0.1, 0.1, 0.05])
    torch.testing.assert_close(found.diagnostics["view_range"], expected, rtol=0, atol=0)
    # They are options of the pipeline, not weights: checkpoints are those of before.
    assert {name.split(".")[0] for name in net.state_dict()} == {"encoders"}


def test_confidence_maps_are_positive_and_shared_out():
    found = model()(batch())
    (fine, coarse), (other, _) = found.pairs["plain"].spreads, found.pairs["flipped"].spreads
    assert fine.shape == (2, 1, 32, 32) and coarse.shape == (2, 1, 8, 8)
    assert (fine > 0).all() and not torch.equal(fine, other)


def test_every_network_gets_a_gradient():
    net = model()
    found = net(batch())
    sum(pair.prediction.sum() + sum(s.sum() for s in pair.spreads) for pair in found.pairs.values()).backward()
    for role, network in net.encoders.items():
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters()), role
        assert any(p.grad.abs().max() > 0 for p in network.parameters()), role


def test_the_convex_start_is_the_published_ellipsoid_and_learnable():
    net = model(size=64, convex_start_steps=1)
    target = net.convex_depth()
    axis = torch.linspace(-1, 1, 64)
    x, y = axis[None, :], axis[:, None]
    inside = 1 - (x / 0.8) ** 2 - (y / 0.95) ** 2
    expected = 1.06 - 0.11 * inside.clamp(min=0).sqrt()
    torch.testing.assert_close(target, expected)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    data = batch(size=64)
    first = net.warm_start_loss(data).item()
    for _ in range(20):
        optimizer.zero_grad()
        net.warm_start_loss(data).backward()
        optimizer.step()
    assert net.warm_start_loss(data).item() < 0.5 * first


def test_photometric_is_the_l1_of_images_in_minus_one_to_one():
    one, other = torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(photometric(one, other), ((one * 2 - 1) - (other * 2 - 1)).abs())


def test_smoothness_of_a_ramp():
    found = model()(batch())
    found.factors["canonical_depth"] = torch.linspace(0.9, 1.1, 32).expand(1, 32, 32)
    assert depth_smoothness(found).item() == pytest.approx(1 / 31, rel=1e-4)  # float32 of a difference of depths


def test_vgg_weights_that_are_missing_or_wrong_are_explained(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ReconError, match=r"vgg16-397923af\.pth.*losses\.NAME=null"):
        Perceptual()
    broken = tmp_path / "vgg.pth"
    broken.write_bytes(b"not weights")
    with pytest.raises(ReconError, match="does not hold VGG16's weights"):
        Perceptual(weights=broken)


def test_perceptual_residual_of_given_weights(tmp_path):
    """Weights are found where the user says; the residual is 0 for equal images, at a quarter of their size."""
    from torchvision.models.vgg import cfgs, make_layers

    torch.manual_seed(0)
    features = make_layers(cfgs["D"])  # 31 layers; the file also has a classifier
    file = tmp_path / "vgg.pth"
    state = {f"features.{k}": v for k, v in features.state_dict().items()} | {"classifier.0.bias": torch.zeros(4096)}
    torch.save(state, file)
    loss = Perceptual(weights=file)
    one, other = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    assert loss(one, one).abs().max() == 0
    found = loss(one, other)
    assert found.shape == (1, 256, 8, 8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    def relu3_3(x):  # layer 15
        return features[:16]((x - mean[:, None, None]) / std[:, None, None])

    torch.testing.assert_close(found, (relu3_3(one) - relu3_3(other)).square())
