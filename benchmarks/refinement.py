"""What refining gains, on faces with ground truth: python benchmarks/refinement.py

The bundled model is refined on each of some synthetic test faces by itself, and on all of them together; on faces of
its own kind (``photographic: 0.8``, people it has never seen) and on those of another world (patches on the faces,
strong light from the side, another field of faces). SIDE and MAD before and after, paired over the same faces.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recon_bench.collect import paired_interval
from recon_synthetic_faces.dataset import SyntheticFaces
from recon_synthetic_faces.render import Pictures
from record import Record, describe

from recon_toolkit.inference.models import TrainedModel, load_model
from recon_toolkit.inference.refine import LEARNING_RATE, refined
from recon_toolkit.metrics.report import DepthEvaluator

WORLDS: dict[str, dict[str, Any]] = {
    "its own kind": {"photographic": 0.8, "ambient": (0.3, 0.7), "diffuse": (0.35, 0.85)},
    "another world": {"photographic": 0.8, "patches": 3, "side_light": 2.0, "ambient": (0.1, 0.3), "seed": 77},
}


def main() -> None:
    """Measure both worlds and write results/refinement.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=48)
    parser.add_argument("--steps", type=int, nargs="+", default=[25, 100])
    parser.add_argument("--together-steps", type=int, nargs="+", default=[200])
    parser.add_argument("--rate", type=float, default=LEARNING_RATE)
    parser.add_argument("--run", type=Path, help="the model of this run instead of the bundled one")
    parser.add_argument("--name", default="refinement")
    options = parser.parse_args()
    record = Record(benchmark=options.name, environment=describe(["python", *sys.argv], torch.device("cpu")))
    trained = load_model(run=options.run)
    for world, settings in WORLDS.items():
        faces = SyntheticFaces(**settings).generate(np.arange(options.faces), "test", trained.image_size)
        images = torch.from_numpy(faces.image).float() / 255
        before = _scores(trained, images, faces)
        record.values |= {f"{world}: {name} before": round(float(v.mean()), 4) for name, v in before.items()}
        for steps in options.steps:
            parts = [refined(trained, image[None], steps, learning_rate=options.rate) for image in images]
            scores = [_scores(model, images[i : i + 1], faces, slice(i, i + 1)) for i, (model, _) in enumerate(parts)]
            after = {name: np.concatenate([score[name] for score in scores]) for name in before}
            kept = sum(gain.kept for _, gain in parts)
            _note(record, f"{world}: each alone, {steps} steps", before, after, kept / len(parts))
        for steps in options.together_steps:
            model, gain = refined(trained, images, steps, learning_rate=options.rate)
            _note(record, f"{world}: together, {steps} steps", before, _scores(model, images, faces), gain.kept)
    record.write()


def _scores(
    trained: TrainedModel, images: torch.Tensor, faces: Pictures, rows: slice = slice(None)
) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """SIDE (×10⁻²), MAD (degrees) and both for constant depth, one number an image."""
    evaluator = DepthEvaluator(trained.camera)
    found = trained.reconstruct(images)
    truth, mask = torch.from_numpy(faces.depth[rows]), torch.from_numpy(faces.mask[rows])
    evaluator.add(found.depth, truth, prediction_mask=found.mask, truth_mask=mask)
    scores = evaluator.images()
    return {name: np.array(scores[name]) for name in ("side", "mad")}


def _note(
    record: Record,
    case: str,
    before: dict[str, np.ndarray[Any, np.dtype[np.float64]]],
    after: dict[str, np.ndarray[Any, np.dtype[np.float64]]],
    kept: float,
) -> None:
    record.values[f"{case}: share kept"] = round(float(kept), 3)
    for name in before:
        found = paired_interval((after[name] - before[name])[None])
        assert found is not None
        record.values |= {
            f"{case}: {name} difference": round(found.mean, 4),
            f"{case}: {name} low": round(found.low, 4),
            f"{case}: {name} high": round(found.high, 4),
        }
    print({k: v for k, v in record.values.items() if k.startswith(case)}, flush=True)


if __name__ == "__main__":
    main()
