"""A person's depth and albedo under another photograph's light and view: ``python benchmarks/swapping.py NAME=RUN ...``

For each run, pairs of images of one synthetic person that no training saw: the second image is drawn from the depth and
albedo of the first, and compared with itself where the drawing's mask is. Writes ``results/swapping.json`` and, with
``--out``, the picture of ``docs/methods.md``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from record import Results, describe
from torch import Tensor

from recon_toolkit.data.packing import DataContext
from recon_toolkit.engine.environment import open_splits
from recon_toolkit.inference.models import load_model
from recon_toolkit.io.contact_sheet import contact_sheet
from recon_toolkit.metrics.images import image_metrics
from recon_toolkit.models import PhotoGeometric
from recon_toolkit.structures import ImagePair, Rendering

#: People in the picture.
SHOWN = 6


def main() -> None:
    """Score all runs, and draw the first people."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--out", type=Path, help="where the picture goes")
    options = parser.parse_args()
    results = Results(benchmark="swapping", environment=describe(["python", *sys.argv], torch.device("cpu")))
    columns: dict[str, Tensor] = {}
    for word in options.runs:
        name, _, run = word.partition("=")
        trained = load_model(run=run)
        model = trained.network
        assert isinstance(model, PhotoGeometric)
        data = open_splits(trained.resolved, DataContext()).evaluation
        assert data is not None
        groups = data.labels("group")
        first = [n for n in range(len(data) - 1) if groups[n] == groups[n + 1] and n % 2 == 0]
        one, other = (torch.cat([data.batch([n + step]).image for n in first]) for step in (0, 1))
        own, swapped = drawn(model, other, other), drawn(model, one, other)
        for what, rendering in (("own", own), ("swapped", swapped)):
            scores = image_metrics(ImagePair(rendering.image, other, rendering.mask.float()))
            results.values[f"{name}: PSNR of the {what} drawing, dB"] = round(float(scores.psnr.mean()), 2)
            results.values[f"{name}: SSIM of the {what} drawing"] = round(float(scores.ssim.mean()), 3)
        results.values["pairs"] = len(first)
        columns |= {"one photograph": one[:SHOWN], "another": other[:SHOWN]}
        for what, rendering in (("own", own), ("swapped", swapped)):
            columns[f"{name}: {what}"] = rendering.image[:SHOWN].clamp(0, 1)
    results.write()
    if options.out:
        contact_sheet(columns).save(options.out, quality=90)


@torch.no_grad()
def drawn(model: PhotoGeometric, shapes: Tensor, images: Tensor) -> Rendering:
    """Images (B, 3, H, W) from the depth and albedo of others, (B, 3, H, W), under their own light and view."""
    of, own = model.canonical(shapes), model.canonical(images)
    return model.render(of.depth, model.lit(of.depth, of.albedo, own.light).image, of.albedo, own.light, own.view)


if __name__ == "__main__":
    main()
