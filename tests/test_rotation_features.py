"""Features learned from rotations: the task, its losses, and the perceptual loss on what was learned."""

from __future__ import annotations

import json
import math

import pytest
import torch
from recon_rotation_features.model import ConvFeatures, RotationClassifier, rotation, rotation_accuracy, turned
from recon_rotation_features.perceptual import BUNDLED, SelfSupervisedPerceptual
from safetensors.torch import save_file

from recon_toolkit import Batch, Camera, ModelOutput, build_losses
from recon_toolkit.cli.app import execute
from recon_toolkit.config.pipeline import load_pipeline
from recon_toolkit.engine.checkpoint import load_checkpoint, load_run
from recon_toolkit.errors import CheckpointError, ConfigError, ReconError
from recon_toolkit.plugins import load_plugins

TOY = [
    "image_size=32", "model.channels=32", "encoders.features.width=16", "training.steps=4", "training.batch_size=8",
    "training.log_every=2", "training.workers=1", "training.precision=fp32",
    "dataset={name: synthetic-faces, count: 32, validation: 8, test: 8}",
]  # fmt: skip


@pytest.fixture(scope="session")
def run(cache, tmp_path_factory):
    """A finished run of the pipeline, made by the command line."""
    out = tmp_path_factory.mktemp("rotation") / "run"
    settings = [argument for setting in TOY for argument in ("--set", setting)]
    assert execute(["run", "-p", "rotation-features", "--out", str(out), "--device", "cpu", "--quiet", *settings]) == 0
    return out


def classifier(channels=16):
    return RotationClassifier(
        {"features": ConvFeatures(3, channels, 16, width=8)}, None, Camera(), 16, channels=channels
    )


# -- the task --------------------------------------------------------------------------------------------------------


def test_every_image_is_turned_four_times():
    images = torch.rand(3, 3, 4, 4)
    found = turned(images).reshape(4, 3, 3, 4, 4)
    for turns in range(4):
        assert torch.equal(found[turns], torch.rot90(images, turns, (2, 3)))
    # A quarter turn counter-clockwise takes the upper right corner to the upper left.
    assert torch.equal(found[1][..., 0, 0], images[..., 0, -1])


