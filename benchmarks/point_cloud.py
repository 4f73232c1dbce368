"""The parts of the point-cloud method against their bars: python benchmarks/point_cloud.py

Pseudo-rendering of 8 × 128² points of 20 objects in 5 views at 128², forward and backward, compiled and in plain
PyTorch, with their largest difference; the distances between two clouds of 100,000 points; and a cloud of 30,000
points closed to a mesh. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import torch
from recon_point_cloud.splat import pseudo_render
from record import Record, describe, measure

from recon_toolkit.geometry.orthographic import random_views
from recon_toolkit.metrics.clouds import cloud_metrics
from recon_toolkit.shapes.convert import solid_of


def main() -> None:
    """Measure everything and write results/point_cloud.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    cpu = torch.device("cpu")
    record = Record(benchmark="point_cloud", environment=describe(["python", *sys.argv], cpu))

    generator = torch.Generator().manual_seed(0)
    count = 8 * 128 * 128
    # Points about a ball's surface, half of them visible: what a network says of an object, without one.
    ball = torch.randn(options.objects, count, 3, generator=generator)
    points = (torch.nn.functional.normalize(ball, dim=2) * 0.4).requires_grad_()
    logits = torch.randn(options.objects, count, generator=generator).requires_grad_()
    views = random_views(options.objects * 5, generator).view(options.objects, 5, 4)
    weights = torch.randn(options.objects, 5, 128, 128, generator=generator)
    found: dict[str, tuple[torch.Tensor, ...]] = {}

    def draw(backend: str) -> None:
        seen = pseudo_render(points, logits, views, 128, upsampling=5, backend=backend)
        total = (seen.depth * weights).sum() + (seen.logits * weights).sum()
        found[backend] = (seen.depth.detach(), seen.logits.detach(), *torch.autograd.grad(total, (points, logits)))

    for backend, repeats in (("numba", options.repeats), ("reference", 3)):
        name = f"pseudo-rendering, forward and backward, {backend}"
        record.timings.append(
            measure(name, lambda backend=backend: draw(backend), device=cpu, repeats=repeats, warm_up=2)
        )
    differences = [float((a - b).abs().max()) for a, b in zip(found["numba"], found["reference"], strict=True)]
    record.values["largest difference of the backends, values"] = max(differences[:2])
    record.values["largest difference of the backends, gradients"] = max(differences[2:])
    record.values["plain over compiled"] = round(record.timings[1].median_ms / record.timings[0].median_ms, 1)

    rng = np.random.default_rng(0)
    sphere = rng.standard_normal((200_000, 3))
    sphere *= 0.4 / np.linalg.norm(sphere, axis=1, keepdims=True)
    one, other = sphere[:100_000], sphere[100_000:]
    case = "metrics of 100,000 against 100,000 points"
    record.timings.append(measure(case, lambda: cloud_metrics(one, other), device=cpu, repeats=5, warm_up=1))
    case = "30,000 points closed to a mesh, 128 nodes a side"
    record.timings.append(measure(case, lambda: solid_of(sphere[:30_000]), device=cpu, repeats=5, warm_up=1))
    record.write()


if __name__ == "__main__":
    main()
