"""Time and memory of all renderers, forward and backward: python benchmarks/rendering.py

Canonical maps are an ellipsoid with noise; views turn by up to ±11°, ±34° and ±6° about x, y and z. ``depth`` is the
rendered depth alone with gradients to depth and view; ``all`` is depth and colour, with gradients to the image too.
Every case runs in a process of its own, which gives its peak memory above the imports. A case that is expected to
take longer than ``--limit`` seconds, by the smaller ones before it, is left out. What is not installed is named.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peers import PEERS
from pydantic import BaseModel, Field
from record import RESULTS, Results, Timing, describe, measure
from torch import Tensor

from recon_toolkit import Camera, ReconError, load_plugins

SIZES, BATCHES = (64, 128, 256, 512), (1, 16, 64, 256)
#: Memory that a case may take, in GiB, as guessed from the one before.
MEMORY = 12.0


@dataclass(frozen=True)
class Entry:
    """A row of the table: a renderer with its options."""

    label: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    what: tuple[str, ...] = ("depth", "all")


ENTRIES = (
    Entry("depth-mesh, 1 sample", "depth-mesh", {"supersampling": 1}),
    Entry("depth-mesh, 2×2", "depth-mesh"),
    Entry("depth-mesh, 2×2, PyTorch", "depth-mesh", {"backend": "reference"}),
    Entry("neural-renderer", "neural-renderer"),
    Entry("heightfield", "heightfield"),
    Entry("soft", "soft"),
    Entry("learned", "learned", what=("all",)),
    Entry("pytorch3d hard, 1 sample", "pytorch3d", {"supersampling": 1}),
    Entry("pytorch3d hard, 2×2", "pytorch3d"),
    Entry("pytorch3d soft, 1 sample", "pytorch3d", {"supersampling": 1, "mode": "soft"}),
)


class Case(BaseModel):
    """One measured case."""

    renderer: str
    what: str
    size: int
    batch: int
    timing: Timing
    peak_mib: float | None


class Rendering(Results):
    """``results/rendering-DEVICE.json``."""

    cases: list[Case] = Field(default_factory=list)
    left_out: list[str] = Field(default_factory=list)

    def find(self, renderer: str, what: str, size: int, batch: int) -> Case | None:
        """The case, if it was measured."""
        wanted = (renderer, what, size, batch)
        return next((c for c in self.cases if (c.renderer, c.what, c.size, c.batch) == wanted), None)


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


def build(entry: Entry, device: torch.device) -> Any:
    """The renderer, from whatever plugin provides it."""
    target = load_plugins().registry.get("renderer", entry.name).component.load()
    built = target(camera=Camera(), depth_range=(0.9, 1.1), **entry.options)
    return built.to(device) if isinstance(built, torch.nn.Module) else built


def work(entry: Entry, what: str, size: int, batch: int, device: torch.device) -> Callable[[], object]:
    """What is timed: a forward and a backward pass."""
    depth, image, view = inputs(size, batch, device)
    if entry.name in PEERS:
        return PEERS[entry.name](depth, view, Camera(), device)
    renderer = build(entry, device)
    if what == "depth":
        return lambda: torch.autograd.grad(renderer.render_depth(depth, view)[0].sum(), (depth, view))
    if hasattr(renderer, "render_factors"):
        light = torch.tensor([[0.5, 0.5, 0.0, 0.0, 1.0]], device=device).expand(batch, 5)

        def factors() -> object:
            return torch.autograd.grad(renderer.render_factors(depth, image, light, view).image.sum(), (depth, image))

        return factors

    def everything() -> object:
        found = renderer(depth, image, view)
        return torch.autograd.grad(found.image.sum() + found.depth.sum(), (depth, image, view))

    return everything


def run_case(entry: Entry, what: str, size: int, batch: int, options: argparse.Namespace) -> Case:
    """Measure one case in this process."""
    device = torch.device(options.device)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    timed = work(entry, what, size, batch, device)
    name = f"{entry.label}, {what}, {batch} × {size}²"
    timing = measure(name, timed, device=device, repeats=options.repeats, warm_up=2, budget=options.limit)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**20
    return Case(renderer=entry.label, what=what, size=size, batch=batch, timing=timing, peak_mib=round(peak, 1))


def _child(pipe: Any, *arguments: Any) -> None:
    try:
        pipe.send(run_case(*arguments).model_dump_json())
    except Exception as error:
        traceback.print_exc() if not isinstance(error, (ReconError, ImportError)) else None
        pipe.send(json.dumps(f"{type(error).__name__}: {error}"))


def isolated(*arguments: Any) -> Case | str:
    """Measure one case in a child; returns why not where it fails."""
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_child, args=(there, *arguments))
    child.start()
    there.close()
    try:
        answer = json.loads(here.recv())
    except EOFError:
        answer = "the process ended without a result; out of memory?"
    child.join()
    return answer if isinstance(answer, str) else Case.model_validate(answer)


def cases(entry: Entry, options: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    """What to measure, small cases first."""
    for what in entry.what:
        for batch in options.batches:
            for size in options.sizes:
                yield what, size, batch


def too_much(results: Rendering, entry: Entry, what: str, size: int, batch: int, limit: float) -> str | None:
    """Whether a case would take too long or too much memory, going by smaller ones of the same renderer."""
    done = [c for c in results.cases if c.renderer == entry.label and c.what == what]
    below = [c for c in done if c.size <= size and c.batch <= batch]
    if not below:
        return None
    nearest = max(below, key=lambda c: c.size**2 * c.batch)
    pixels = (size / nearest.size) ** 2
    # PyTorch3D on the CPU tests every sample against every face: its cost grows with the square.
    growth = (pixels**2 if "pytorch3d" in entry.name and results.benchmark.endswith("cpu") else pixels) * (
        batch / nearest.batch
    )
    seconds = nearest.timing.median_ms / 1e3 * growth
    memory = (nearest.peak_mib or 0) / 1024 * pixels * (batch / nearest.batch)
    if seconds > limit:
        return f"about {seconds:.0f} s a round"
    return f"about {memory:.0f} GiB" if memory > MEMORY else None


def summary(results: Rendering) -> dict[str, float]:
    """The ratios that the bars ask for, as far as their cases were measured."""
    found = {}
    for label in ("depth-mesh, 1 sample", "depth-mesh, 2×2", "neural-renderer"):
        small, large = (results.find(label, "depth", size, 16) for size in (64, 512))
        if small and large:
            found[f"{label}: 512² over 64², per pixel"] = large.timing.median_ms / small.timing.median_ms / 64
    for label in ("pytorch3d hard, 1 sample", "pytorch3d hard, 2×2"):
        theirs, ours = (
            results.find(name, "depth", 64, 64) for name in (label, label.replace("pytorch3d hard", "depth-mesh"))
        )
        if theirs and ours:
            found[f"{label} over depth-mesh, 64 × 64²"] = theirs.timing.median_ms / ours.timing.median_ms
    return found


def plot(results: Rendering, path: Path) -> None:
    """Time over the picture's size at 16 maps, and over the batch at 64 pixels, on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), constrained_layout=True, sharey=True)
    for label in dict.fromkeys(case.renderer for case in results.cases):
        own = [c for c in results.cases if c.renderer == label and c.what == "all"]
        sizes = sorted((c.size, c.timing.median_ms) for c in own if c.batch == 16)
        batches = sorted((c.batch, c.timing.median_ms) for c in own if c.size == 64)
        left.plot(*zip(*sizes, strict=True), marker="o", label=label) if sizes else left.plot([], label=label)
        right.plot(*zip(*batches, strict=True), marker="o", label=label) if batches else None
    left.set(xscale="log", yscale="log", xlabel="side in pixels, 16 maps", ylabel="ms, forward and backward")
    right.set(xscale="log", xlabel="maps of 64 × 64")
    left.legend(fontsize=8)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main() -> None:
    """Measure all cases and write results/rendering-DEVICE.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--limit", type=float, default=6.0, help="seconds a case may take")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--only", nargs="+", help="labels or names of renderers")
    parser.add_argument("--out", type=Path, help="another file to write to")
    options = parser.parse_args()
    device = torch.device(options.device)
    results = Rendering(benchmark=f"rendering-{device.type}", environment=describe(["python", *sys.argv], device))
    entries = [*ENTRIES, *(Entry(name, name, what=("depth",)) for name in PEERS)]
    for entry in entries:
        if options.only and not {entry.label, entry.name} & set(options.only):
            continue
        for what, size, batch in cases(entry, options):
            # PyTorch3D's 64 × 64² is the case that ours is compared with, so it is measured whatever it takes.
            wanted = entry.label == "pytorch3d hard, 1 sample" and (size, batch) == (64, 64) and what == "depth"
            reason = too_much(results, entry, what, size, batch, 120 if wanted else options.limit)
            measured: Case | str
            if reason is None:
                arguments = (entry, what, size, batch, options)
                measured = isolated(*arguments) if device.type == "cpu" else run_case(*arguments)
                if isinstance(measured, Case):
                    results.cases.append(measured)
                    continue
                reason = measured
            results.left_out.append(f"{entry.label}, {what}, {batch} × {size}²: {reason}")
            if "installed" in reason or "ModuleNotFound" in reason:
                results.left_out[-1] = f"{entry.label}: {reason}"
                break
        results.write(options.out)  # what is measured is kept
    results.values = summary(results)
    path = results.write(options.out)
    if not options.out:
        plot(results, RESULTS.parent.parent / "docs" / "images" / f"{results.benchmark}.png")
    print(results.values, *results.left_out, path, sep="\n")


if __name__ == "__main__":
    main()
