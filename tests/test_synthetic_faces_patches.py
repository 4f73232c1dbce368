"""Patches on synthetic faces: they change the colour of the face where they lie, and nothing else at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from recon_synthetic_faces.dataset import SyntheticFaces
from recon_synthetic_faces.render import Pictures

from recon_toolkit.data.context import DataContext
from recon_toolkit.errors import DataError
from recon_toolkit.geometry import Camera, backproject, inverse_transform

INDICES = np.arange(6)


@pytest.fixture(scope="module")
def plain() -> Pictures:
    return SyntheticFaces(seed=5, supervising()) if False else SyntheticFaces(seed=5).generate(INDICES, "train", 64)
