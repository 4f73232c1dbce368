"""Runs: what their folder holds, that they continue bit-exactly, and what they say when something is wrong."""

import importlib.metadata
import json
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from recon_toolkit.config.pipeline import load_pipeline
from recon_toolkit.data.fields import FieldSpec, check_mirrorable, field_specs
from recon_toolkit.data.sampling import random_numbers
from recon_toolkit.engine import checkpoint as files
from recon_toolkit.engine.checkpoint import load_run
from recon_toolkit.engine.log import MetricsLog, read_log
from recon_toolkit.engine.loop import Health
from recon_toolkit.engine.run import run_pipeline
from recon_toolkit.errors import CheckpointError, ReconError, TrainingError
from recon_toolkit.models import shape_findings, sigma_findings
from recon_toolkit.models.photo_geometric import REMEDIES
from recon_toolkit.plugins import load_plugins
from recon_toolkit.progress import Progress


def resolve(path, *settings):
    return load_pipeline(path, settings, load_plugins())


@pytest.fixture(scope="session")
def run(tiny, cache, tmp_path_factory):
    """A finished run of the tiny pipeline."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, run_pipeline(resolve(tiny), out=out, device="cpu", command=["recon", "run"])


def test_a_run_folder_tells_everything(run):
    out, summary = run
    assert summary.steps == 6 and summary.images == 8 and summary.device == "cpu"
    assert 0 < summary.mad < 90 and summary.side > 0
    assert summary.mad_ratio == pytest.approx(summary.mad / summary.baselines.constant.mad)
    assert json.loads((out / "summary.json").read_text())["mad"] == pytest.approx(summary.mad)
    environment = json.loads((out / "environment.json").read_text())
    assert environment["versions"]["torch"] == importlib.metadata.version("torch")
    assert set(environment["data"]) == {"train", "validation", "evaluation"} and environment["seed"] == 0
    entries = read_log(out)
    assert [e["step"] for e in entries if e["kind"] == "train"] == [2, 4, 6]
    assert [e["step"] for e in entries if e["kind"] == "validation"] == [4, 6]
    assert all(math.isfinite(e["loss"]) for e in entries if e["kind"] == "train")
    for name in ("contact_sheet.png", "curves.png", "index.html", "objects.html", "sheets/step-00000004.png"):
        assert (out / name).stat().st_size > 0
    page = (out / "index.html").read_text()
    assert 'src="objects.html"' in page and (out / "objects.html").read_text().count("<article") == 8
    assert "contact_sheet.png" in page and f"{summary.mad:.2f}" in page


def test_a_network_that_the_model_does_not_use_is_no_finding(tiny, cache, tmp_path):
    summary = run_pipeline(resolve(tiny, "model.shading=false", "training.steps=2"), out=tmp_path / "run", device="cpu")
    assert "dead-gradients" not in summary.findings  # no light: no gradient for its network


def test_the_recorded_pipeline_is_whole_and_the_same(run, tiny):
    out, _ = run
    assert "extends" not in (out / "pipeline.yaml").read_text()
    assert resolve(out / "pipeline.yaml").fingerprint == resolve(tiny).fingerprint


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(run, tiny, tmp_path):
    out, _ = run
    run_pipeline(resolve(tiny), out=tmp_path / "again", device="cpu")
    first = load_file(out / files.WEIGHTS)
    again = load_file(tmp_path / "again" / files.WEIGHTS)
    assert all(torch.equal(first[k], again[k]) for k in first)
    run_pipeline(resolve(tiny, "seed=1"), out=tmp_path / "other", device="cpu")
    other = load_file(tmp_path / "other" / files.WEIGHTS)
    assert not all(torch.equal(first[k], other[k]) for k in first)


def test_a_run_cut_off_at_a_checkpoint_continues_to_the_same_weights(run, tiny, tmp_path):
    out, summary = run
    resolved = resolve(tiny, "training.checkpoint_every=2")

    class Killed(BaseException):
        pass

    def die(log, kind, step, values):
        write(log, kind, step, values)
        if kind == "train" and step == 6:  # after the checkpoints of steps 2 and 4
            raise Killed

    write = MetricsLog.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetricsLog, "write", die)
        with pytest.raises(Killed):
            run_pipeline(resolved, out=tmp_path / "cut", device="cpu")
    assert files.latest_checkpoint(tmp_path / "cut").step == 4
    resumed = run_pipeline(resolved, out=tmp_path / "cut", device="cpu", resume=True)
    one, two = load_file(out / files.WEIGHTS), load_file(tmp_path / "cut" / files.WEIGHTS)
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert resumed.mad == summary.mad and resumed.steps == 6
    steps = [e["step"] for e in read_log(tmp_path / "cut") if e["kind"] == "train"]
    assert steps == [2, 4, 6]  # nothing twice


def test_sigterm_saves_a_checkpoint_and_says_how_to_go_on(tiny, cache, tmp_path):
    out = tmp_path / "stopped"
    command = [sys.executable, "-m", "recon_toolkit", "run", "-p", str(tiny), "--out", str(out)]
    command += ["--set", "training.steps=100000", "--set", "training.validate_every=null", "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ.copy())
    log = out / "metrics.jsonl"
    for _ in range(600):  # up to a minute for imports and kernels
        if log.is_file() and log.stat().st_size:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume" in errors and "Traceback" not in errors
    assert files.latest_checkpoint(out).step > 0


def test_load_run_gives_the_trained_model(run):
    out, _ = run
    model, resolved = load_run(out, load_plugins())
    found = model.reconstruct(torch.rand(2, 3, 32, 32))
    assert found.depth.shape == (2, 32, 32) and resolved.pipeline.image_size == 32
    weights = load_file(out / files.WEIGHTS)
    assert all(torch.equal(weights[f"model.{k}"], v) for k, v in model.state_dict().items())


# -- wrong turns -----------------------------------------------------------------------------------------------------


def test_a_folder_in_use_is_left_alone(run, tiny, tmp_path):
    out, _ = run
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    with pytest.raises(ReconError, match=r"a run is here already.*--resume"):
        run_pipeline(resolve(tiny), out=out)
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(ReconError, match="not empty"):
        run_pipeline(resolve(tiny), out=tmp_path)
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*")}


def test_resuming_needs_a_run_of_the_same_pipeline(run, tiny, tmp_path):
    out, _ = run
    with pytest.raises(CheckpointError, match="no run to resume"):
        run_pipeline(resolve(tiny), out=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="another pipeline or other settings"):
        run_pipeline(resolve(tiny, "losses.flipped.weight=0"), out=out, resume=True)


def test_a_truncated_checkpoint_is_named_and_the_one_before_is_used(run, tmp_path):
    out, _ = run
    (tmp_path / "checkpoints").mkdir()
    good = files.checkpoints(out)[-1].read_bytes()
    files.checkpoint_path(tmp_path, 1).write_bytes(good)
    files.checkpoint_path(tmp_path, 2).write_bytes(good[: len(good) // 2])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        files.load_checkpoint(files.checkpoint_path(tmp_path, 2))
    assert files.latest_checkpoint(tmp_path).step == 6  # what the file of step 1 holds
    files.checkpoint_path(tmp_path, 1).unlink()
    with pytest.raises(CheckpointError, match="step-00000002"):
        files.latest_checkpoint(tmp_path)


def test_a_hostile_pickle_is_refused_and_not_run(run, tmp_path):
    trap = tmp_path / "sprung"

    class Hostile:
        def __reduce__(self):
            return (os.mkdir, (str(trap),))

    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(CheckpointError, match="nothing in it was executed"):
        files.load_checkpoint(path)
    torch.save({"model": Hostile()}, path)
    with pytest.raises(CheckpointError):
        files.load_checkpoint(path)
    assert not trap.exists()


def test_weights_of_another_model_are_refused(run, tmp_path):
    out, _ = run
    model, _ = load_run(out, load_plugins())
    weights = {k: v for k, v in model.state_dict().items() if "light" not in k}
    with pytest.raises(CheckpointError, match="of another model"):
        files.load_weights(model, weights, "somewhere")
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(CheckpointError, match="not of the form"):
        files.load_checkpoint(tmp_path / "plain.safetensors")
    with pytest.raises(CheckpointError, match="not a run folder"):
        load_run(tmp_path, load_plugins())


NAN_LOSS = """
from recon_toolkit import loss

