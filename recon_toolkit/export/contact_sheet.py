"""Contact sheets: named columns of maps by rows of images, as one labelled picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from recon_toolkit.export.pictures import save_png, to_bytes

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