def test_labels_are_the_turns_of_their_images():
    net = classifier()
    images = torch.rand(2, 3, 16, 16)
    output = net(Batch(image=images, index=torch.arange(2)))
    assert output.pairs == {} and output.factors["labels"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    # The logits of a turned image are those of the image given turned: float32 sums in another order.
    again = net(Batch(image=images.rot90(1, (2, 3)), index=torch.arange(2)))
    torch.testing.assert_close(output.factors["logits"][2:4], again.factors["logits"][:2], rtol=0, atol=1e-5)


def test_losses_by_hand():
    logits = torch.tensor([[2.0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1.0]])
    output = ModelOutput({}, {"logits": logits, "labels": torch.tensor([0, 1, 2])})
    expected = (math.log(math.exp(2) + 3) - 2 + math.log(4) + math.log(3 + math.e)) / 3
    assert float(rotation(output)) == pytest.approx(expected, rel=1e-6)  # float32
    assert float(rotation_accuracy(output)) == pytest.approx(1 / 3)  # among equal logits the first is taken


def test_rotations_can_be_learned():
    net, images = classifier(), torch.linspace(0, 1, 16)[:, None].expand(4, 3, 16, 16) + 0.1 * torch.rand(4, 3, 16, 16)
    batch = Batch(image=images, index=torch.arange(4))
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        rotation(net(batch)).backward()
        optimizer.step()
    assert float(rotation_accuracy(net(batch))) == 1  # brightness grows downwards: nothing is ambiguous


def test_the_layers_sizes_and_the_refused_ones():
    net = ConvFeatures(3, 24, 32, width=8)
    images = torch.rand(2, 3, 32, 32)
    assert [tuple(m.shape[1:]) for m in net.maps(images)] == [(8, 16, 16), (16, 8, 8), (24, 8, 8)]
    assert torch.equal(net(images), net.maps(images)[-1])
    # float32: a convolution of one image may sum in another order than one of two.
    torch.testing.assert_close(net(images)[:1], net(images[:1]), rtol=0, atol=1e-5)
    for options, message in (((24, 30, 8), "sides"), ((20, 32, 8), "features is"), ((24, 32, 12), "width is")):
        with pytest.raises(ValueError, match=message):
            ConvFeatures(3, *options[:2], width=options[2])


# -- the loss --------------------------------------------------------------------------------------------------------


def test_a_run_learns_and_has_no_score(run):
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 4 and summary["side"] is None and summary["findings"] == []
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    train = [e for e in entries if e["kind"] == "train"]
    assert train and all(e["loss"] == e["loss.rotation"] and 0 <= e["loss.accuracy"] <= 1 for e in train)
    assert (run / "contact_sheet.png").stat().st_size


@pytest.mark.parametrize("layers", [(3,), (1,), (3, 1)])
def test_residual_by_hand(run, layers):
    loss = SelfSupervisedPerceptual(weights=run, layers=layers)
    trained, _ = load_run(run, load_plugins())
    prediction, target = torch.rand(2, 2, 3, 32, 32)
    expected = []
    for layer in layers:
        maps = (trained.encoders["features"].maps(image * 2 - 1)[layer - 1].detach() for image in (prediction, target))
        # Unit vectors, but for the constant that keeps empty places harmless: |a − b|² = |a|² + |b|² − 2 a·b.
        first, second = (m / (m.square().sum(1, keepdim=True) + 1e-4 * m.shape[1]).sqrt() for m in maps)
        map_ = (first.square() + second.square() - 2 * first * second).sum(1, keepdim=True)
        expected.append(torch.nn.functional.avg_pool2d(map_, 2) if layer == 1 and len(layers) > 1 else map_)
    found = loss(prediction, target)
    size = 16 if layers == (1,) else 8
    assert found.shape == (2, 1, size, size)
    # float32: differences of numbers of about 1, and convolutions of two images or of four.
    torch.testing.assert_close(found, torch.stack(expected).mean(0), rtol=0, atol=1e-4)
    assert float(found.min()) > 0 and float(found.max()) <= 2 and not loss(target, target).any()


def test_gradients_reach_the_prediction_and_leave_the_features(run):
    loss = SelfSupervisedPerceptual(weights=run).train()
    assert not loss.training and not any(p.requires_grad for p in loss.parameters())
    prediction, target = torch.rand(2, 1, 3, 32, 32)
    prediction.requires_grad_()
    loss(prediction, target).mean().backward()
    assert prediction.grad.isfinite().all() and (prediction.grad.abs().amax((0, 1)) > 0).float().mean() > 0.9
    assert all(p.grad is None for p in loss.parameters())


def test_gradient_against_finite_differences():
    loss = SelfSupervisedPerceptual(weights="random", layers=(1, 3)).double()
    # The kernels are float32 where the residual is formed: compare a directional derivative, not every entry.
    prediction, target = torch.rand(2, 1, 3, 16, 16, dtype=torch.float64)
    prediction.requires_grad_()
    loss(prediction, target).mean().backward()
    direction = torch.randn_like(prediction)
    step = 1e-3
    with torch.no_grad():
        ahead, behind = (loss(prediction + s * direction, target).mean() for s in (step, -step))
    slope = float(prediction.grad.mul(direction).sum())
    # Measured difference 1e-3 of the slope: float32 residuals, and ReLUs that switch within the step.
    assert float(ahead - behind) / (2 * step) == pytest.approx(slope, rel=0.03)


def test_random_features_by_name_only_and_always_the_same():
    images = torch.rand(2, 1, 3, 32, 32)
    state = torch.get_rng_state()
    first = SelfSupervisedPerceptual(weights="random")
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(7)
    assert torch.equal(first(*images), SelfSupervisedPerceptual(weights="random")(*images))
    with pytest.raises(TypeError, match="weights"):
        SelfSupervisedPerceptual()


def test_a_pipeline_names_its_weights_by_folder_or_as_random(run):
    term = "losses.features={name: self-supervised-perceptual, likelihood: gaussian, weights: %s}"
    for weights, width in ((run, 16), ("random", 32), ("bundled", 32)):
        terms = build_losses(load_pipeline("unsup3d-quick", [term % weights], load_plugins()))
        assert terms[-1].takes == "pair" and terms[-1].component.features.layers[0][0].out_channels == width
    with pytest.raises(ConfigError, match="weights"):
        load_pipeline("unsup3d-quick", ["losses.features={name: self-supervised-perceptual}"], load_plugins())


def test_weights_that_do_not_fit_are_explained(run, tmp_path):
    with pytest.raises(CheckpointError, match=r"no features here.*recon run --pipeline rotation-features --out RUN"):
        SelfSupervisedPerceptual(weights=tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="no weights here yet"):
        SelfSupervisedPerceptual(weights=tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="not of the form"):
        SelfSupervisedPerceptual(weights=tmp_path / "other.safetensors")
    for layers in ((), (0,), (4,), (1, 1)):
        with pytest.raises(ReconError, match="not distinct layers of 1 to 3"):
            SelfSupervisedPerceptual(weights="random", layers=layers)


def test_a_run_of_another_pipeline_is_refused(run, tmp_path):
    from recon_toolkit.engine.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

    saved = load_checkpoint(run / "model.safetensors")
    other = {k.replace("encoders.features", "encoders.depth"): v for k, v in saved.tensors.items()}
    save_checkpoint(tmp_path / "a.safetensors", Checkpoint(4, saved.pipeline, "", other, {}))
    with pytest.raises(CheckpointError, match=r"another pipeline.*rotation-features"):
        SelfSupervisedPerceptual(weights=tmp_path / "a.safetensors")
    foreign = saved.pipeline.replace("name: conv-features", "name: my-features")
    assert foreign != saved.pipeline
    save_checkpoint(tmp_path / "b.safetensors", Checkpoint(4, foreign, "", saved.tensors, {}))
    with pytest.raises(CheckpointError, match="'my-features', and this loss knows conv-features only"):
        SelfSupervisedPerceptual(weights=tmp_path / "b.safetensors")


def test_the_bundled_features_say_what_they_are():
    saved = load_checkpoint(BUNDLED)
    assert saved.step == 1000 and "rotation-classifier" in saved.pipeline and "seed: 0" in saved.pipeline
    assert all(name.startswith("model.encoders.features.") for name in saved.tensors)
    bundled, random = SelfSupervisedPerceptual(weights="bundled"), SelfSupervisedPerceptual(weights="random")
    noise = torch.rand(2, 1, 3, 64, 64)
    assert not torch.allclose(bundled(*noise), random(*noise), rtol=0.1)  # not the random ones under another name


def test_the_quick_pipeline_compares_the_bundled_features():
    terms = {t.name: t for t in build_losses(load_pipeline("unsup3d-quick", [], load_plugins()))}
    assert {"photometric", "flipped", "perceptual", "flipped-perceptual"} == set(terms)
    assert terms["perceptual"].likelihood == "gaussian" and terms["flipped-perceptual"].of == "flipped"
    with pytest.raises(ConfigError, match="weights"):
        load_pipeline("unsup3d-quick", ["losses.perceptual.weights=null"], load_plugins())
