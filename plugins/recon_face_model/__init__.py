"""Trained models for faces of people and cats, and the detector that finds them in photographs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from recon_toolkit import Component, hookimpl


@hookimpl
def recon_components() -> Iterator[Component]:
    """The detector."""
    yield Component(
        "detector", "faces", "recon_face_model.detector:FacesAndCats", "Faces of people and cats, turned ones too."
    )


@hookimpl
def recon_models() -> Iterable[Path]:
    """The folder of the bundled models."""
    yield Path(__file__).parent / "models"
