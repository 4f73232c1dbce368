"""The GPU suite at toy size on the CPU: it goes on where it stopped, and reports what was measured and no more."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SUITE = BENCHMARKS / "gpu_suite.py"


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def suite(scripts):
    import gpu_suite

    return gpu_suite


@pytest.fixture(scope="session")
def measured(tmp_path_factory):
    """A folder with one case measured by the command itself."""
    keep = tmp_path_factory.mktemp("suite")
    words = ["throughput", "--keep", str(keep), "--device", "cpu", "--toy", "--only", "fp32"]
    done = subprocess.run([sys.executable, str(SUITE), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return keep


def toy(suite, piece, keep, *more):
    return suite.main([piece, "--keep", str(keep), "--device", "cpu", "--toy", *more])


def copied(measured, keep, **changes):
    """The measured case, with changes, as a record of some name in a folder of its own."""
    record = json.loads((measured / "throughput" / "fp32.json").read_bytes()) | changes
    path = keep / "throughput" / f"{record['name']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return path


def test_a_case_is_measured_once_and_again_only_where_its_record_is_lost_or_cut_off(suite, measured, tmp_path):
    path = copied(measured, tmp_path)
    before = path.read_bytes()
    assert toy(suite, "throughput", tmp_path, "--only", "fp32") == 0
    assert path.read_bytes() == before  # it holds the time of its start, so another measurement would differ
    path.write_bytes(before[: len(before) // 2])  # as a kill in the middle of a copy would leave it
    assert toy(suite, "throughput", tmp_path, "--only", "fp32") == 0
    again = json.loads(path.read_bytes())
    assert again["environment"]["started"] >= json.loads(before)["environment"]["started"]
    # The same seed on the same machine: float32 sums in the same order.
    assert again["losses"] == pytest.approx(json.loads(before)["losses"], rel=1e-4)


def test_a_case_trains_and_its_rate_is_its_batch_over_its_time(measured):
    case = json.loads((measured / "throughput" / "fp32.json").read_bytes())
    assert case["status"] == "measured" and case["peak_memory_mb"] > 50  # torch alone takes more than that
    assert case["losses"][-1] < case["losses"][0]  # five steps of Adam on one batch
    assert case["images_per_second"] == pytest.approx(1e3 * case["batch"] / case["step"]["median_ms"])
    assert case["images_per_second_low"] <= case["images_per_second"] <= case["images_per_second_high"]


def test_preparing_a_step_leaves_weights_and_optimiser_as_they_were(scripts):
    from gpu_case import TOY, WAYS, Step, pipeline

    resolved = pipeline(False, TOY)
    fresh, prepared = (Step(resolved, WAYS["fp32"], torch.device("cpu"), 2) for _ in range(2))
    take = prepared.prepared()
    # Equal to what never warmed up, over steps that need Adam's moments and its count of steps.
    assert [float(take()) for _ in range(2)] == pytest.approx([float(fresh.eager()) for _ in range(2)], rel=1e-4)


def test_a_failed_case_keeps_its_cause_and_the_rest_goes_on(suite, measured, tmp_path, capsys):
    copied(measured, tmp_path, name="bf16")
    nothing = {"images_per_second": None, "step": None, "peak_memory_mb": None, "losses": []}
    failed = copied(measured, tmp_path, name="fp32", status="failed", cause="no memory", **nothing)
    assert toy(suite, "throughput", tmp_path, "--only", "fp32") == 0  # others are left, and it is not tried again
    said = capsys.readouterr().out
    assert "failed: throughput fp32: no memory" in said and "left: throughput bf16+vgg" in said
    assert json.loads(failed.read_bytes())["status"] == "failed"
    copied(measured, tmp_path, name="bf16+vgg")
    assert toy(suite, "throughput", tmp_path) == 1  # nothing is left, and something failed


def test_the_report_is_of_what_was_measured_and_says_what_is_left(suite, measured, tmp_path):
    copied(measured, tmp_path)
    copied(measured, tmp_path, name="bf16", images_per_second=1e6)
    assert toy(suite, "report", tmp_path) == 0
    found = suite.Suite.model_validate_json((tmp_path / "gpu-suite-cpu-toy.json").read_bytes())
    assert found.partial and found.left == ["throughput bf16+vgg", "schedule", "ablation"]
    rate = json.loads((measured / "throughput" / "fp32.json").read_bytes())["images_per_second"]
    assert found.values["bf16 over fp32"] == pytest.approx(1e6 / rate, rel=1e-3)  # it is rounded
    assert found.schedule is None and found.ablation is None
    assert not any(word.startswith("/") for word in found.environment.command)


def loss_notes(losses):
    """The notes about cases with these losses by name."""
    from gpu_case import Case
    from gpu_report import notes_of
    from record import Timing, describe

    environment = describe([], torch.device("cpu"), "fp32")
    timing = Timing(case="step", median_ms=1, low_ms=1, high_ms=1, repeats=3)
    rest = {"width": 8, "batch": 4, "image_size": 32, "step": timing, "images_per_second": 1, "peak_memory_mb": 1}
    return notes_of(
        [Case(name=n, status="measured", losses=v, environment=environment, **rest) for n, v in losses.items()]
    )


def test_a_way_that_computes_something_else_is_noted(scripts):
    fp32 = [1.0, 0.9, 0.8, 0.7, 0.6]
    near = [1.015, 0.9, 0.85, 0.8, 0.79]  # 1.5 % off, and 0.225 down where fp32 goes 0.4
    with_vgg = {"fp32+vgg": [9.0, 8, 7, 6, 5], "bf16+vgg": [9.1, 8, 7, 6, 4]}
    assert loss_notes({"fp32": fp32, "bf16": near, **with_vgg}) == []
    other, slow, rising = [1.03, 0.9, 0.8, 0.7, 0.6], [1.0, 1, 1, 1, 0.81], [1.0, 1, 1, 1, 1.2]
    found = loss_notes({"fp32": fp32, "tf32": other, "bf16": slow, "bf16-graph": rising, "bf16+vgg": other})
    assert len(found) == 3  # of bf16+vgg nothing is known: its fp32 is not there
    assert "tf32 computes another loss than fp32: 1.03, not 1" in found[0] and "2%" in found[0]
    assert "bf16 trains otherwise than fp32" in found[1] and "by 0.19, not 0.4" in found[1]
    assert "bf16-graph trains otherwise" in found[2] and "by -0.2, not 0.4" in found[2]
    still = [0.0, 1, 1, 1, 0]  # a first loss and a drop of zero: nothing to divide by
    assert loss_notes({"fp32": still, "tf32": still, "bf16": [0.0, 0, 0, 0, -1]}) == []
    assert len(loss_notes({"fp32": still, "bf16": [0.5, 0, 0, 0, 0]})) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"images_per_second": None},
        {"images_per_second": -1.0},
        {"images_per_second": math.inf},
        {"losses": []},
        {"name": "fp8"},
        {"status": "failed", "cause": None},
    ],
    ids=str,
)
def test_a_record_that_is_not_whole_is_refused(scripts, measured, change):
    from gpu_case import Case

    whole = Case.model_validate_json((measured / "throughput" / "fp32.json").read_bytes()).model_dump()
    with pytest.raises(ValidationError):
        Case.model_validate(whole | change)


def test_a_report_must_agree_with_itself(suite, measured, tmp_path):
    copied(measured, tmp_path)
    toy(suite, "report", tmp_path)
    whole = json.loads((tmp_path / "gpu-suite-cpu-toy.json").read_bytes())
    for change in ({"partial": False}, {"throughput": 2 * whole["throughput"]}, {"throughput": []}):
        with pytest.raises(ValidationError):
            suite.Suite.model_validate(whole | change)


def test_nothing_measured_is_no_report(suite, tmp_path, capsys):
    assert toy(suite, "report", tmp_path) == 2
    assert "nothing has been measured yet" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("piece", ["next", "throughput", "schedule", "ablation"])
def test_without_a_gpu_nothing_starts(suite, tmp_path, capsys, piece):
    assert suite.main([piece, "--keep", str(tmp_path / "new")]) == 2
    said = capsys.readouterr().err
    assert said.count("error:") == 1 and "no CUDA device" in said and "--device cpu --toy" in said
    assert not (tmp_path / "new").exists()


def test_sizes_do_not_mix_in_a_folder(suite, measured, tmp_path, capsys):
    copied(measured, tmp_path)
    toy(suite, "report", tmp_path)
    assert suite.main(["throughput", "--keep", str(tmp_path), "--device", "cpu"]) == 2
    assert "--device cpu --toy" in capsys.readouterr().err


def test_two_calls_do_not_share_a_folder(suite, tmp_path, capsys):
    from filelock import FileLock

    with FileLock(tmp_path / ".lock"):
        assert toy(suite, "report", tmp_path) == 2
    assert "another call" in capsys.readouterr().err


SLEEPER = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit(130)) if {obeys} else None)
print("began", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("obeys", [True, False])
def test_a_command_is_asked_to_stop_and_then_made_to(scripts, monkeypatch, tmp_path, obeys):
    import gpu_session

    monkeypatch.setattr(gpu_session, "GRACE", 0.5)
    begun = time.monotonic()
    # Three seconds, so that a busy machine has started Python by then.
    ended = gpu_session.limited([sys.executable, "-c", SLEEPER.format(obeys=obeys)], tmp_path / "log", 3)
    assert ended.stopped and time.monotonic() - begun < 30
    assert ended.code == (130 if obeys else -9)
    assert ("saved" in ended.tail) == obeys


def test_a_command_that_fails_by_itself_gives_its_words_without_the_machines_folders(scripts, tmp_path):
    from gpu_session import limited

    said = "import sys; sys.exit('error: /somewhere/deep/file.yaml: a broken 1/2 of it')"
    ended = limited([sys.executable, "-c", said], tmp_path / "log", 60)
    assert not ended.stopped and ended.cause == "exit code 1: error: file.yaml: a broken 1/2 of it"


@pytest.mark.parametrize("size", ["--toy", "full"])
def test_the_settings_of_the_trainings_are_ones_that_a_pipeline_takes(suite, size):
    from recon_toolkit.config.pipeline import load_pipeline

    resolved = load_pipeline("unsup3d-synface", suite.schedule_settings(size == "--toy")).pipeline
    assert resolved.dataset.name == "synthetic-faces" and set(resolved.losses) == {"photometric", "flipped"}
    widths = [encoder.options["width"] for encoder in resolved.encoders.values()]
    if size == "full":
        training = resolved.training
        assert (training.steps, training.batch_size, sorted(widths)) == (75_000, 64, [32, 32, 64, 64, 64])


@pytest.mark.parametrize("toy", [True, False])
def test_the_enlarged_table_is_one_that_bench_takes(suite, tmp_path, toy):
    import yaml

    from recon_toolkit.config.pipeline import load_pipeline

    table = yaml.safe_load(suite.write_table(tmp_path, toy).read_text())
    shipped = yaml.safe_load(suite.SHIPPED.read_text())
    assert set(table["rows"]) == (set(suite.TOY_ROWS) if toy else set(shipped["rows"]))
    for part in (table, table["rows"]["supervised"]):
        resolved = load_pipeline(tmp_path / part["pipeline"]).pipeline
        assert resolved.encoders["depth"].options["width"] == (8 if toy else 64)
        assert resolved.training.batch_size == (8 if toy else 64)
    # Features are learned on the pictures of the rows; a toy prepares nothing.
    counts = {entry["dataset"]["count"] for entry in table.get("prepare", {}).values()}
    assert counts == (set() if toy else {resolved.dataset.options["count"]})


@pytest.mark.slow
def test_the_schedule_is_stopped_goes_on_and_ends_with_scores(suite, tmp_path, capsys):
    for _ in range(20):  # a third of a minute a call, so that a slow machine needs several; each must get further
        assert toy(suite, "schedule", tmp_path, "--minutes", "0.3") == 0
        if capsys.readouterr().out.endswith("finished\n"):
            break
    assert toy(suite, "report", tmp_path) == 0
    found = suite.Suite.model_validate_json((tmp_path / "gpu-suite-cpu-toy.json").read_bytes()).schedule
    assert found is not None and found.status == "finished" and found.steps_done == 6
    assert found.side is not None and found.mad is not None and 0 < found.training_seconds < found.device_seconds


@pytest.mark.slow
def test_a_whole_suite(tmp_path):
    words = [sys.executable, str(SUITE), "next", "--keep", str(tmp_path), "--device", "cpu", "--toy"]
    for _ in range(3):
        done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stdout + done.stderr
        if done.stdout.endswith("finished\n"):
            break
    found = json.loads((tmp_path / "gpu-suite-cpu-toy.json").read_bytes())
    assert not found["partial"] and found["schedule"]["status"] == "finished"
    assert found["ablation"]["status"] == "finished" and found["ablation"]["table"]["rows"]
    assert [case["status"] for case in found["throughput"]] == 3 * ["measured"]
