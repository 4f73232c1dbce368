"""Pictures for the documentation: photographs, and what the model makes of them from several sides.

``python benchmarks/turned_sheet.py PICTURE... --out sheet.png [--no-detect]``
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from recon_toolkit import Reconstructor, Result
from recon_toolkit.geometry import lambert
from recon_toolkit.io.contact_sheet import contact_sheet
from recon_toolkit.io.maps import normals_picture
from recon_toolkit.viewer.turntable import Stage, sight

YAWS = (-40.0, -20.0, 0.0, 20.0, 40.0)
#: For the surface alone: from the left, above and before; grey.
LIGHT = torch.tensor([[0.45, 0.55, 0.5, 0.4, 0.77]])


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--no-detect", action="store_true", help="the pictures are crops already")
    parser.add_argument("--weights", type=Path, help="a weights file instead of the bundled model")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--refine", type=int, default=0)
    options = parser.parse_args()
    reconstructor = Reconstructor.load(weights=options.weights, **({"detector": None} if options.no_detect else {}))
    if options.refine:
        reconstructor = reconstructor.refine(options.pictures, options.refine)
    results = [reconstructor.reconstruct(path, name=path.stem) for path in options.pictures]
    columns: dict[str, list[Tensor]] = {}
    for result in results:
        for name, picture in _pictures(result, options.size).items():
            columns.setdefault(name, []).append(picture)
    sheet = contact_sheet(
        {name: torch.stack(pictures) for name, pictures in columns.items()}, rows=[r.name for r in results]
    )
    sheet.save(options.out, optimize=True)


def _pictures(result: Result, size: int) -> dict[str, Tensor]:
    found, camera = result.maps, result.camera
    subject = sight(result.outlined, camera)
    stage = Stage(subject.depth, camera, size=size, mask=subject.mask, zoom=0.9)
    views = torch.zeros(len(YAWS), 6)
    views[:, 1] = torch.tensor([math.radians(yaw) for yaw in YAWS])
    photo = [_tensor(frame) for frame in stage.frames(result.photo_texture, views)]
    assert found.canonical_normals is not None and found.reconstruction is not None and found.normals is not None
    clay = (LIGHT[0, 0] + LIGHT[0, 1] * lambert(found.canonical_normals, LIGHT[:, 2:]))[0].expand(3, -1, -1) * 0.9
    shapes = [_tensor(frame) for frame in stage.frames(clay, views[[1, 2, 4]])]
    small = {
        "input": result.photo,
        "reconstruction": found.reconstruction[0],
        "normals": normals_picture(found.normals, found.mask)[0],
    }
    return {
        **{name: _sized(picture, size) for name, picture in small.items()},
        **{f"{yaw:+.0f}°": picture for yaw, picture in zip(YAWS, photo, strict=True)},
        **{f"shape {YAWS[i]:+.0f}°": picture for i, picture in zip((1, 2, 4), shapes, strict=True)},
    }


def _tensor(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255


def _sized(picture: Tensor, size: int) -> Tensor:
    pixels = np.rint(picture.permute(1, 2, 0).clamp(0, 1).numpy() * 255).astype(np.uint8)
    return _tensor(np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)))


if __name__ == "__main__":
    main()
