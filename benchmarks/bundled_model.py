"""Scores of the bundled model on faces it has never seen: python benchmarks/bundled_model.py

On the test faces of ``synthetic-faces`` with its default options, and on those with what ``photographic`` adds, at the
strength of its training and at full. Ratios are over constant depth on the same pixels.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recon_synthetic_faces.dataset import SyntheticFaces
from record import Record, describe

from recon_toolkit.inference.models import TrainedModel, load_model
from recon_toolkit.metrics.report import DepthEvaluator

SETS: dict[str, dict[str, Any]] = {
    "synthetic faces": {},
    "photographic 0.1, as in training": {"photographic": 0.1},
    "anatomy 0.7, photographic 0.2, as in training of faces": {"anatomy": 0.7, "photographic": 0.2},
    "photographic 0.8": {"photographic": 0.8},
    "photographic 0.8, soft light": {"photographic": 0.8, "ambient": (0.3, 0.7), "diffuse": (0.35, 0.85)},
}
BATCH = 50


def main() -> None:
    """Score all sets and write results/bundled_model.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=500)
    parser.add_argument("--weights", type=Path, help="a weights file instead of the bundled model")
    parser.add_argument("--name", default="bundled_model")
    options = parser.parse_args()
    trained = load_model(weights=options.weights)
    record = Record(benchmark=options.name, environment=describe(["python", *sys.argv], torch.device("cpu")))
    record.values["faces a set"] = options.faces
    for name, settings in SETS.items():
        for key, value in _scores(trained, SyntheticFaces(**settings), options.faces).items():
            record.values[f"{name}: {key}"] = round(value, 4)
        print({k: v for k, v in record.values.items() if k.startswith(f"{name}:")}, flush=True)
    record.write()


def _scores(trained: TrainedModel, faces: SyntheticFaces, count: int) -> dict[str, float]:
    evaluator = DepthEvaluator(trained.camera)
    for start in range(0, count, BATCH):
        made = faces.generate(np.arange(start, min(start + BATCH, count)), "test", trained.image_size)
        found = trained.reconstruct(torch.from_numpy(made.image).float() / 255)
        truth, mask = torch.from_numpy(made.depth), torch.from_numpy(made.mask)
        evaluator.add(found.depth, truth, prediction_mask=found.mask, truth_mask=mask)
    report = evaluator.report()
    constant = report.baselines.constant
    return {
        "SIDE": report.side,
        "SIDE ratio": report.side / constant.side,
        "MAD": report.mad,
        "MAD ratio": report.mad / constant.mad,
        "relief slope": report.slope,
        "correlation": report.correlation,
    }


if __name__ == "__main__":
    main()
