"""Parts of a resolved pipeline, built: what each is given, in which state, and what is said when one cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from recon_toolkit import ConfigError, PluginError, build_dataset, build_losses, build_model, load_pipeline
from recon_toolkit.config.pipeline import ResolvedPipeline
from recon_toolkit.plugins import PluginHost, load_plugins

TOY = Path(__file__).parent / "toy_plugin.py"

PIPELINE = """\
model: {name: toy-model, depth_min: 0.7}
encoders:
  depth: {name: toy-encoder, width: 4}
  light: {name: toy-encoder}
renderer: {name: toy-renderer, supersampling: 3}
losses:
  colour: {name: toy-colour, likelihood: laplace, scale: 3, start_weight: 1, start_epochs: 2}
  features: {name: toy-features, layers: 5, weight: 0.5, of: flipped, mask: false}
  smooth: {name: toy-smooth}
dataset: {name: toy-data, crop: [4, 5], untyped: 2}
camera: {fov: 20}
image_size: 32
training: {steps: 2}
"""


@pytest.fixture(scope="module")
def host() -> PluginHost:
    return load_plugins([TOY], entry_points=[])


@pytest.fixture
def resolve(host: PluginHost, tmp_path: Path) -> Any:
    (tmp_path / "toy.yaml").write_text(PIPELINE)

    def load(*overrides: str) -> ResolvedPipeline:
        return load_pipeline(tmp_path / "toy.yaml", overrides, host)

    return load


def test_the_model_gets_its_encoders_renderer_and_camera(resolve: Any) -> None:
    model: Any = build_model(resolve())
    assert {role: network.shape for role, network in model.encoders.items()} == {
        "depth": (3, 1, 32),
        "light": (3, 4, 32),
    }
    assert model.encoders["depth"].layer.out_features == 4
    assert (model.renderer.supersampling, model.renderer.depth_range) == (3, (0.7, 1.2))
    assert (model.camera.fov, model.renderer.camera.fov, model.image_size) == (20.0, 20.0, 32)


def test_weights_follow_the_seed_and_leave_the_global_generator_alone(resolve: Any) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (build_model(resolve(f"seed={seed}")).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first)


def test_losses_come_ready_to_call(resolve: Any) -> None:
    colour, features, smooth = build_losses(resolve())
    one, two = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    assert colour.component(one, two).unique().item() == 3.0  # |0 − 1| · scale, exact in floating point
    assert (colour.name, colour.likelihood, colour.start_weight, colour.start_epochs) == ("colour", "laplace", 1.0, 2.0)
    assert (features.weight, features.of, features.mask, features.component.layers) == (0.5, "flipped", False, 5)
    assert features.component(one, two).unique().item() == 1.0
    assert [term.takes for term in (colour, features, smooth)] == ["pair", "pair", "output"]


def test_the_data_set_gets_its_options_and_keeps_defaults_that_yaml_cannot_hold(resolve: Any) -> None:
    data = build_dataset(resolve())
    assert (data.crop, data.untyped, data.device) == ((4, 5), 2.0, torch.device("cpu"))


def test_a_loss_that_cannot_be_called_says_how_it_should_be(resolve: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"loss 'three-arguments' .* takes \(a, b, c\) \(a loss takes \(prediction, targ"
    ):
        build_losses(resolve("losses.three.name=three-arguments"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "encoders.depth.width=3",
            "encoder 'toy-encoder' of plugin 'toy_plugin.py' cannot be built: ValueError: width 3",
        ),
        ("encoders.depth={name: not-a-module}", "'not-a-module' of plugin 'toy_plugin.py' is a int"),
    ],
)
def test_a_part_that_cannot_be_built_is_named_with_its_place(resolve: Any, override: str, message: str) -> None:
    with pytest.raises(PluginError) as caught:
        build_model(resolve(override))
    assert message in str(caught.value)
    assert (caught.value.where or "").endswith("toy.yaml:3") or caught.value.where == "--set encoders.depth"
