"""The supervised baseline: depth in range, gradients, and a run of its pipeline from data to score."""

from __future__ import annotations

import json

import pytest
import torch
from recon_supervised.model import SupervisedDepth
from torch import nn

from recon_toolkit import Batch, Camera
from recon_toolkit.cli.app import execute
from recon_toolkit.config.pipeline import load_pipeline
from recon_toolkit.engine.checkpoint import load_run
from recon_toolkit.geometry import normals_from_depth
from recon_toolkit.plugins import load_plugins

TOY = [
    "image_size=32", "training.steps=4", "training.batch_size=8", "training.log_every=2", "training.workers=1",
    "encoders.depth.width=8", "dataset={name: synthetic-faces, count: 32, validation: 8, test: 8}",
]  # fmt: skip


class Raw(nn.Module):
    """A network that gives the image's first channel, scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, image):
        return self.scale * image[:, :1]


def model(**options):
    return SupervisedDepth({"depth": Raw()}, None, Camera(), 8, **options)


def test_depth_is_the_network_squashed_into_the_range():
    images = torch.rand(2, 3, 8, 8)
    depth = model(depth_min=0.8, depth_max=1.2).depth(images)
    torch.testing.assert_close(depth, 1.0 + 0.2 * torch.tanh(2 * images[:, 0] - 1))
    net = model()
    nn.init.constant_(net.encoders["depth"].scale, 1e6)
    depth = net.depth(torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 3, 8, 8))
    torch.testing.assert_close(depth[:, 0, 0], torch.tensor([0.9, 1.1]))


def test_the_output_is_what_the_loss_needs_and_has_gradients():
    net = model()
    output = net(Batch(image=torch.rand(2, 3, 8, 8), index=torch.arange(2)))
    assert output.pairs == {} and output.factors["depth"].shape == (2, 8, 8)
    torch.testing.assert_close(output.factors["depth_range"], torch.tensor([0.9, 1.1]))
    output.factors["depth"].sum().backward()
    assert net.encoders["depth"].scale.grad.abs() > 0


def test_a_step_makes_no_tensors_of_numbers(monkeypatch):
    """On a GPU each would be a copy that waits for the device, and is not allowed in a captured graph."""

    def refused(*_):
        raise AssertionError("a tensor is made of numbers")

    net = model(depth_min=0.8)
    monkeypatch.setattr(torch.Tensor, "new_tensor", refused)
    output = net(Batch(image=torch.rand(2, 3, 8, 8), index=torch.arange(2)))
    monkeypatch.undo()
    torch.testing.assert_close(output.factors["depth_range"], torch.tensor([0.8, 1.1]), rtol=0, atol=0)
    assert list(net.state_dict()) == ["encoders.depth.scale"]  # checkpoints are those of before


def test_a_reconstruction_has_depth_normals_and_no_mask():
    images = torch.rand(2, 3, 8, 8)
    net = model()
    found = net.reconstruct(images)
    assert found.mask is None and found.albedo is None and not found.depth.requires_grad
    assert torch.equal(found.depth, net.depth(images))
    assert torch.equal(found.normals, normals_from_depth(found.depth, Camera()))


def test_an_empty_range_is_refused():
    for limits in ((1.1, 0.9), (0.0, 1.0)):
        with pytest.raises(ValueError, match="must be above 0"):
            model(depth_min=limits[0], depth_max=limits[1])


def test_the_pipeline_has_the_data_the_network_and_the_budget_of_the_one_it_is_compared_with():
    host = load_plugins()
    ours, theirs = (
        load_pipeline(name, [], host).pipeline for name in ("supervised-depth", "unsup3d-quick-photometric")
    )
    assert ours.encoders == {"depth": theirs.encoders["depth"]} and ours.renderer is None
    same = ("dataset", "image_size", "camera", "evaluation", "seed")
    assert all(getattr(ours, name) == getattr(theirs, name) for name in same)
    assert ours.training.model_copy(update={"part_warmup_steps": theirs.training.part_warmup_steps}) == theirs.training


def test_a_run_is_scored_and_reconstructs_photographs(cache, tmp_path):
    out = tmp_path / "run"
    settings = [argument for setting in TOY for argument in ("--set", setting)]
    assert execute(["run", "-p", "supervised-depth", "--out", str(out), "--device", "cpu", "--quiet", *settings]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["steps"] == 4 and summary["images"] == 8 and summary["findings"] == []
    assert 0 < summary["side"] < 20 and 0 < summary["mad"] < 180
    assert (out / "contact_sheet.png").stat().st_size
    entries = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < e["loss.depth"] < 1 for e in entries if e["kind"] == "train")
    trained, _ = load_run(out, load_plugins())
    assert trained.reconstruct(torch.rand(1, 3, 32, 32)).depth.shape == (1, 32, 32)
    photograph = out / "contact_sheet.png"
    arguments = ["--run", str(out), "--no-detect", "--out", str(tmp_path / "found"), str(photograph)]
    assert execute(["--quiet", "reconstruct", *arguments]) == 0
    assert (tmp_path / "found" / "contact_sheet" / "mesh.obj").is_file()
