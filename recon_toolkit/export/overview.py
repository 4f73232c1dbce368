"""What to look at: the contact sheets of reconstructions and of data sets."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from recon_toolkit.export.cloud_pictures import cloud_pictures
from recon_toolkit.export.contact_sheet import contact_sheet
from recon_toolkit.export.pictures import depth_picture, normals_picture
from recon_toolkit.structures import Batch, Reconstruction


def overview(
    found: Reconstruction,
    *,
    truth: Batch | None = None,
    rows: Sequence[str] | None = None,
    title: str | None = None,
) -> Image.Image:
    """The contact sheet of a reconstruction, one row an image, with the ground truth beside it where there is any.

    Args:
        found: what a model returned.
        truth: the batch it was made from.
        rows: a label for each image.
        title: a line above everything.
    """
    return contact_sheet(reconstruction_columns(found, truth), rows=rows, title=title)


def data_overview(
    batch: Batch, *, rows: Sequence[str] | None = None, title: str | None = None, blocks: int | None = None
) -> Image.Image:
    """The contact sheet of a batch with its ground truth; few columns are laid out in several blocks."""
    columns = batch_columns(batch)
    fitting = max(1, round((len(batch) / len(columns)) ** 0.5)) if blocks is None else blocks
    return contact_sheet(columns, rows=rows, title=title, blocks=fitting)


def reconstruction_columns(found: Reconstruction, truth: Batch | None = None) -> dict[str, Tensor]:
    """The columns of a contact sheet for a reconstruction, and its ground truth where there is any, (B, C, H, W)."""
    columns: dict[str, Tensor] = {"input": found.image}
    images = {
        "reconstruction": found.reconstruction,
        "canonical view": found.canonical_image,
        "canonical albedo": found.canonical_albedo if found.canonical_albedo is not None else found.albedo,
        # Shading may be brighter than white: its largest value becomes white then.
        "shading": None if found.shading is None else found.shading / found.shading.amax((1, 2, 3), True).clamp(min=1),
    }
    columns |= {name: image for name, image in images.items() if image is not None}
    clouds = found.clouds()
    if clouds is not None:
        columns |= cloud_pictures(clouds, found.image.shape[-1])
    true_depth = None if truth is None or truth.depth is None else truth.depth
    true_mask = None if truth is None else truth.mask
    if found.depth is not None:
        columns["depth"] = depth_picture(found.depth, found.mask)
    if true_depth is not None:
        columns["true depth"] = depth_picture(true_depth, true_mask)
    if found.normals is not None:
        columns["normals"] = normals_picture(found.normals, found.mask)
    if truth is not None and truth.normals is not None:
        columns["true normals"] = normals_picture(truth.normals, true_mask)
    return columns


def batch_columns(batch: Batch) -> dict[str, Tensor]:
    """The columns of a contact sheet for a data set, (B, C, H, W)."""
    columns = {"image": batch.image}
    if batch.albedo is not None:
        columns["albedo"] = batch.albedo
    if batch.normals is not None:
        columns["normals"] = normals_picture(batch.normals, batch.mask)
    if batch.depth is not None:
        columns["depth"] = depth_picture(batch.depth, batch.mask)
    elif batch.mask is not None:
        columns["mask"] = batch.mask.float()[:, None]
    return columns
