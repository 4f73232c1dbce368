"""Clouds from one image, all the way: training, scores, page, reconstruction to printable files, a table."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
import trimesh
from PIL import Image
from recon_bench.runner import make_table, plan_table

from recon_toolkit import Camera, Reconstruction
from recon_toolkit.config.pipeline import load_pipeline
from recon_toolkit.data.packing import DataContext
from recon_toolkit.engine.checkpoint import load_checkpoint
from recon_toolkit.engine.environment import open_splits
from recon_toolkit.engine.run import run_pipeline
from recon_toolkit.errors import CheckpointError, ConfigError, DataError
from recon_toolkit.plugins import load_plugins
from recon_toolkit.result import Result

pytestmark = pytest.mark.slow

TINY = """
extends: point-cloud-quick
model: {novel_views: 2}
encoders:
  structure:
    {output_size: 64, encoder_channels: [8, 8, 8, 8], hidden: [32, 32], latent: 16, decoder_hidden: [32, 32],
     decoder_start: 16, decoder_channels: [16, 16]}
dataset: {categories: [chair, mug], count: 6, validation: 2, test: 2, images: 2, depth_size: 64, novel_views: 5, points: 400}
image_size: 32
training: {steps: 60, batch_size: 8, validate_every: 30, log_every: 20}
"""  # noqa: E501


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, cache):
    path = tmp_path_factory.mktemp("pipeline") / "clouds.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "clouds"
    return out, run_pipeline(load_pipeline(tiny, [], load_plugins()), out=out, device="cpu")


@pytest.fixture(scope="module")
def photos(tiny, run, tmp_path_factory):
    """Two pictures of objects that were not trained on, one small on a larger sheet."""
    folder = tmp_path_factory.mktemp("photos")
    data = open_splits(load_pipeline(tiny, [], load_plugins()), DataContext()).evaluation
    for n, name in ((0, "chair"), (2, "mug")):
        pixels = (data.batch([n]).image[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    sheet = np.full((200, 300, 3), 255, dtype=np.uint8)
    sheet[60:92, 150:182] = np.asarray(Image.open(folder / "chair.png"))
    Image.fromarray(sheet).save(folder / "sheet.png")
    return folder


def test_a_run_is_scored_by_what_its_model_brings_along(run):
    out, summary = run
    scores = summary.scores
    assert scores is not None and summary.images == scores.images == 8 and summary.side is None
    assert set(scores.baselines) == {"mean-shape", "retrieval"} and set(scores.groups) == {"chair", "mug"}
    written = json.loads((out / "summary.json").read_text())
    assert written["scores"]["values"]["chamfer"]["mean"] == scores.values["chamfer"].mean
    frame = pd.read_csv(out / "scores.csv")
    assert list(frame.group) == ["chair", "chair", "mug", "mug"] * 2 and "mean-shape_to_truth" in frame
    assert frame.chamfer.mean() == pytest.approx(scores.values["chamfer"].mean, rel=1e-12)  # written to the last digit
    page = (out / "index.html").read_text()
    assert "nearest training image" in page and "Chamfer" in page and "mug, 4 images" in page
    assert (out / "objects.html").is_file() and (out / "contact_sheet.png").is_file()


def test_validations_are_in_the_log_with_their_ratios(run):
    entries = [json.loads(line) for line in (run[0] / "metrics.jsonl").read_text().splitlines()]
    found = [entry for entry in entries if entry["kind"] == "validation"]
    assert [entry["step"] for entry in found] == [30, 60]
    assert all(entry["to_truth_ratio"] > 0 for entry in found)


def test_pictures_become_clouds_printable_meshes_and_a_page(run, photos, recon, tmp_path):
    out = tmp_path / "results"
    code, said, err = recon("reconstruct", "--run", run[0], "--out", out, photos / "chair.png", photos / "sheet.png")
    assert code == 0, err
    assert "2 reconstructed" in said and (out / "index.html").is_file()
    cloud = trimesh.load(out / "chair" / "cloud.ply")
    assert len(cloud.vertices) >= 100 and np.abs(cloud.vertices).max() < 1
    printed = trimesh.load(out / "chair" / "mesh.stl")
    assert printed.is_watertight and printed.is_winding_consistent and printed.volume > 0
    assert printed.extents[2] == pytest.approx(60, abs=1e-4)  # millimetres, in float32
    # The sheet shows the same chair, and framing it costs no more than resampling does.
    again = trimesh.load(out / "sheet" / "cloud.ply")
    assert len(again.vertices) == pytest.approx(len(cloud.vertices), rel=0.5)


def test_all_outputs_of_points_can_be_named(run, photos, recon, tmp_path):
    out = tmp_path / "all"
    kinds = "cloud,glb,obj,ply,stl,3mf,voxels,maps,pages"
    code, _, err = recon("reconstruct", "--run", run[0], "--out", out, "--write", kinds, photos / "mug.png",
                         "--height", "100")  # fmt: skip
    assert code == 0, err
    names = {path.name for path in (out / "mug").iterdir()}
    assert names >= {f"mesh.{kind}" for kind in ("glb", "obj", "ply", "stl", "3mf")} | {"cloud.ply", "voxels.binvox"}
    assert {"input.png", "index.html"} <= names
    voxels = trimesh.load(out / "mug" / "voxels.binvox")
    assert voxels.filled_count > 50


def test_an_objects_page_offers_all_of_its_files(run, photos, recon, tmp_path):
    out = tmp_path / "offered"
    code, _, err = recon("reconstruct", "--run", run[0], "--out", out, "--write", "cloud,glb,stl,3mf,voxels,page",
                         photos / "chair.png")  # fmt: skip
    assert code == 0, err
    offered = re.findall(r'href="(chair/[^"]+)" download', (out / "index.html").read_text())
    assert sorted(offered) == [f"chair/{name}" for name in
                               ("cloud.ply", "mesh.3mf", "mesh.glb", "mesh.stl", "voxels.binvox")]  # fmt: skip
    assert all((out / name).is_file() for name in offered)


def test_a_model_that_has_not_learnt_is_told_from_one_that_has():
    found = Reconstruction(image=torch.zeros(1, 3, 8, 8), points=1e4 * torch.randn(1, 500, 3))
    result = Result(found, Camera(10), torch.zeros(3, 8, 8), "far")
    with pytest.raises(DataError, match="has hardly learnt"):
        _ = result.cloud


@pytest.mark.parametrize("kind", ["exr", "turntable"])
def test_outputs_that_need_depth_are_refused_with_a_reason(run, photos, recon, tmp_path, kind):
    code, _, err = recon("reconstruct", "--run", run[0], "--out", tmp_path / "x", "--write", kind, photos / "mug.png")
    assert code == 2 and f"the output '{kind}' is of depth" in err


def test_outputs_of_points_are_refused_for_depth(untrained_run, photos, recon, tmp_path):
    out = tmp_path / "x"
    code, _, err = recon(
        "reconstruct", "--no-detect", "--run", untrained_run, "--out", out, "--write", "cloud", photos / "mug.png"
    )
    assert code == 2 and "the output 'cloud' is of points" in err


def test_a_picture_without_a_plain_background_is_named_and_the_rest_goes_on(run, photos, recon, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    code, _, err = recon("reconstruct", "--run", run[0], "--out", tmp_path / "x", tmp_path / "noise.png",
                         photos / "mug.png")  # fmt: skip
    assert code == 3 and "noise.png" in err and "the background is not plain" in err


def test_the_second_stage_starts_from_the_first(tiny, run, tmp_path):
    first = load_checkpoint(run[0] / "model.safetensors").part("model")
    settings = [
        f"training.start_from={run[0]}",
        "training.steps=1",
        "training.learning_rate=1e-12",
        "training.ema=null",
    ]
    resolved = load_pipeline(tiny, settings, load_plugins())
    run_pipeline(resolved, out=tmp_path / "second", device="cpu")
    second = load_checkpoint(tmp_path / "second" / "model.safetensors").part("model")
    weights = [name for name in first if name.endswith("weight")]
    for name in weights:  # Adam's steps are about the rate's size
        torch.testing.assert_close(second[name], first[name], atol=1e-11, rtol=0)
    other = load_pipeline(tiny, [*settings, "encoders.structure.latent=8"], load_plugins())
    with pytest.raises(CheckpointError, match="weights are of another model"):
        run_pipeline(other, out=tmp_path / "other", device="cpu")
    missing = load_pipeline(tiny, [f"training.start_from={tmp_path / 'nothing'}"], load_plugins())
    with pytest.raises(CheckpointError, match="nothing"):
        run_pipeline(missing, out=tmp_path / "missing", device="cpu")


TABLE = """
pipeline: {tiny}
budget: {{steps: 4}}
set: {{dataset: {{categories: [chair], count: 3, validation: 1, test: 1}}}}
metrics: [to_truth, chamfer]
baselines: [mean-shape, retrieval]
rows:
  both: {{}}
  fixed views only: {{model: {{novel_views: 0}}, losses: {{novel-mask: null, novel-depth: null}}}}