@loss("broken")
def broken(prediction, target, *, scale: float = 1.0):
    return (prediction - target).abs() * float("nan")
"""


def test_a_loss_that_is_never_finite_ends_training_with_a_checkpoint(tiny, tmp_path):
    plugin = tmp_path / "broken.py"
    plugin.write_text(NAN_LOSS)
    settings = ["losses.photometric.name=broken", "training.steps=40", "model.convex_start_steps=0"]
    resolved = load_pipeline(tiny, settings, load_plugins([plugin]))
    with pytest.raises(TrainingError, match="not finite in 20 steps"):
        run_pipeline(resolved, out=tmp_path / "run", device="cpu")
    saved = files.latest_checkpoint(tmp_path / "run")
    assert saved.extra["skipped"] >= 19
    assert all(t.isfinite().all() for t in saved.part("model").values())


def test_confidence_without_its_network_is_a_clear_error(tiny, tmp_path):
    with pytest.raises(ReconError, match="needs confidence maps"):
        run_pipeline(resolve(tiny, "encoders.confidence=null"), out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()  # so that the corrected command can use it


def test_random_numbers_of_images_depend_on_seed_and_step_alone():
    whole = random_numbers(3, 5, 8)
    assert whole.tolist() == random_numbers(3, 5, 8).tolist() and whole.min() >= 0
    assert len({*whole.tolist(), *random_numbers(3, 6, 8).tolist(), *random_numbers(4, 5, 8).tolist()}) == 24


def test_what_cannot_be_mirrored_is_named():
    label, strange = FieldSpec(dtype="int32", shape=(), kind="plain"), FieldSpec(dtype="float32", shape=(3,))
    check_mirrorable({**field_specs(8, ("image", "depth", "view")), "kind": label})
    with pytest.raises(ReconError, match=r"augment_flip.*mirrored together with cloud, parts"):
        check_mirrorable({**field_specs(8), "parts": strange, "cloud": strange})


# -- health ----------------------------------------------------------------------------------------------------------

RANGE = torch.tensor([0.9, 1.1])


def bump(scale=0.05):
    axis = torch.linspace(-1, 1, 32)
    each = torch.linspace(0.9, 1.1, 8)[:, None, None]  # no two shapes are alike
    return 1 - scale * each * (1 - axis.square() - axis[:, None].square()).clamp(min=0)


CHECKERS = (torch.arange(32)[:, None] + torch.arange(32)) % 2


def names(diagnostics, sigmas=None, gradients=None, skipped=0, settled=True):
    own = shape_findings(diagnostics, REMEDIES, settled=settled) + sigma_findings(sigmas or {}, REMEDIES)
    found, _ = Health().check(own, gradients or {}, skipped)
    return [finding.name for finding in found]


def views(x=0.0, y=0.0, z=0.0, jitter=0.2):
    generator = torch.Generator().manual_seed(0)
    view = torch.zeros(8, 6)
    view[:, :3] = torch.tensor([x, y, z]) + jitter * torch.randn(8, 3, generator=generator)
    return {"view": view, "view_range": torch.tensor([math.radians(60)] * 3 + [0.1, 0.1, 0.0])}


@pytest.mark.parametrize(
    ("diagnostics", "expected"),
    [
        ({"canonical_depth": bump(), "depth_range": RANGE}, []),
        ({"canonical_depth": torch.ones(8, 32, 32), "depth_range": RANGE}, ["flat-depth", "one-shape"]),
        ({"canonical_depth": bump()[:1].expand(8, 32, 32), "depth_range": RANGE}, ["one-shape"]),
        ({"canonical_depth": 2 - bump(), "depth_range": RANGE}, ["inverted-depth"]),
        ({"canonical_depth": torch.where(bump() < 0.98, 0.9, 1.1), "depth_range": RANGE}, ["over-deep"]),
        ({"canonical_depth": bump() + 0.02 * CHECKERS, "depth_range": RANGE}, ["rough-depth"]),
        (views(), []),
        (views(z=math.radians(45), jitter=0.02), ["view-collapse"]),
        (views(y=math.radians(59.9), jitter=0.001), ["view-limit", "view-collapse"]),
        ({"coverage": torch.full((8,), 0.7)}, []),
        ({"coverage": torch.full((8,), 0.2)}, ["mask-escape"]),
    ],
)
def test_known_failures_are_named(diagnostics, expected):
    assert names(diagnostics) == expected


def test_one_shape_for_all_is_no_failure_at_the_start():
    diagnostics = {"canonical_depth": bump()[:1].expand(8, 32, 32), "depth_range": RANGE}
    assert names(diagnostics, settled=False) == []


def test_confidence_gradients_and_nan_are_watched_and_reported_once():
    assert names({}, {"plain": torch.full((1, 1, 4, 4), 5.0)}) == ["confidence-plain"]
    assert names({}, gradients={"depth": 0.0, "view": 1.0}) == ["dead-gradients"]
    health = Health()
    _, new = health.check([], {}, 3)
    assert [f.name for f in new] == ["nan"] and "3 steps" in new[0].message
    found, again = health.check([], {}, 1)
    assert [f.name for f in found] == ["nan"] and again == []


def test_a_camera_that_contradicts_the_data_is_an_error(tiny, tmp_path):
    with pytest.raises(ReconError, match=r"field of view of 10\.0°, the pipeline's camera one of 12\.0°"):
        run_pipeline(resolve(tiny, "camera.fov=12"), out=tmp_path / "run", device="cpu")


@pytest.mark.parametrize("settings", [["training.workers=2"], ["training.precision=bf16"]], ids=["threads", "bf16"])
def test_other_ways_to_train_are_deterministic_too(tiny, tmp_path, settings):
    for name in ("one", "two"):
        run_pipeline(resolve(tiny, *settings), out=tmp_path / name, device="cpu")
    one, two = (load_file(tmp_path / name / files.WEIGHTS) for name in ("one", "two"))
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert all(t.isfinite().all() for t in one.values())


def test_two_processes_train_one_run(tiny, cache, tmp_path):
    """Both see half of each batch; only the first writes, and prints."""
    out = tmp_path / "two"
    command = [sys.executable, "-m", "recon_toolkit", "run", "-p", str(tiny), "--out", str(out), "--json"]
    command += ["--set", "training.devices=2", "--device", "cpu"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["steps"] == 6  # one object, not two
    assert [e["step"] for e in read_log(out) if e["kind"] == "train"] == [2, 4, 6]


RAISING_LOSS = """
from recon_toolkit import loss

