"""Run folders that were left half written, or damaged since: started anew, continued, or refused with a remedy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from recon_toolkit.assembly import build_model
from recon_toolkit.cli.app import execute
from recon_toolkit.config.pipeline import ResolvedPipeline, load_pipeline
from recon_toolkit.engine import checkpoint as files
from recon_toolkit.engine.environment import recorded_steps
from recon_toolkit.engine.log import DAMAGED, MetricsLog, read_log
from recon_toolkit.engine.run import run_pipeline
from recon_toolkit.errors import CheckpointError, DataError, ReconError, TrainingError
from recon_toolkit.files import is_partial, json_text, remove_partials, write_text, writing
from recon_toolkit.inference.folder import locked_folder
from recon_toolkit.inference.models import load_model
from recon_toolkit.plugins import load_plugins

PARTIAL = ".pipeline.yaml.partial-0123abcd"


@pytest.fixture(scope="module")
def resolved(tiny: Path) -> ResolvedPipeline:
    return load_pipeline(tiny, ["training.steps=2", "training.ema=0.9", "training.validate_every=null"], load_plugins())


@pytest.fixture(scope="module")
def stopped(resolved: ResolvedPipeline, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a checkpoint of step 2, which is its last."""
    out = tmp_path_factory.mktemp("runs") / "stopped"
    run_pipeline(resolved, out=out, device="cpu")
    return out


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def resume(resolved: ResolvedPipeline, run: Path) -> None:
    run_pipeline(resolved, out=run, device="cpu", resume=True)


