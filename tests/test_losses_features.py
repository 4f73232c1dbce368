"""Losses on a network's features: the package's own map, layers by hand, and which weights they take."""

import math
from pathlib import Path

import lpips
import pytest
import torch
from recon_losses.lpips_map import LpipsMap
from recon_rotation_features.perceptual import SelfSupervisedPerceptual
from recon_unsup3d.losses import Perceptual
from torch.nn import functional as F

from recon_toolkit import ReconError


@pytest.fixture(scope="module")
def random_lpips():
    return LpipsMap(weights="random")


def test_gradients_at_equal_flat_images_are_finite(random_lpips):
    """Where norms have no derivative, training must not meet a NaN."""
    layers = SelfSupervisedPerceptual(weights="random", layers=(1, 2, 3))
    for loss in (random_lpips, Perceptual(weights="random"), layers):
        for value in (0.0, 0.5):
            flat = torch.full((1, 3, 32, 32), value, requires_grad=True)
            loss(flat, torch.full((1, 3, 32, 32), value)).sum().backward()
            assert flat.grad is not None and flat.grad.isfinite().all()


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
