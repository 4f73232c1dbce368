"""The maps of a reconstruction as files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from recon_toolkit.export.pictures import depth_picture, normals_picture, write_depth_png, write_picture
from recon_toolkit.files import json_text, write_text, writing
from recon_toolkit.structures import Reconstruction

DEPTH = "depth.npy"


def write_maps(folder: str | Path, found: Reconstruction, index: int) -> list[Path]:
    """Write the maps of one image of a reconstruction into ``folder``, which is made where it is missing.

    - ``depth.npy``: float32 (H, W), NaN outside the mask; ``depth_16bit.png``: the same, see
      :func:`~recon_toolkit.export.pictures.write_depth_png`; ``depth_preview.png``: 8 bits, near is bright, no scale;
    - ``normals.png`` (red right, green up, blue to the viewer), ``albedo.png``, ``shading.png`` (divided by its largest
      value where that is above 1), ``reconstruction.png``, ``input.png``;
    - ``mask.png``, white where there is depth; ``confidence.npy``, float32 (H, W), the spread σ of the colours, and
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
        spread = found.confidence[index, 0].float().cpu()
        _write_array(folder / "confidence.npy", spread.numpy())
        written.append(folder / "confidence.npy")
        picture("confidence.png", spread.amin() / spread.clamp(min=1e-9))
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
