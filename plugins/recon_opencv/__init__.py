"""Detectors of OpenCV: faces of people and cats, found by the cascades that come inside its wheel."""

from __future__ import annotations

from collections.abc import Iterator

from recon_toolkit import Component, hookimpl


@hookimpl
def recon_components() -> Iterator[Component]:
    """The detectors."""
    yield Component("detector", "haar-faces", "recon_opencv.detector:HaarFaces", "Faces of people and cats.")
    yield Component("detector", "yunet", "recon_opencv.yunet:YuNet", "Faces of people, by a network that you bring.")
