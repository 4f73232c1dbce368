"""Time of Neural Renderer, forward and backward: python benchmarks/neural_renderer_meshes.py

A bumpy sphere of 13 520 faces (before their backs are added) at 256² with anti-aliasing, in float32, as in the
original's examples: the loss is the squared difference to the picture of another bumpy sphere. ``grid`` cases are the
renderer of a pipeline, with the inputs of rendering.py.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import torch
from recon_neural_renderer import Renderer
from recon_neural_renderer.renderer import NeuralRenderer
from record import Record, describe, measure
from rendering import inputs
from torch import Tensor

from recon_toolkit.geometry import Camera
from recon_toolkit.rendering import DepthMeshRenderer


def icosphere(frequency: int) -> tuple[Tensor, Tensor]:
    """A sphere of 20 · frequency² nearly equal faces, anticlockwise from outside: vertices (V, 3), faces (F, 3)."""
    golden = (1 + 5**0.5) / 2
    corners = np.array([[0, s, t * golden] for s in (-1, 1) for t in (-1, 1)], dtype=float)
    corners = np.concatenate([np.roll(corners, k, axis=1) for k in range(3)])
    near = np.linalg.norm(corners[:, None] - corners, axis=-1) < 2.1  # edges have length 2
    triangles = [
        (a, b, c) for a in range(12) for b in range(a) for c in range(b) if near[a, b] and near[b, c] and near[a, c]
    ]
    points, faces = [], []
    for triangle in triangles:
        a, b, c = corners[list(triangle)]
        if np.dot(np.cross(b - a, c - a), a + b + c) < 0:
            b, c = c, b
        number = {}
        for i in range(frequency + 1):
            for j in range(frequency + 1 - i):
                number[i, j] = len(points)
                points.append((a * (frequency - i - j) + b * i + c * j) / frequency)
        for i in range(frequency):
            for j in range(frequency - i):
                faces.append((number[i, j], number[i + 1, j], number[i, j + 1]))
                if i + j + 1 < frequency:
                    faces.append((number[i + 1, j], number[i + 1, j + 1], number[i, j + 1]))
    rounded, index = np.unique(np.round(points, 9), axis=0, return_inverse=True)
    sphere = rounded / np.linalg.norm(rounded, axis=1, keepdims=True)
    return torch.tensor(sphere, dtype=torch.float32), torch.tensor(index.reshape(-1)[np.array(faces)])


def bumpy(sphere: Tensor, phase: float) -> Tensor:
    """The sphere with bumps of a fifth of its radius."""
    x, y, z = (sphere * 5 + phase).unbind(-1)
    return sphere * (0.75 + 0.15 * torch.sin(x) * torch.sin(y) * torch.sin(z))[:, None]


def main() -> None:
    """Measure all cases and write results/neural-renderer-DEVICE.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--no-record", action="store_true", help="print only")
    options = parser.parse_args()
    device = torch.device(options.device)
    record = Record(benchmark=f"neural-renderer-{device.type}", environment=describe(["python", *sys.argv], device))
    sphere, faces = (t.to(device) for t in icosphere(26))
    renderer = Renderer(256, camera_mode="look_at")
    eye = (0.0, 0.0, -2.732)
    vertices = bumpy(sphere, 0.0)[None].requires_grad_()
    textures = torch.rand(1, len(faces), 4, 4, 4, 3, generator=torch.Generator().manual_seed(0)).to(device)
    textures.requires_grad_()
    with torch.no_grad():
        target = renderer(bumpy(sphere, 1.0)[None], faces, textures.flip(1), eye=eye)

    def silhouettes() -> None:
        drawn = renderer.render_silhouettes(vertices, faces, eye=eye)
        torch.autograd.grad((drawn - target.silhouettes).square().sum(), vertices)

    def outwards() -> None:
        drawn = renderer.render_silhouettes(vertices, faces, eye=eye)
        torch.autograd.grad(-drawn.sum(), vertices)

    def depth() -> None:
        drawn = renderer.render_depth(vertices, faces, eye=eye)
        torch.autograd.grad((drawn - target.depth).square().sum(), vertices)

    def rgb() -> None:
        drawn = renderer.render_rgb(vertices, faces, textures, eye=eye)
        torch.autograd.grad((drawn - target.rgb).square().sum(), (vertices, textures))

    name = f"{len(faces)} faces, 256², anti-aliased"
    works = {
        "silhouettes": silhouettes,
        "silhouettes, every background pixel pulls": outwards,
        "depth": depth,
        "rgb, every pixel pulls": rgb,
    }
    for label, work in works.items():
        record.timings.append(measure(f"{name}, {label}", work, device=device, repeats=options.repeats))
    record.timings += grids(device, options.repeats)
    record.notes.append("the least of many rounds is what a machine does that nobody else uses")
    if not options.no_record:
        print(record.write())


def grids(device: torch.device, repeats: int) -> list:  # type: ignore[type-arg]
    """The renderer of a pipeline beside the core's, depth forward and backward."""
    depth, _, view = inputs(64, 64, device)
    timings = []
    for kind in (NeuralRenderer, DepthMeshRenderer):
        renderer = kind(camera=Camera(), depth_range=(0.9, 1.1))

        def work(renderer=renderer) -> None:  # type: ignore[no-untyped-def]
            drawn, _ = renderer.render_depth(depth, view)
            torch.autograd.grad(drawn.sum(), (depth, view))

        timings.append(measure(f"grid 64 × 64², {kind.__name__}", work, device=device, repeats=repeats))
    return timings


if __name__ == "__main__":
    main()
