"""Callbacks and exporters of plugin files: called when they should be, and never at the cost of the work."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from conftest import Run
from PIL import Image
from safetensors.torch import load_file

PLUGIN = '''
import json
from recon_toolkit import Callback, callback, exporter


@callback("keep")
class Keep(Callback):
    """Keeps what it is told."""

    def __init__(self, place: str = "kept.jsonl") -> None:
        self.place = place

    def begin(self, run, step, steps):
        self.file = (run / self.place).open("w")
        self.file.write(json.dumps(["begin", step, steps]) + "\\n")

    def log(self, kind, step, values):
        self.file.write(json.dumps([kind, step, sorted(values)]) + "\\n")
        values.clear()  # of its own copy

    def end(self, run, summary):
        self.file.write(json.dumps(["end", summary.steps, summary.mad]) + "\\n")
        self.file.close()


@callback("break")
class Break(Callback):
    """Fails when it is told something."""

    def log(self, kind, step, values):
        raise ValueError("no such host")


@exporter("xyz")
def xyz(result, folder, *, digits: int = 3):
    """The surface's points as text."""
    path = folder / "points.xyz"
    path.write_text("\\n".join(" ".join(f"{c:.{digits}f}" for c in row) for row in result.mesh().vertices.tolist()))
    return [path]
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    return path


def test_a_callback_sees_the_run_and_a_broken_one_costs_nothing(
    tiny: Path, plugin: Path, tmp_path: Path, cache: Path, recon: Run
) -> None:
    pipeline = tmp_path / "watched.yaml"
    pipeline.write_text(f"extends: {tiny}\ncallbacks: {{mine: {{name: keep}}, bad: {{name: break}}}}\n")
    code, _, errors = recon("run", "--pipeline", pipeline, "--plugin", plugin, "--out", tmp_path / "watched")
    assert code == 0, errors
    assert errors.count("callbacks.bad raised ValueError: no such host") == 1  # then it is left out
    lines = [json.loads(line) for line in (tmp_path / "watched" / "kept.jsonl").read_text().splitlines()]
    log = [json.loads(line) for line in (tmp_path / "watched" / "metrics.jsonl").read_text().splitlines()]
    assert lines[0] == ["begin", 0, 6]
    assert lines[1:-1] == [[e["kind"], e["step"], sorted(e.keys() - {"kind", "step"})] for e in log]
    summary = json.loads((tmp_path / "watched" / "summary.json").read_text())
    assert lines[-1] == ["end", 6, summary["mad"]]
    # They watch: the same weights as without them, and a resumed run may have others.
    assert recon("run", "--pipeline", tiny, "--out", tmp_path / "alone")[0] == 0
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("watched", "alone"))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert recon("run", "--pipeline", tiny, "--out", tmp_path / "watched", "--resume")[0] == 0


def test_a_failing_exporter_is_that_pictures_failure(untrained_run: Path, tmp_path: Path, recon: Run) -> None:
    plugin = tmp_path / "fails.py"
    plugin.write_text(
        "from recon_toolkit import exporter\n@exporter('fails')\ndef fails(result, folder):\n"
        "    if result.name == 'b':\n        raise OSError('no room')\n"
        "    return [] if result.name == 'a' else folder\n"
    )
    for name in "abc":
        Image.fromarray(np.full((40, 40, 3), 120, np.uint8)).save(tmp_path / f"{name}.png")
    pictures = [tmp_path / f"{name}.png" for name in "abc"]
    words = ("reconstruct", "--run", untrained_run, "--no-detect", *pictures, "--plugin", plugin)
    code, _, errors = recon(*words, "--out", tmp_path / "out", "--write", "page,fails")
    assert code == 3 and "the exporter 'fails' raised OSError: no room" in errors
    assert "the exporter 'fails' returned no list of paths" in errors
    assert (tmp_path / "out" / "index.html").is_file()


def test_an_exporter_is_an_output(untrained_run: Path, plugin: Path, tmp_path: Path, recon: Run) -> None:
    Image.fromarray(np.full((40, 40, 3), 120, np.uint8)).save(tmp_path / "crop.png")
    words = ("reconstruct", "--run", untrained_run, "--no-detect", tmp_path / "crop.png", "--plugin", plugin)
    code, _, errors = recon(*words, "--out", tmp_path / "out", "--write", "ply,xyz")
    assert code == 0, errors
    points = np.loadtxt(tmp_path / "out" / "crop" / "points.xyz")
    mesh = trimesh.load(tmp_path / "out" / "crop" / "mesh.ply", process=False)
    assert np.abs(points - mesh.vertices).max() <= 5.1e-4  # three digits are written
    code, _, errors = recon(*words, "--out", tmp_path / "no", "--write", "xzy")
    assert code == 2 and "there is no output 'xzy' (nearest is 'xyz')" in errors