@loss("fails")
def fails(prediction, target, *, scale: float = 1.0):
    raise KeyError("no such colour")
"""


def test_a_component_that_raises_in_use_is_named(tiny, tmp_path):
    plugin = tmp_path / "fails.py"
    plugin.write_text(RAISING_LOSS)
    resolved = load_pipeline(tiny, ["losses.photometric.name=fails"], load_plugins([plugin]))
    with pytest.raises(ReconError, match=r"losses\.photometric raised KeyError: 'no such colour'"):
        run_pipeline(resolved, out=tmp_path / "run", device="cpu")


def test_a_folder_with_only_training_images_can_be_trained_on(tiny, tmp_path):
    from PIL import Image

    folder = tmp_path / "photos" / "train"
    folder.mkdir(parents=True)
    for i in range(10):
        Image.new("RGB", (40, 40), (20 * i, 100, 200 - 20 * i)).save(folder / f"{i}.png")
    resolved = resolve(tiny, "dataset={name: image-folder}", "training.steps=2")
    summary = run_pipeline(resolved, out=tmp_path / "run", data=tmp_path / "photos", device="cpu")
    assert summary.steps == 2 and summary.mad is None
    assert (tmp_path / "run" / "contact_sheet.png").is_file()


def test_a_network_can_warm_up_more_slowly_than_the_rest():
    from torch import nn

    from recon_toolkit import ParameterGroup
    from recon_toolkit.config.schema import TrainingConfig
    from recon_toolkit.engine.step import parameter_groups

    model = nn.Module()
    model.encoders = nn.ModuleDict({"depth": nn.Linear(2, 2), "view": nn.Linear(2, 3)})
    whole = ParameterGroup(list(model.parameters()))
    own, rest = parameter_groups(model, whole, TrainingConfig(steps=1, part_warmup_steps={"depth": 500}))
    assert own["warmup"] == 500 and own["params"] == list(model.encoders["depth"].parameters())
    assert rest["warmup"] == 0 and rest["params"] == list(model.encoders["view"].parameters())
    with pytest.raises(ReconError, match=r"no network 'dept'.*depth, view"):
        parameter_groups(model, whole, TrainingConfig(steps=1, part_warmup_steps={"dept": 500}))


RAISING_DATASET = """
from recon_toolkit import dataset

