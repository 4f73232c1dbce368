"""Time of the depth-mesh renderer, forward and backward: python benchmarks/rendering.py

Canonical maps are an ellipsoid with noise; views turn by up to ±11°, ±34° and ±6° about x, y and z. ``depth`` is the
rendered depth alone, ``depth and colour`` with the warp of an image, gradients to depth, image and view.
"""

from __future__ import annotations

import argparse
import sys

import torch
from record import Record, describe, measure
from torch import Tensor

from recon_toolkit.geometry import Camera
from recon_toolkit.rendering import DepthMeshRenderer

CASES = [(64, 64, 1), (64, 64, 2), (64, 64, 3), (128, 64, 2), (256, 64, 1), (256, 64, 2), (256, 1, 2), (512, 8, 2)]


def inputs(size: int, batch: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Canonical depth, image and view that need gradients."""
    generator = torch.Generator().manual_seed(0)
    axis = torch.linspace(-1, 1, size)
    bump = (1 - (axis / 0.8).square() - (axis[:, None] / 0.95).square()).clamp(min=0).sqrt()
    # Noise shrinks with the pixels, so that surfaces of all sizes are equally rough.
    noise = 0.002 * 64 / size * torch.rand(batch, size, size, generator=generator)
    depth = 1.06 - 0.11 * bump + noise
    image = torch.rand(batch, 3, size, size, generator=generator)
    limits = torch.tensor([0.2, 0.6, 0.1, 0.05, 0.05, 0.0])
    view = (2 * torch.rand(batch, 6, generator=generator) - 1) * limits
    return tuple(t.to(device).requires_grad_() for t in (depth, image, view))  # type: ignore[return-value]


def main() -> None:
    """Measure all cases and write results/rendering-DEVICE.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    device = torch.device(options.device)
    record = Record(benchmark=f"rendering-{device.type}", environment=describe(["python", *sys.argv], device))
    for size, batch, samples in CASES:
        depth, image, view = inputs(size, batch, device)
        renderer = DepthMeshRenderer(camera=Camera(), depth_range=(0.9, 1.1), supersampling=samples)

        def depth_only(renderer=renderer, depth=depth, view=view) -> None:  # type: ignore[no-untyped-def]
            rendered, _ = renderer.render_depth(depth, view)
            torch.autograd.grad(rendered.sum(), (depth, view))

        def everything(renderer=renderer, depth=depth, image=image, view=view) -> None:  # type: ignore[no-untyped-def]
            found = renderer(depth, image, view)
            torch.autograd.grad(found.image.sum() + found.depth.sum(), (depth, image, view))

        name = f"{batch} × {size}², {samples}×{samples} samples"
        for label, work in (("depth", depth_only), ("depth and colour", everything)):
            record.timings.append(measure(f"{name}, {label}", work, device=device, repeats=options.repeats))
    by_case = {t.case: t.median_ms for t in record.timings}
    for samples in (1, 2):
        small, large = (by_case[f"64 × {size}², {samples}×{samples} samples, depth"] for size in (64, 256))
        record.values[f"256² over 64², {samples}×{samples} samples"] = large / small
    print(record.values, record.write(), sep="\n")


if __name__ == "__main__":
    main()
