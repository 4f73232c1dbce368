"""A run's model is shared beside the run, and never in place of what the run itself keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recon_toolkit.cli.app import execute
from recon_toolkit.engine.checkpoint import WEIGHTS, Checkpoint, load_checkpoint, save_checkpoint


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a finished run; nothing here looks at its pipeline."""
    weights = {"model.w": torch.tensor([1 / 3, 2.0])}
    save_checkpoint(tmp_path / "run" / WEIGHTS, Checkpoint(7, "name: none", "f00", weights, {"kept": 1}))
    (tmp_path / "link").symlink_to(tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("precision", ["--half", "--full"])
@pytest.mark.parametrize("out", ["run/model.safetensors", "run/../run/model.safetensors", "link/model.safetensors"])
def test_the_runs_own_model_is_not_replaced(
    run: Path, out: str, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / WEIGHTS).read_bytes()
    assert execute(["weights", str(run), "--out", str(run.parent / out), precision]) == 2
    error = capsys.readouterr().err
    assert "it is the run's own model (name another file with --out)" in error and error.count("\n") == 1
    assert (run / WEIGHTS).read_bytes() == before


def test_another_file_in_the_runs_folder_may_be_written_again(run: Path) -> None:
    for _ in range(2):
        assert execute(["weights", str(run), "--out", str(run / "small.safetensors")]) == 0
    stored = load_checkpoint(run / "small.safetensors")
    assert stored.step == 7 and stored.tensors["model.w"].dtype == torch.float16
    assert load_checkpoint(run / WEIGHTS).tensors["model.w"].dtype == torch.float32
