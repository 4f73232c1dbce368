"""How long a mesh takes from every side: python benchmarks/render_views.py

Draws a mesh of 20,000 faces as ``recon data render-views`` does, but with all of it at 128 × 128: 24 pictures and depth
from 8 fixed and 100 random sides; then with its file read, its cloud drawn and everything written. The bar is 3 seconds
on two cores for the drawing.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import trimesh
from numpy.random import default_rng
from recon_object_views.command import RenderOptions, render_meshes
from recon_object_views.meshes import read_mesh
from recon_object_views.render import Layout, pictures_of
from record import Record, describe, measure

SIZE = 128
#: Seconds that drawing a mesh may take.
BAR = 3.0


def main() -> None:
    """Measure both and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--name", default="render-views")
    options = parser.parse_args()
    device = torch.device("cpu")
    record = Record(benchmark=options.name, environment=describe(["python", *sys.argv], device))
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "bumpy.ply", Path(folder) / "out"
        record.values["faces"] = _write_bumpy(path, options.faces)
        made = read_mesh(path)
        layout = Layout(image_size=SIZE, depth_size=SIZE, points=1)

        def whole() -> None:
            shutil.rmtree(out, ignore_errors=True)
            render_meshes([path], out, RenderOptions(size=SIZE))

        drawing = measure(
            f"24 pictures, 108 depth maps at {SIZE}²", lambda: pictures_of(made, layout, default_rng(0)),
            device=device, repeats=options.repeats, warm_up=2,
        )  # fmt: skip
        file = measure("a file to files, with its cloud", whole, device=device, repeats=options.repeats, warm_up=1)
    record.timings = [drawing, file]
    record.values["seconds of drawing"] = round(drawing.median_ms / 1e3, 3)
    record.values["bar"] = BAR
    record.notes.append("one mesh at a time; several are read and written side by side, one on each core")
    record.write()


def _write_bumpy(path: Path, faces: int) -> int:
    """A sphere with bumps, so that views hide parts of it, with about so many faces; returns how many."""
    side = max(4, math.ceil(1 + (1 + faces / 4) ** 0.5))
    made = trimesh.creation.uv_sphere(count=[side, side])
    # Kept in order by angle, bumps are a function of place alone: the mesh is the same everywhere.
    x, y, z = np.asarray(made.vertices).T
    made.vertices *= (1 + 0.25 * np.sin(7 * x) * np.sin(6 * y + 1) * np.sin(5 * z + 2))[:, None]
    made.export(path)
    return len(made.faces)


if __name__ == "__main__":
    main()
