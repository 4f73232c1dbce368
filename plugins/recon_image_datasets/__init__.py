"""Data sets of a user's own files: folders of images, CelebA, and image-depth pairs."""

from __future__ import annotations

from collections.abc import Iterator

from recon_toolkit import Component, hookimpl


@hookimpl
def recon_components() -> Iterator[Component]:
    """The data sets."""
    module = "recon_image_datasets"
    yield Component("dataset", "image-folder", f"{module}.folders:ImageFolder", "A folder of images of any kind.")
    yield Component("dataset", "celeba", f"{module}.celeba:CelebA", "CelebA originals with crops, or a cropped folder.")
    yield Component(
        "dataset", "prepared", f"{module}.prepared:PreparedPhotographs", "A folder that recon data prepare wrote."
    )
    yield Component("dataset", "mixture", f"{module}.mixture:Mixture", "Several data sets as one.")
    yield Component("dataset", "depth-pairs", f"{module}.folders:DepthPairs", "Images with ground-truth depth.")
