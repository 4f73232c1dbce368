"""Does a model give each face a shape of its own? python benchmarks/individuality.py --weights FILE --run RUN

Scores the depth of a model's own shapes, and that of their mean in the place of each, with the views it found: on test
faces of ``synthetic-faces``, whose depth is known. Where both score alike, the model has one shape for all. Besides,
how many units of the depth network's bottleneck answer to any image, and how much the shapes differ in the middle of
the face. The true shapes, and their mean under the true views, are measured likewise.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recon_synthetic_faces.dataset import SyntheticFaces
from recon_synthetic_faces.render import render
from recon_synthetic_faces.scene import draw_scenes
from record import Record, describe
from torch import Tensor, nn

from recon_toolkit.inference.models import TrainedModel, load_model
from recon_toolkit.metrics.report import DepthEvaluator
from recon_toolkit.rendering import render_object

BATCH = 50
#: Rows and columns of the canonical view that show the middle of every face.
MIDDLE = (slice(22, 54), slice(20, 44))


def main() -> None:
    """Measure every model named, the bundled one if none is, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, action="append", default=[], help="a run folder; may be repeated")
    parser.add_argument("--weights", type=Path, action="append", default=[], help="a weights file; may be repeated")
    parser.add_argument("--faces", type=int, default=500)
    parser.add_argument("--name", default="individuality")
    options = parser.parse_args()
    models = {path.name: load_model(run=path) for path in options.run}
    models |= {path.stem: load_model(weights=path) for path in options.weights}
    models = models or {"bundled": load_model()}
    record = Record(benchmark=options.name, environment=describe(["python", *sys.argv], torch.device("cpu")))
    record.values["faces"] = options.faces
    made = SyntheticFaces().generate(np.arange(options.faces), "test", 64)
    for key, value in _truth(next(iter(models.values())), made).items():
        record.values[f"truth: {key}"] = round(value, 4)
    for name, trained in models.items():
        for key, value in _measures(trained, made).items():
            record.values[f"{name}: {key}"] = round(value, 4)
        print({k: v for k, v in record.values.items() if k.startswith(f"{name}:")}, flush=True)
    record.write()


def _measures(trained: TrainedModel, made: Any) -> dict[str, float]:
    network: Any = trained.network
    units: list[Tensor] = []
    hook = _bottleneck(network.encoders["depth"]).register_forward_pre_hook(
        lambda _layer, inputs: units.append(inputs[0].flatten(1))
    )
    images = torch.from_numpy(made.image).float() / 255
    with torch.inference_mode():
        found = [network.canonical(part) for part in images.split(BATCH)]
    hook.remove()
    depth, view = torch.cat([f.depth for f in found]), torch.cat([f.view for f in found])
    answers = torch.cat(units)
    own, shared = (_ratios(trained, shape, view, made) for shape in (depth, depth.mean(0).expand_as(depth)))
    low, high = network.depth_range
    return {
        "MAD ratio": own["MAD"],
        "MAD ratio, mean shape": shared["MAD"],
        "SIDE ratio": own["SIDE"],
        "SIDE ratio, mean shape": shared["SIDE"],
        "bottleneck units": answers.shape[1],
        "of which answer to images": int((answers.std(0) > 0).sum()),
        "spread of shapes / depth range": float(depth[:, *MIDDLE].std(0).mean()) / (high - low),
    }


def _truth(trained: TrainedModel, made: Any) -> dict[str, float]:
    """The spread of the true shapes, and how well their mean does under the true views."""
    count = len(made.image)
    scenes = draw_scenes(np.arange(count), "test", 0, SyntheticFaces().ranges)
    scenes["pose"] = 0
    frontal = render(scenes, 64)
    depth, mask = torch.from_numpy(frontal.depth), torch.from_numpy(frontal.mask).float()
    mean = (depth * mask).sum(0) / mask.sum(0).clamp(min=1)
    mean[mask.mean(0) < 0.3] = depth.max()  # what few faces cover is background
    scored = _ratios(
        trained, mean.expand_as(depth), torch.from_numpy(made.view), made, background=0.98 * float(depth.max())
    )
    low, high = trained.network.depth_range  # type: ignore[union-attr, misc]
    return {
        "MAD ratio, mean shape": scored["MAD"],
        "SIDE ratio, mean shape": scored["SIDE"],
        "spread of shapes / depth range": float(depth[:, *MIDDLE].std(0).mean()) / (high - low),
    }


def _bottleneck(network: nn.Module) -> nn.Module:
    """The layer after the bottleneck."""
    return next(layer for layer in network.modules() if isinstance(layer, nn.ConvTranspose2d))


def _ratios(
    trained: TrainedModel, depth: Tensor, view: Tensor, made: Any, *, background: float = np.inf
) -> dict[str, float]:
    network: Any = trained.network
    evaluator = DepthEvaluator(trained.camera)
    blank = torch.zeros(BATCH, 3, *depth.shape[1:])
    parts = zip(depth.split(BATCH), view.split(BATCH), range(0, len(depth), BATCH), strict=True)
    with torch.inference_mode():
        for shape, turn, start in parts:
            at, empty = slice(start, start + BATCH), blank[: len(shape)]
            rendering = render_object(network.renderer, shape.contiguous(), empty, empty, None, turn)
            truth, mask = torch.from_numpy(made.depth[at]), torch.from_numpy(made.mask[at])
            seen = rendering.mask & (rendering.depth < background)
            evaluator.add(rendering.depth, truth, prediction_mask=seen, truth_mask=mask)
    report = evaluator.report()
    constant = report.baselines.constant
    return {"SIDE": report.side / constant.side, "MAD": report.mad / constant.mad}


if __name__ == "__main__":
    main()
