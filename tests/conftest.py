"""Shared surroundings: a cache of its own for the whole session, and a pipeline small enough to train in seconds."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

Run = Callable[..., tuple[int, str, str]]

# Processes that run tests side by side share the cores; more threads than that wait for one another.
torch.set_num_threads(max(1, torch.get_num_threads() // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))

TINY = """
extends: unsup3d-quick-photometric
model: {convex_start_steps: 2}
encoders:
  depth: {width: 8}
  albedo: {width: 8}
  light: {width: 8}
  view: {width: 8}
  confidence: {width: 8}
dataset: {name: synthetic-faces, count: 48, validation: 8, test: 8}
image_size: 32
training: {steps: 6, batch_size: 8, validate_every: 4, log_every: 2, precision: fp32, workers: 1}
"""


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Nothing is read from or left in the user's own folders."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        yield folder


@pytest.fixture(autouse=True)
def seeded():
    """Every test draws the same numbers, alone or among others."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A pipeline file: the reference method at 32 pixels on 48 faces, six steps."""
    path = tmp_path_factory.mktemp("pipeline") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def untrained_run(tmp_path_factory, cache) -> Path:
    """A run at 32 pixels of a very small model that has learnt nothing: enough to reconstruct with."""
    from recon_toolkit.assembly import build_model
    from recon_toolkit.config.pipeline import load_pipeline
    from recon_toolkit.engine.checkpoint import WEIGHTS, Checkpoint, save_checkpoint

    narrow = [f"encoders.{role}.width=4" for role in ("depth", "albedo", "light", "view", "confidence")]
    resolved = load_pipeline("unsup3d-quick-photometric", [*narrow, "image_size=32"])
    run = tmp_path_factory.mktemp("run")
    (run / "pipeline.yaml").write_text(resolved.to_yaml())
    tensors = {f"model.{name}": value for name, value in build_model(resolved).state_dict().items()}
    save_checkpoint(run / WEIGHTS, Checkpoint(0, resolved.to_yaml(), resolved.weights_fingerprint, tensors, {}))
    return run


@pytest.fixture
def recon(capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a command line; returns its exit code, standard output and standard error."""
    from recon_toolkit.cli.app import execute

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        code = execute([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    yield run
