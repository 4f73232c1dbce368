"""From image files to reconstructions on disk, with a trained model."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from recon_toolkit.data.decode import CentreCrop, read_image
from recon_toolkit.data.packing import find_images
from recon_toolkit.errors import DataError
from recon_toolkit.export.maps import write_maps
from recon_toolkit.export.obj import mesh_from_depth, object_mask, write_obj
from recon_toolkit.export.overview import overview
from recon_toolkit.export.pictures import save_png
from recon_toolkit.geometry.camera import Camera
from recon_toolkit.progress import QUIET, Progress
from recon_toolkit.structures import Reconstruction, Reconstructs

CONTACT_SHEET = "contact_sheet.png"
SHEET_ROWS = 64  # more would make a picture that few programs open


@dataclass(frozen=True)
class Input:
    """An image file, and the folder below the output folder that its reconstruction goes to."""

    path: Path
    folder: str


class Reconstructed(BaseModel):
    """An image that was reconstructed, and the folder with its files."""

    model_config = ConfigDict(frozen=True)

    image: str
    folder: str


class Failed(BaseModel):
    """An image that was not, and why."""

    model_config = ConfigDict(frozen=True)

    image: str
    reason: str


class ReconstructionReport(BaseModel):
    """What ``recon reconstruct --json`` prints."""

    model_config = ConfigDict(frozen=True)

    out: str
    contact_sheet: str
    reconstructed: list[Reconstructed]
    failed: list[Failed]


def find_inputs(arguments: Sequence[str | Path]) -> tuple[list[Input], list[Failed]]:
    """The image files that files, folders and patterns name, each once, and the arguments that name nothing.

    Of a folder, every image below it counts, and its reconstruction keeps the path below that folder.
    """
    found: dict[Path, str] = {}
    failed: list[Failed] = []
    for argument in map(str, arguments):
        path = Path(argument).expanduser()
        matches = [path] if path.exists() else [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        if not matches:
            failed.append(Failed(image=argument, reason="no such file or folder"))
        for match in matches:
            try:
                files = {file: file.relative_to(match) for file in find_images(match)} if match.is_dir() else {}
            except DataError as error:
                failed.append(Failed(image=str(match), reason=str(error)))
                continue
            for file, place in (files or {match: Path(match.name)}).items():
                found.setdefault(file, place.with_suffix("").as_posix())
    return _distinct(found), failed


def _distinct(found: dict[Path, str]) -> list[Input]:
    """Inputs with folders of their own: ``face``, ``face-2`` where two files are called so."""
    inputs: list[Input] = []
    taken: set[str] = set()
    for path, name in found.items():
        folder, number = name, 1
        while folder.lower() in taken:  # some file systems do not tell case apart
            number += 1
            folder = f"{name}-{number}"
        taken.add(folder.lower())
        inputs.append(Input(path, folder))
    return inputs


def reconstruct_files(
    model: Reconstructs,
    camera: Camera,
    image_size: int,
    arguments: Sequence[str | Path],
    out: str | Path,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 16,
    progress: Progress = QUIET,
) -> ReconstructionReport:
    """Reconstruct image files: maps and a textured mesh each, and a contact sheet over the first of them.

    Each image is cut to its largest centred square and resized to the model's size; the object should fill it.
    Images that cannot be read are listed in the report, the others are done.

    Args:
        model: a trained model, on ``device``.
        camera: the model's camera.
        image_size: the model's image size in pixels.
        arguments: files, folders and patterns.
        out: the folder for the results, one folder an image.
        device: where the model is.
        batch_size: images at once.
        progress: where to show progress.

    Raises:
        DataError: nothing could be reconstructed, or the results cannot be written.
    """
    out = Path(out)
    inputs, failed = find_inputs(arguments)
    done: list[Reconstructed] = []
    shown: list[Reconstruction] = []
    with progress.task("reconstructing", len(inputs), "img") as task:
        for batch, images, broken in _batches(inputs, image_size, batch_size):
            failed += broken
            if batch:
                found = model.reconstruct(images.to(device)).to("cpu")
                for index, item in enumerate(batch):
                    export_reconstruction(out / item.folder, found, index, camera)
                    done.append(Reconstructed(image=str(item.path), folder=str(out / item.folder)))
                if sum(len(part) for part in shown) < SHEET_ROWS:
                    shown.append(found)
            task.advance(len(batch) + len(broken))
    if not done:
        reasons = "; ".join(f"{item.image}: {item.reason}" for item in failed[:3])
        raise DataError(f"nothing was reconstructed: {reasons}", remedy="give images, folders of images, or patterns")
    sheet = _first(_joined(shown), SHEET_ROWS)
    labels = [Path(item.folder).relative_to(out).as_posix() for item in done[: len(sheet)]]
    save_png(out / CONTACT_SHEET, overview(sheet, rows=labels))
    return ReconstructionReport(out=str(out), contact_sheet=str(out / CONTACT_SHEET), reconstructed=done, failed=failed)


def export_reconstruction(folder: Path, found: Reconstruction, index: int, camera: Camera) -> list[Path]:
    """Write the maps and the mesh of one image; the mesh is the canonical object where the model has one."""
    written = write_maps(folder, found, index)
    if found.canonical_depth is not None:
        depth = found.canonical_depth[index]
        mask = object_mask(depth)
        textures = (found.canonical_albedo, found.canonical_image, found.image)
    elif found.depth is not None:
        depth = found.depth[index]
        mask = torch.ones_like(depth, dtype=torch.bool) if found.mask is None else found.mask[index]
        textures = (found.albedo, found.reconstruction, found.image)
    else:
        return written
    texture = next(texture for texture in textures if texture is not None)[index]
    if mask.any():
        written += write_obj(folder / "mesh.obj", mesh_from_depth(depth, camera, mask=mask), texture)
    return written


def _batches(inputs: Sequence[Input], size: int, batch_size: int) -> Iterator[tuple[list[Input], Tensor, list[Failed]]]:
    """The inputs that can be read, their images (B, 3, H, W) in [0, 1], and those that cannot."""
    for start in range(0, len(inputs), batch_size):
        good: list[Input] = []
        images: list[Tensor] = []
        broken: list[Failed] = []
        for item in inputs[start : start + batch_size]:
            try:
                pixels = read_image(item.path, crop=CentreCrop(), size=size)
            except DataError as error:
                remedy = f" ({error.remedy})" if error.remedy else ""
                broken.append(Failed(image=str(item.path), reason=error.message + remedy))
            else:
                good.append(item)
                images.append(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)
        yield good, torch.stack(images) if images else torch.empty(0, 3, size, size), broken


def _joined(parts: Sequence[Reconstruction]) -> Reconstruction:
    joined: dict[str, Any] = {
        f.name: torch.cat([getattr(part, f.name) for part in parts])
        for f in fields(Reconstruction)
        if isinstance(getattr(parts[0], f.name), Tensor)
    }
    return replace(parts[0], **joined)


def _first(found: Reconstruction, count: int) -> Reconstruction:
    values = {f.name: getattr(found, f.name) for f in fields(found)}
    kept: dict[str, Any] = {name: value[:count] for name, value in values.items() if isinstance(value, Tensor)}
    return replace(found, **kept)
