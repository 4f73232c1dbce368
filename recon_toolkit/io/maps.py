"""The maps of a reconstruction, and data sets of them, as files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from torch import Tensor

from recon_toolkit.data.decode import SCALE_ENTRY, DepthScale
from recon_toolkit.data.packed import PackedImages
from recon_toolkit.errors import DataError
from recon_toolkit.files import json_text, write_text, writing
from recon_toolkit.progress import QUIET, Progress
from recon_toolkit.structures import Reconstruction


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


DEPTH = "depth.npy"


def write_maps(folder: str | Path, found: Reconstruction, index: int) -> list[Path]:
    """Write the maps of one image of a reconstruction into ``folder``, which is made where it is missing.

    - ``depth.npy``: float32 (H, W), NaN outside the mask; ``depth_16bit.png``: the same, see
      :func:`~recon_toolkit.io.maps.write_depth_png`; ``depth_preview.png``: 8 bits, near is bright, no scale;
    - ``normals.png`` (red right, green up, blue to the viewer), ``albedo.png``, ``shading.png`` (divided by its largest
      value where that is above 1), ``reconstruction.png``, ``input.png``;
    - ``mask.png``, white where there is depth; ``confidence.npy``, float32 (H, W), σ of the colours, and
      ``confidence.png``, white where the model is surest;
    - ``canonical.png``, ``canonical_albedo.png``, ``canonical_depth.npy``, ``canonical_normals.png``: the object seen
      from the front;
    - ``factors.json``: light (ambient, diffuse, direction) and view (rotation in degrees, translation).

    Maps that the model does not predict are left out.

    Raises:
        DataError: the disk is full or cannot be written.
    """
    folder = Path(folder)
    written: list[Path] = []
    mask = None if found.mask is None else found.mask[index]

    def picture(name: str, image: Tensor | None) -> None:
        if image is not None:
            write_picture(folder / name, image)
            written.append(folder / name)

    picture("input.png", found.image[index])
    if found.depth is not None:
        depth = found.depth[index].float().cpu().numpy().astype(np.float32)
        inside = np.isfinite(depth) if mask is None else mask.cpu().numpy()
        _write_array(folder / DEPTH, np.where(inside, depth, np.float32(np.nan)))
        write_depth_png(folder / "depth_16bit.png", depth, inside)
        written += [folder / DEPTH, folder / "depth_16bit.png"]
        picture("depth_preview.png", depth_picture(found.depth[index][None], None if mask is None else mask[None])[0])
    if found.normals is not None:
        picture("normals.png", normals_picture(found.normals[index][None], None if mask is None else mask[None])[0])
    picture("albedo.png", None if found.albedo is None else found.albedo[index])
    if found.shading is not None:
        shading = found.shading[index]
        picture("shading.png", shading / shading.max().clamp(min=1))
    picture("reconstruction.png", None if found.reconstruction is None else found.reconstruction[index])
    if mask is not None:
        picture("mask.png", mask.float())
    if found.confidence is not None:
        sigma = found.confidence[index, 0].float().cpu()
        _write_array(folder / "confidence.npy", sigma.numpy())
        written.append(folder / "confidence.npy")
        picture("confidence.png", sigma.amin() / sigma.clamp(min=1e-9))
    picture("canonical.png", None if found.canonical_image is None else found.canonical_image[index])
    picture("canonical_albedo.png", None if found.canonical_albedo is None else found.canonical_albedo[index])
    if found.canonical_depth is not None:
        _write_array(folder / "canonical_depth.npy", found.canonical_depth[index].float().cpu().numpy())
        written.append(folder / "canonical_depth.npy")
    if found.canonical_normals is not None:
        picture("canonical_normals.png", normals_picture(found.canonical_normals[index][None])[0])
    factors = _factors(found, index)
    if factors:
        write_text(folder / "factors.json", json_text(factors, indent=2) + "\n")
        written.append(folder / "factors.json")
    return written


def _factors(found: Reconstruction, index: int) -> Mapping[str, Mapping[str, float | list[float]]]:
    factors: dict[str, Mapping[str, float | list[float]]] = {}
    if found.light is not None:
        ambient, diffuse, *direction = (float(value) for value in found.light[index])
        factors["light"] = {"ambient": ambient, "diffuse": diffuse, "direction": direction}
    if found.view is not None:
        values = [float(value) for value in found.view[index]]
        factors["view"] = {
            "rotation_degrees": [math.degrees(value) for value in values[:3]],
            "translation": values[3:],
        }
    return factors


def _write_array(path: Path, values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    with writing(path) as file:
        np.save(file, values, allow_pickle=False)


BATCH = 64


def write_dataset(
    folder: Path,
    images: PackedImages,
    *,
    count: int | None = None,
    depth_as_png: bool = True,
    progress: Progress = QUIET,
) -> int:
    """Write ``image/image_000000.png`` and, with depth, ``depth/depth_000000.png`` (or ``.npy``) and so on.

    Args:
        folder: where; made if missing.
        images: the data set.
        count: how many at most; all by default.
        depth_as_png: 16 bits, depth = 1.1 − 0.2 · value, background 0; otherwise ``.npy``, float32, background NaN.
        progress: where to show progress.

    Returns:
        How many images were written.

    Raises:
        DataError: a depth lies outside [0.9, 1.1], which the PNG cannot say, or the disk is full.
    """
    total = min(count or len(images), len(images))
    with progress.task(f"writing {folder.name}", total, "img") as task:
        for start in range(0, total, BATCH):
            batch = images.batch(np.arange(start, min(start + BATCH, total)))
            for row in range(len(batch)):
                number = f"{start + row:06d}"
                write_picture(folder / "image" / f"image_{number}.png", batch.image[row])
                if batch.depth is not None:
                    depth = batch.depth[row].numpy()
                    mask = np.isfinite(depth) if batch.mask is None else batch.mask[row].numpy()
                    _write_depth(folder / "depth" / f"depth_{number}", depth, mask, depth_as_png)
            task.advance(len(batch))
    return total


def _write_depth(path: Path, depth: NDArray[np.float32], mask: NDArray[np.bool_], as_png: bool) -> None:
    if not as_png:
        with writing(path.with_suffix(".npy")) as file:
            np.save(file, np.where(mask, depth, np.nan).astype(np.float32), allow_pickle=False)
        return
    inside = depth[mask]
    if inside.size and (inside.min() < 0.9 - 1e-5 or inside.max() > 1.1 + 1e-5):
        raise DataError(
            f"depths from {inside.min():.3f} to {inside.max():.3f} do not fit the PNG's range from 0.9 to 1.1",
            where=str(path),
            remedy="write them with --depth npy",
        )
    write_depth_png(path.with_suffix(".png"), depth, mask, plain=True)
