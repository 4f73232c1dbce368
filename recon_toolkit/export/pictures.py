"""Turning tensors into pictures: 8-bit images for eyes, 16-bit depth for programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from torch import Tensor

from recon_toolkit.data.decode import SCALE_ENTRY, DepthScale
from recon_toolkit.files import writing


def to_bytes(image: Tensor) -> NDArray[np.uint8]:
    """(3 | 1, H, W) or (H, W) in [0, 1] (clamped; NaN is black) → (H, W, 3) uint8."""
    values = image.detach().float().cpu()
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or values.shape[0] not in (1, 3):
        raise ValueError(f"expected (3, H, W), (1, H, W) or (H, W), got {tuple(image.shape)}")
    # NumPy, because small pictures are not worth waking torch's threads for.
    shown = np.clip(np.nan_to_num(values.numpy(), nan=0.0), 0, 1) * np.float32(255)
    pixels = np.rint(shown).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0))


def depth_picture(
    depth: Tensor, mask: Tensor | None = None, *, depth_range: tuple[float, float] | None = None
) -> Tensor:
    """Depth (B, H, W) → (B, 1, H, W) in [0, 1] where near is bright and what is masked out is black.

    Args:
        depth: any units.
        mask: (B, H, W) bool; everywhere by default.
        depth_range: the nearest and the furthest depth to tell apart; by default each image's own.
    """
    shown = depth.isfinite() if mask is None else mask.bool() & depth.isfinite()
    if depth_range is None:
        near = depth.where(shown, torch.inf).amin((1, 2), keepdim=True)
        far = depth.where(shown, -torch.inf).amax((1, 2), keepdim=True)
    else:
        near, far = (depth.new_tensor(value) for value in depth_range)
    # The furthest shown depth keeps a tenth of the brightness, so that it is seen against the background.
    nearness = ((far - depth) / (far - near).clamp(min=1e-9)).clamp(0, 1) * 0.9 + 0.1
    return nearness.where(shown, 0.0)[:, None]


def normals_picture(normals: Tensor, mask: Tensor | None = None) -> Tensor:
    """Normals (B, 3, H, W) → colours in [0, 1]: red to the right, green up, blue to the viewer, as usual.

    Ours point along the line of sight (x right, y down, z forward), so the outward normal is their negative.
    """
    x, y, z = normals.unbind(1)
    colours = torch.stack((-x, y, z), dim=1) / 2 + 0.5
    return colours if mask is None else colours.where(mask.bool()[:, None], 0.0)


def write_picture(path: Path, image: Tensor) -> None:
    """Write (3 | 1, H, W) or (H, W) in [0, 1] as an 8-bit PNG. Raises DataError on a full disk."""
    pixels = to_bytes(image)
    grey = image.ndim == 2 or image.shape[0] == 1
    save_png(path, Image.fromarray(pixels[..., 0] if grey else pixels))


def write_depth_png(
    path: Path, depth: NDArray[np.floating], mask: NDArray[np.bool_] | None, *, plain: bool = False
) -> None:
    """Write depth (H, W) as a 16-bit PNG; 0 is no depth, and everything else lies in 1..65535.

    The file says its own scale (:data:`~recon_toolkit.data.decode.SCALE_ENTRY`), which is that of Wu et al.'s data,
    depth = 1.1 − 0.2 · value, where the depths fit into it, and a wider one otherwise.

    Args:
        path: the file.
        depth: depths, finite inside the mask.
        mask: where there is depth; where it is finite by default.
        plain: for the original's data layout: keep to its scale, clip to it, and say nothing.

    Raises:
        DataError: the disk is full or cannot be written.
    """
    shown = np.isfinite(depth) if mask is None else mask & np.isfinite(depth)
    scale = DepthScale()
    near, far = scale.offset + scale.slope, scale.offset
    if shown.any() and not plain:
        nearest, furthest = float(depth[shown].min()), float(depth[shown].max())
        near = min(near, nearest)
        if furthest > far - (far - near) / 65535:  # it would be 0, which is no depth
            far = furthest + (furthest - near) / 65534
    values = np.zeros(depth.shape, dtype=np.uint16)
    values[shown] = np.clip(np.rint((far - depth[shown]) / (far - near) * 65535), 1, 65535)
    info = PngImagePlugin.PngInfo()
    if not plain:
        info.add_text(SCALE_ENTRY, f"{far!r} {near - far!r}")
    save_png(path, Image.fromarray(values), info)


def save_png(path: Path, image: Image.Image, info: PngImagePlugin.PngInfo | None = None) -> None:
    """Write a PNG whole or not at all. Raises DataError on a full disk."""
    with writing(path) as file:
        image.save(file, format="PNG", pnginfo=info)
