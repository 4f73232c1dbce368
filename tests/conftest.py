"""Shared surroundings: a cache of its own for the whole session, and a pipeline small enough to train in seconds."""

from pathlib import Path

import pytest
import torch

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
    """Nothing is read from or left in the user's own cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
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