@dataset("{kind}")
class Broken:
    splits = ("train", "val", "test")

    def open(self, split, size, context):
        {body}
"""


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        ("raises", "raise OSError('disk broke')", "data set 'raises' raised OSError: disk broke"),
        ("forgets", "pass", "data set 'forgets' gave NoneType for the split 'train'"),
    ],
)
def test_a_data_set_that_fails_in_use_is_named(tiny, tmp_path, kind, body, message):
    plugin = tmp_path / "broken.py"
    plugin.write_text(RAISING_DATASET.format(kind=kind, body=body))
    resolved = load_pipeline(tiny, [f"dataset={{name: {kind}}}"], load_plugins([plugin]))
    with pytest.raises(ReconError, match=message):
        run_pipeline(resolved, out=tmp_path / "run", device="cpu")


def test_a_run_resumes_in_the_precision_that_it_began_with(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")  # no bf16, whatever the machine
    resolved = resolve(tiny, "training.precision=auto", "training.steps=4", "training.checkpoint_every=2")
    run_pipeline(resolved, out=tmp_path / "run", device="cpu")
    record = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert record["precision"] == "fp32" and "AVX2" in record["instructions"]
    record["precision"] = "bf16"  # as if it had begun where bf16 is native
    (tmp_path / "run" / "environment.json").write_text(json.dumps(record))
    run_pipeline(resolved, out=tmp_path / "run", device="cpu", resume=True)
    resumed = json.loads((tmp_path / "run" / "environment-resumed-at-00000004.json").read_text())
    assert resumed["precision"] == "bf16"


def test_bf16_that_is_emulated_is_warned_of_with_what_it_costs(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    resolved = resolve(tiny, "training.precision=bf16", "training.steps=1")
    with Progress(quiet=True) as progress:
        run_pipeline(resolved, out=tmp_path / "run", device="cpu", progress=progress)
    warned = [line for line in capsys.readouterr().err.splitlines() if "bf16 is emulated" in line]
    assert len(warned) == 1 and "training.precision=fp32" in warned[0]
    assert float(re.search(r"takes ([\d.]+) times", warned[0]).group(1)) > 0


@pytest.mark.slow
def test_the_quick_pipeline_trains_on_a_computer_with_avx2_alone(tmp_path):
    command = [
        sys.executable,
        "-m",
        "recon_toolkit",
        "run",
        "--pipeline",
        "unsup3d-quick",
        "--out",
        str(tmp_path / "run"),
    ]
    for setting in ("training.steps=4", "dataset.count=32", "dataset.validation=8", "dataset.test=8",
                    "model.convex_start_steps=2"):  # fmt: skip
        command += ["--set", setting]
    limits = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    subprocess.run(command, check=True, env=os.environ | limits, timeout=240)
    record = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert record["precision"] == "fp32"
    assert record["instructions"] == "AVX2 without bf16, oneDNN held to AVX2"
