"""The model ``faces``: Unsup3D trained on synthetic faces that look like photographs, ready for photographs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from recon_toolkit import hookimpl


@hookimpl
def recon_models() -> Iterable[Path]:
    yield Path(__file__).parent / "models"