def changed(run: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> None:
    """Write the newest checkpoint again with other values or tensors."""
    path = files.checkpoints(run)[-1]
    saved = files.load_checkpoint(path)
    change(saved.extra, saved.tensors)
    files.save_checkpoint(path, saved)


# -- left half written -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [False, True])
def test_a_run_killed_in_its_first_write_can_start_and_says_that_there_is_nothing_to_resume(
    resolved: ResolvedPipeline, tmp_path: Path, again: bool
) -> None:
    out = tmp_path / "run"
    (out / "checkpoints").mkdir(parents=True)
    (out / PARTIAL).write_text("half")
    (out / "checkpoints" / ".step-00000001.safetensors.partial-0123abcd").write_bytes(b"half")
    if again:
        with pytest.raises(CheckpointError, match="no run to resume here"):
            resume(resolved, out)
    assert run_pipeline(resolved, out=out, device="cpu").steps == 2
    assert not [path for path in out.rglob("*") if is_partial(path)]


def test_a_killed_run_that_is_resumed_loses_its_half_written_files(resolved: ResolvedPipeline, run: Path) -> None:
    (run / PARTIAL).write_text("half")
    resume(resolved, run)
    assert not (run / PARTIAL).exists()


def test_files_of_others_are_not_taken_for_leftovers(resolved: ResolvedPipeline, tmp_path: Path) -> None:
    for name in (".notes.partial-1", "a.partial-0123abcd", ".partial-0123abcd"):
        (tmp_path / name).write_text("mine")
    remove_partials(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(ReconError, match="not empty"):
        run_pipeline(resolved, out=tmp_path, device="cpu")


def test_a_record_that_is_written_tidies_up_what_lies_there_for_long(tmp_path: Path) -> None:
    old, new = tmp_path / ".a.json.partial-0123abcd", tmp_path / ".a.json.partial-89abcdef"
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (0, 0))
    write_text(tmp_path / "a.json", "{}", durable=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [new.name, "a.json"]  # some process may write it now


def test_a_folder_of_results_may_hold_what_a_killed_process_left(tmp_path: Path) -> None:
    (tmp_path / ".reconstructions.json.partial-0123abcd").write_text("half")
    with locked_folder(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["reconstructions.json"]


# -- places that cannot be ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["file/below", "file", "n" * 300, "a\0b", "n" * 5000])
def test_impossible_places_are_one_message(resolved: ResolvedPipeline, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ReconError) as told:
        run_pipeline(resolved, out=tmp_path / name, device="cpu")
    assert told.value.exit_code == 2 and told.value.remedy
    with pytest.raises(DataError), locked_folder(tmp_path / name):
        pass
    if name != "file":
        with pytest.raises(DataError):
            write_text(tmp_path / name, "text")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "arguments",
    [("run", "-p"), ("reconstruct", "x.png", "--weights"), ("view",), ("score", "x.npy"), ("import", "unsup3d")],
)
def test_no_command_takes_a_name_that_is_too_long_for_a_fault(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute([*arguments, "n" * 5000]) == 2
    assert "fault of recon-toolkit" not in capsys.readouterr().err


def test_a_name_as_long_as_there_can_be_is_written(tmp_path: Path) -> None:
    with writing(tmp_path / ("ü" * 127)) as file:
        file.write(b"x")
    assert len(list(tmp_path.iterdir())) == 1


# -- damaged since -----------------------------------------------------------------------------------------------------


DAMAGE: dict[str, Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]] = {
    "random of another size": lambda _, t: t.update({"random.torch": torch.zeros(3, dtype=torch.uint8)}),
    "random of another type": lambda _, t: t.update({"random.torch": t["random.torch"].float()}),
    "random of nonsense": lambda _, t: t.update({"random.torch": torch.full_like(t["random.torch"], 255)}),
    "no random": lambda _, t: t.pop("random.torch"),
    "no step": lambda e, _: e.pop("step"),
    "unknown": lambda e, _: e.update(more=1),
    "words": lambda e, _: e.update(seconds="many"),
    "negative": lambda e, _: e.update(skipped=-1),
    "findings": lambda e, _: e.update(findings=[1]),
    "optimiser's shape": lambda _, t: t.update({"optimizer.0.exp_avg": torch.zeros(2, 2)}),
    "optimiser's type": lambda _, t: t.update({"optimizer.0.exp_avg": t["optimizer.0.exp_avg"].long()}),
    "optimiser's index": lambda _, t: t.update({"optimizer.99999.exp_avg": torch.zeros(2)}),
    "optimiser's name": lambda _, t: t.update({"optimizer.x": torch.zeros(2)}),
    "half an optimiser": lambda _, t: t.pop("optimizer.0.exp_avg_sq"),
    "optimiser of NaN": lambda _, t: t["optimizer.0.exp_avg"].fill_(torch.nan),
    "weights of NaN": lambda _, t: t[next(k for k in t if k.startswith("model."))].fill_(torch.nan),
    "no average": lambda _, t: [t.pop(k) for k in list(t) if k.startswith("average.")],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_checkpoints_are_refused_with_a_remedy(resolved: ResolvedPipeline, run: Path, kind: str) -> None:
    changed(run, DAMAGE[kind])
    with pytest.raises(CheckpointError) as told:
        resume(resolved, run)
    assert told.value.remedy and "step-00000002" in str(told.value)


@pytest.mark.parametrize("extra", ["[]", "3", "{", "[" * 100_000, "null"])
@pytest.mark.parametrize("key", [files.KEY, "extra"])
def test_damaged_metadata_are_refused(run: Path, extra: str, key: str) -> None:
    path = files.checkpoints(run)[-1]
    old = {"format": files.FORMAT, "step": "2", "pipeline": "", "fingerprint": "", "extra": extra}
    save_file(load_file(path), path, old if key == "extra" else {key: extra})
    with pytest.raises(CheckpointError):
        files.load_checkpoint(path)


def test_a_log_is_cut_where_it_was_cut_off_and_set_aside_where_it_is_garbage(
    resolved: ResolvedPipeline, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = run / "metrics.jsonl"
    whole = read_log(run)
    log.write_bytes(log.read_bytes() + b'{"kind": "tra')
    MetricsLog(run, continue_from=2)
    assert read_log(run) == whole and not (run / DAMAGED).exists()
    garbage = b'\xff\xfe\n[1]\n{"kind": 3}\n' + b"[" * 100_000 + b'\n{"kind": "train"}\n' + log.read_bytes()
    log.write_bytes(garbage)
    resume(resolved, run)
    assert read_log(run) == whole and (run / DAMAGED).read_bytes() == garbage
    assert "5 lines are damaged" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", "{", '{"started": 3}', "\0", "precision"])
def test_a_damaged_record_of_the_first_session_is_refused(resolved: ResolvedPipeline, run: Path, text: str) -> None:
    path = run / "environment.json"
    record = json.loads(path.read_text()) | {"precision": "fp3"}
    path.write_text(json.dumps(record) if text == "precision" else text)
    with pytest.raises(CheckpointError, match=r"environment\.json.*damaged.*remove this file"):
        resume(resolved, run)


@pytest.mark.parametrize("steps", [-3, 0, 10**30, "many"])
def test_a_damaged_budget_is_refused(tmp_path: Path, steps: object) -> None:
    (tmp_path / "budget.json").write_text(json.dumps({"minutes": 1.0, "step_seconds": 0.1, "steps": steps}))
    with pytest.raises(CheckpointError, match="damaged"):
        recorded_steps(tmp_path)


# -- what is not finite ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(stopped: Path, tmp_path: Path, value: float) -> None:
    saved = files.load_checkpoint(stopped / files.WEIGHTS)
    name = sorted(saved.tensors)[0]
    saved.tensors[name].view(-1)[0] = value
    path = tmp_path / "w.safetensors"
    files.save_checkpoint(path, saved)
    with pytest.raises(CheckpointError, match="not finite"):
        load_model(weights=path, trust=True)
    if value != value:  # NaN is never meant, whoever loads the weights
        with pytest.raises(CheckpointError, match="not finite"):
            files.inference_checkpoint(path)


def test_infinities_that_the_model_itself_has_are_no_damage() -> None:
    model = torch.nn.Module()
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    files.load_weights(model, {"mask": torch.tensor([1.0, -torch.inf])}, "here")
    with pytest.raises(CheckpointError, match="not finite"):
        files.load_weights(model, {"mask": torch.tensor([torch.nan, 1.0])}, "here")


NAN_LOSS = """
from recon_toolkit import loss

@loss("broken")
def broken(prediction, target, *, scale: float = 1.0):
    return (prediction - target).abs() * float("nan")
"""


def test_a_run_that_turns_nan_writes_its_summary_and_its_json_is_json(tiny: Path, tmp_path: Path) -> None:
    plugin, out = tmp_path / "broken.py", tmp_path / "run"
    plugin.write_text(NAN_LOSS)
    settings = ["losses.photometric.name=broken", "training.steps=40", "model.convex_start_steps=0"]
    with pytest.raises(TrainingError) as told:
        run_pipeline(load_pipeline(tiny, settings, load_plugins([plugin])), out=out, device="cpu")
    assert told.value.exit_code == 3

    def strict(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    for file in (*out.glob("*.json"), *out.glob("*.jsonl")):
        for text in file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]:
            json.loads(text, parse_constant=strict)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["status"] == "failed" and "not finite" in summary["notes"][-1] and summary["side"] is None
    assert any(entry["kind"] == "train" and entry["loss"] is None for entry in read_log(out))
    assert "could not go on" in (out / "index.html").read_text()


def test_json_of_ours_has_null_for_what_is_not_finite() -> None:
    value = {"a": [1.0, float("nan"), {"b": (float("inf"), -float("inf"))}], "c": "NaN", "d": True}
    assert json.loads(json_text(value)) == {"a": [1.0, None, {"b": [None, None]}], "c": "NaN", "d": True}


# -- the same is the same file -----------------------------------------------------------------------------------------

SAVE = """
import sys
from pathlib import Path
import torch
from recon_toolkit.engine.checkpoint import Checkpoint, save_checkpoint
tensors = {f"model.{name}": torch.full((3,), float(i)) for i, name in enumerate("dbca")}
save_checkpoint(Path(sys.argv[1]), Checkpoint(3, "a: 1", "abc", tensors, {"z": 1.5, "a": [1], "k": {"y": 1, "x": 2}}))
"""


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    for seed in "01":
        environment = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", SAVE, str(tmp_path / seed)], check=True, env=environment, timeout=300)
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()
    with safe_open(str(tmp_path / "0"), framework="pt") as file:
        assert list(file.metadata()) == [files.KEY]  # of several, safetensors writes them in any order


def test_files_with_several_keys_are_still_read(stopped: Path, tmp_path: Path) -> None:
    new = files.load_checkpoint(stopped / files.WEIGHTS)
    metadata = {"format": files.FORMAT, "step": "2", "pipeline": new.pipeline, "fingerprint": new.fingerprint}
    save_file(new.tensors, tmp_path / "old.safetensors", metadata | {"extra": '{"a": 1}'})
    old = files.load_checkpoint(tmp_path / "old.safetensors")
    assert replace(old, tensors={}) == replace(new, tensors={}, extra={"a": 1})
    resolved = load_model(weights=tmp_path / "old.safetensors", trust=True).resolved
    assert build_model(resolved) is not None
