"""Contact sheets: named columns of maps by rows of images, as one labelled picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from recon_toolkit.geometry.orthographic import looking_from, to_picture
from recon_toolkit.io.maps import depth_picture, normals_picture, save_png, to_bytes
from recon_toolkit.structures import Batch, Reconstruction

#: Sides that clouds are seen from: label, azimuth and elevation in degrees. 0 looks at what faces −y.
SIDES = (("from the front", 30.0, 25.0), ("from behind", 210.0, 25.0))


def cloud_pictures(clouds: Sequence[Tensor], size: int, *, label: str = "") -> dict[str, Tensor]:
    """Clouds from each of :data:`SIDES`: label → (B, 1, size, size) in [0, 1]; where no point lands it is black.

    Args:
        clouds: B of them, (N, 3) each, in the object's frame about the unit cube.
        size: of the pictures in pixels.
        label: before that of the side.
    """
    angles = torch.tensor([side[1:] for side in SIDES]) * (math.pi / 180)
    views = looking_from(angles[:, 0], angles[:, 1])[None]
    depth = torch.stack([_nearest(cloud.detach().float().cpu(), views, size) for cloud in clouds])
    return {
        f"{label}{name}": depth_picture(depth[:, place], depth[:, place].isfinite())
        for place, (name, *_) in enumerate(SIDES)
    }


def _nearest(points: Tensor, views: Tensor, size: int) -> Tensor:
    """The nearest depth in each pixel, (V, size, size); infinite where no point lands."""
    column, row, depth = to_picture(points[None], views, size)[0].unbind(-1)  # (V, N) each
    i, j = (row + 0.5).floor().long(), (column + 0.5).floor().long()
    inside = (i >= 0) & (i < size) & (j >= 0) & (j < size)
    flat = torch.where(inside, i * size + j, size * size)  # what lies outside goes to a cell of its own
    canvas = torch.full((len(flat), size * size + 1), torch.inf)
    return canvas.scatter_reduce(1, flat, depth, "amin")[:, :-1].view(-1, size, size)


GAP = 4  # pixels between cells
LEAST_CELL = 96  # pixels; smaller images are enlarged by a whole factor
FONT_SIZE = 13
INK, PAPER = (30, 30, 30), (255, 255, 255)


def contact_sheet(
    columns: Mapping[str, Tensor],
    *,
    rows: Sequence[str] | None = None,
    title: str | None = None,
    blocks: int = 1,
) -> Image.Image:
    """Lay out maps side by side, one row an image.

    Args:
        columns: label → (B, 3, H, W), (B, 1, H, W) or (B, H, W) in [0, 1]; sizes may differ between columns.
        rows: a label for each image, shown beneath its first column; long ones are cut.
        title: a line above everything.
        blocks: how many runs of images stand side by side, for few columns and many images.

    Returns:
        An RGB picture.

    Raises:
        ValueError: there is no column, no image, or the columns' counts differ.
    """
    counts = {len(images) for images in columns.values()}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"the columns of a contact sheet need the same number of images, got {sorted(counts)}")
    count = counts.pop()
    if rows is not None and len(rows) != count:
        raise ValueError(f"{len(rows)} labels for {count} images")
    largest = max(max(images.shape[-2:]) for images in columns.values())
    side = largest * -(-LEAST_CELL // largest)
    font = ImageFont.load_default(FONT_SIZE)
    line = FONT_SIZE + 5
    blocks = max(1, min(blocks, count))
    depth = -(-count // blocks)  # images in a block
    step_x, step_y = side + GAP, side + GAP + (line if rows is not None else 0)
    block_width = step_x * len(columns) + (3 * GAP if blocks > 1 else 0)
    top = GAP + (line if title else 0) + line
    sheet = Image.new("RGB", (GAP + block_width * blocks, top + step_y * depth), PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((GAP, GAP), title, INK, font)
    for block in range(blocks):
        left = GAP + block * block_width
        for position, label in enumerate(columns):
            draw.text((left + position * step_x, top - line), _fitted(label, side, font), INK, font)
        for row, index in enumerate(range(block * depth, min((block + 1) * depth, count))):
            y = top + row * step_y
            for position, images in enumerate(columns.values()):
                sheet.paste(_cell(images[index], side), (left + position * step_x, y))
            if rows is not None:
                draw.text((left, y + side), _fitted(rows[index], step_x * len(columns) - GAP, font), INK, font)
    return sheet


def write_contact_sheet(
    path: str | Path,
    columns: Mapping[str, Tensor],
    *,
    rows: Sequence[str] | None = None,
    title: str | None = None,
    blocks: int = 1,
) -> None:
    """Write :func:`contact_sheet` as a PNG, whole or not at all. Raises DataError on a full disk."""
    save_png(Path(path), contact_sheet(columns, rows=rows, title=title, blocks=blocks))


def _cell(image: Tensor, side: int) -> Image.Image:
    pixels = to_bytes(image)
    factor = max(1, side // max(pixels.shape[:2]))
    # Nearest neighbour by repetition: pixels stay to be seen.
    return Image.fromarray(np.repeat(np.repeat(pixels, factor, axis=0), factor, axis=1))


def _fitted(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """``text``, cut to ``width`` pixels where need be."""
    printable = text.replace("\n", " ")
    if font.getlength(printable) <= width:
        return printable
    while printable and font.getlength(printable + "…") > width:
        printable = printable[:-1]
    return printable + "…"


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
