"""Synthetic faces: procedural 3D heads with exact ground truth, as the data set ``synthetic-faces``."""

from __future__ import annotations

from collections.abc import Iterable

from recon_toolkit import Component, hookimpl


@hookimpl
def recon_components() -> Iterable[Component]:
    yield Component(
        "dataset",
        "synthetic-faces",
        "recon_synthetic_faces.dataset:SyntheticFaces",
        "procedural 3D heads with exact depth, normals, albedo, light and view; generated once",
    )