"""


def test_a_table_shows_a_models_own_metrics_and_baselines(tiny, tmp_path):
    path = tmp_path / "clouds-table.yaml"
    path.write_text(TABLE.format(tiny=tiny))
    out = tmp_path / "bench"
    made = make_table(plan_table(str(path), load_plugins(), out=out), out=out, in_process=True)
    assert made.complete and [row.name for row in made.report.rows] == [
        "both", "fixed views only", "mean shape", "nearest training image",
    ]  # fmt: skip
    frames = [pd.read_csv(out / "clouds-table" / row.seeds[0].run / "scores.csv") for row in made.report.rows[:2]]
    for row, frame in zip(made.report.rows, frames, strict=False):
        expected = frame.to_truth.mean() / frame["mean-shape_to_truth"].mean()
        assert row.scores["to_truth"].ratio == pytest.approx(expected, rel=1e-9)
    assert made.report.rows[2].scores["chamfer"].ratio == 1
    text = (out / "clouds-table" / "table.md").read_text()
    assert "Chamfer ×100" in text and "× mean shape" in text
    assert (out / "clouds-table" / "index.html").is_file()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("metrics: [to_truth, chamfr]", "there is no metric 'chamfr'"),
        ("metrics: [to_truth]\nbaselines: [mean-shap]", "there is no baseline 'mean-shap'"),
    ],
)
def test_a_tables_wrong_names_are_told_apart_from_a_models_own(tiny, tmp_path, change, said):
    path = tmp_path / "wrong.yaml"
    path.write_text(f"pipeline: {tiny}\n{change}\nrows:\n  a: {{}}\n")
    with pytest.raises(ConfigError, match=said):
        plan_table(str(path), load_plugins(), out=tmp_path / "bench")
