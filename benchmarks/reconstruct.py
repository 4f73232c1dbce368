"""How long photographs take, with the bundled model: python benchmarks/reconstruct.py

One crop after the model is loaded; loading itself, in processes of its own; a folder of crops through the command; a
turntable. The crops are synthetic faces. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from record import Record, describe, measure

from recon_toolkit import Reconstructor
from recon_toolkit.io.video import write_video
from recon_toolkit.viewer.turntable import turntable

_LOAD = "import time; t = time.perf_counter(); from recon_toolkit import Reconstructor; Reconstructor.load({}); "
_SHOW = "print(time.perf_counter() - t)"


def main() -> None:
    """Measure everything and write results/reconstruct.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crops", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--run", type=Path, help="the model of this run instead of the bundled one")
    options = parser.parse_args()
    cpu = torch.device("cpu")
    record = Record(benchmark="reconstruct", environment=describe(["python", *sys.argv], cpu))
    source = {} if options.run is None else {"run": str(options.run)}
    text = ", ".join(f"{name}={value!r}" for name, value in source.items())
    seconds = [
        float(
            subprocess.run([sys.executable, "-c", _LOAD.format(text) + _SHOW], check=True, capture_output=True).stdout
        )
        for _ in range(5)
    ]
    record.values["load with imports, s"] = round(float(np.median(seconds)), 3)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        crops = _crops(folder / "crops", options.crops)
        reconstructor = Reconstructor.load(detector=None, **source)

        def alone() -> None:
            reconstructor.reconstruct(crops[0]).save(folder / "alone", ["maps", "glb", "page"])

        record.timings.append(measure("one crop: maps, GLB and page", alone, device=cpu, repeats=options.repeats))
        result = reconstructor.reconstruct(crops[0])
        texture = result.texture()

        def turn() -> None:
            write_video(folder / "turn.mp4", turntable(result.maps, result.camera, texture, frames=90, size=256))

        record.timings.append(measure("turntable of 90 frames at 256 px, MP4", turn, device=cpu, repeats=5))
        chosen = [word for name, value in source.items() for word in (f"--{name}", value)]
        for outputs in ("maps", "maps,glb"):
            command = [sys.executable, "-m", "recon_toolkit", "reconstruct", "--no-detect", "--json", "--device", "cpu"]
            command += ["--write", outputs, "--out", str(folder / outputs), *chosen, str(folder / "crops")]
            started = time.perf_counter()
            finished = subprocess.run(command, check=True, capture_output=True)
            whole = time.perf_counter() - started
            own = json.loads(finished.stdout)["seconds"]
            record.values[f"{options.crops} crops, {outputs}: images/s"] = round(options.crops / own, 1)
            record.values[f"{options.crops} crops, {outputs}: whole command, s"] = round(whole, 1)
    record.write()
    print(record.model_dump_json(indent=1, include={"values", "timings"}))


def _crops(folder: Path, count: int) -> list[Path]:
    from recon_synthetic_faces.dataset import SyntheticFaces

    folder.mkdir()
    paths = []
    for start in range(0, count, 64):
        indices = np.arange(start, min(start + 64, count))
        for index, pixels in zip(indices, SyntheticFaces().generate(indices, "test", 64).image, strict=True):
            paths.append(folder / f"{index:05d}.png")
            Image.fromarray(pixels.transpose(1, 2, 0)).save(paths[-1])
    return paths


if __name__ == "__main__":
    main()
