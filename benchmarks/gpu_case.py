"""One way of taking the training step, measured in a process of its own:

    python benchmarks/gpu_case.py bf16-graph --device cuda --out FILE

The step is forward, backward and Adam on a batch that is on the device already, at the paper's width. A way that fails
is recorded with its cause. Ways whose name ends in ``+vgg`` have both perceptual terms, on a VGG16 with random weights:
as costly as the trained one.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import BaseModel, Field, model_validator
from record import Timing, describe, measure
from torch import Tensor

from recon_toolkit.assembly import build_losses, build_model
from recon_toolkit.config.pipeline import ResolvedPipeline, load_pipeline
from recon_toolkit.engine.environment import Environment, peak_memory_mb
from recon_toolkit.files import write_text
from recon_toolkit.losses import Objective
from recon_toolkit.structures import Batch

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]

VGG = "+vgg"
#: Steps from the same weights whose losses are kept, so that a fast way that computes something else is seen.
CHECKED_STEPS = 5
#: Steps before anything counts; the first ones compile, and a graph may only be captured after some.
WARM_UP = 3


@dataclass(frozen=True)
class Way:
    """How the arithmetic of a step is done."""

    precision: Literal["fp32", "tf32", "bf16"]
    compiled: bool = False  # torch.compile of each encoder
    graph: bool = False  # the whole step as one CUDA graph


WAYS = {
    "fp32": Way("fp32"),
    "tf32": Way("tf32"),
    "bf16": Way("bf16"),
    "bf16-compile": Way("bf16", compiled=True),
    "bf16-graph": Way("bf16", graph=True),
    "bf16-compile-graph": Way("bf16", compiled=True, graph=True),
}
CASES = (*WAYS, *(name + VGG for name in WAYS))
#: Without compilation, which on a CPU needs a C++ compiler that need not be there.
CPU_CASES = ("fp32", "bf16", "bf16" + VGG)


@dataclass(frozen=True)
class Scale:
    """How large the step is and how long it is measured."""

    width: int  # of depth, albedo and confidence; light and view have half of it
    batch: int
    image_size: int
    rounds: int
    steps: int  # in a round, between two waits for the device
    seconds: float  # after which no further round starts


PAPER = Scale(width=64, batch=64, image_size=64, rounds=30, steps=10, seconds=60)
TOY = Scale(width=8, batch=4, image_size=32, rounds=3, steps=1, seconds=5)


class Case(BaseModel):
    """What one way of taking the step came to."""

    name: str
    status: Literal["measured", "failed"]
    cause: str | None = None
    width: int
    batch: int
    image_size: int
    step: Timing | None = None  # of one step
    images_per_second: Positive | None = None  # at the median; likewise the two below at the quartiles
    images_per_second_low: Positive | None = None
    images_per_second_high: Positive | None = None
    peak_memory_mb: Positive | None = None  # of the process: allocated on the GPU, resident on the CPU
    losses: list[Number] = []  # of CHECKED_STEPS steps from the same weights on the same batch
    environment: Environment

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.name not in CASES:
            raise ValueError(f"there is no case '{self.name}'")
        measured = (self.step, self.images_per_second, self.peak_memory_mb)
        if self.status == "measured" and (None in measured or len(self.losses) != CHECKED_STEPS):
            raise ValueError(f"case '{self.name}' is said to be measured, but numbers are missing")
        if self.status == "failed" and not self.cause:
            raise ValueError(f"case '{self.name}' failed without a cause")
        return self


class Step:
    """The training step of a pipeline on one batch of noise.

    Args:
        resolved: the pipeline.
        way: how.
        device, batch: where, and how many images.
    """

    def __init__(self, resolved: ResolvedPipeline, way: Way, device: torch.device, batch: int) -> None:
        self.way, self.device = way, device
        self.model = build_model(resolved).to(device)
        if way.compiled:
            for network in self.model.encoders.values():  # type: ignore[operator, union-attr]
                network.compile(dynamic=False)
        self.objective = Objective(build_losses(resolved), self.autocast)
        for term in self.objective.terms:
            if isinstance(term.component, torch.nn.Module):
                term.component.to(device)
        training = resolved.pipeline.training
        self.parameters = list(self.model.parameters())
        self.optimizer = torch.optim.Adam(
            self.parameters,
            lr=training.learning_rate,
            betas=training.betas,
            weight_decay=training.weight_decay,
            fused=True,
            capturable=way.graph,
        )
        size = resolved.pipeline.image_size
        images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
        self.batch = Batch(image=images.to(device), index=torch.arange(batch, device=device))

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of the networks."""
        if self.way.precision != "bf16":
            return nullcontext()
        # The weights' casts must be made inside a graph each time it is replayed.
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=not self.way.graph)

    def eager(self) -> Tensor:
        """Take a step; its loss, a scalar."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            output = self.model(self.batch)
        total = self.objective(output, batch=self.batch).total
        total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return total.detach()

    def prepared(self) -> Callable[[], Tensor]:
        """What takes a step, after warm-up, compilation and capture, with weights and optimiser as at the start."""
        start = [parameter.detach().clone() for parameter in self.parameters]
        take = self._captured() if self.way.graph else self._warm()
        with torch.no_grad():
            for parameter, value in zip(self.parameters, start, strict=True):
                parameter.copy_(value)  # in place, for a graph knows the parameters by their addresses
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()
        return take

    def _warm(self) -> Callable[[], Tensor]:
        for _ in range(WARM_UP):
            self.eager()
        return self.eager

    def _captured(self) -> Callable[[], Tensor]:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._warm()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            total = self.eager()

        def replay() -> Tensor:
            graph.replay()
            return total

        return replay


def pipeline(perceptual: bool, scale: Scale) -> ResolvedPipeline:
    """The reference method with the paper's settings at a scale; the perceptual terms' VGG16 has random weights."""
    roles = {"depth": 1, "albedo": 1, "confidence": 1, "light": 2, "view": 2}
    settings = [f"encoders.{role}.width={max(4, scale.width // part)}" for role, part in roles.items()]
    settings.append(f"image_size={scale.image_size}")
    for term in ("perceptual", "flipped-perceptual"):
        settings.append(f"losses.{term}.weights=random" if perceptual else f"losses.{term}=null")
    return load_pipeline("unsup3d-synface", settings)


def measure_case(name: str, device: torch.device, scale: Scale) -> Case:
    """Measure a case. Raises whatever the step raises, or RuntimeError if it trains nothing."""
    way = WAYS[name.removesuffix(VGG)]
    # By default torch lets convolutions use TF32 and matrix products not; here both do or neither.
    torch.set_float32_matmul_precision("highest" if way.precision == "fp32" else "high")
    torch.backends.cudnn.allow_tf32 = way.precision != "fp32"
    take = Step(pipeline(name.endswith(VGG), scale), way, device, scale.batch).prepared()
    losses = [float(take()) for _ in range(CHECKED_STEPS)]
    if not all(math.isfinite(loss) for loss in losses):
        raise RuntimeError(f"the loss is not finite: {losses}")
    if len(set(losses)) == 1:
        raise RuntimeError(f"nothing was trained: the loss stays {losses[0]}")

    def work() -> None:
        for _ in range(scale.steps):
            take()

    label = f"{name}, {scale.steps} steps"
    round_ = measure(label, work, device=device, repeats=scale.rounds, warm_up=1, budget=scale.seconds)
    low, median, high = (t / scale.steps for t in (round_.low_ms, round_.median_ms, round_.high_ms))
    return Case(
        name=name,
        status="measured",
        width=scale.width,
        batch=scale.batch,
        image_size=scale.image_size,
        step=Timing(case=name, median_ms=median, low_ms=low, high_ms=high, repeats=round_.repeats),
        images_per_second=1e3 * scale.batch / median,
        images_per_second_low=1e3 * scale.batch / high,
        images_per_second_high=1e3 * scale.batch / low,
        peak_memory_mb=peak_memory_mb(device),
        losses=losses,
        environment=_environment(name, device),
    )


def failed_case(name: str, device: torch.device, scale: Scale, cause: str) -> Case:
    """The record of a case that could not be measured."""
    sizes = {"width": scale.width, "batch": scale.batch, "image_size": scale.image_size}
    return Case(name=name, status="failed", cause=cause, **sizes, environment=_environment(name, device))


def without_places(cause: str) -> str:
    """A message without the folders of the machine that it came from: results are published."""
    return re.sub(r"(?<![\w.])/(?:[^\s/:'\"]+/)+", "", cause)


def _environment(name: str, device: torch.device) -> Environment:
    command = ["python", "benchmarks/gpu_case.py", name, "--device", device.type]
    return describe(command, device, WAYS[name.removesuffix(VGG)].precision)


def main() -> None:
    """Measure one case and write its record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--toy", action="store_true")
    options = parser.parse_args()
    device, scale = torch.device(options.device), TOY if options.toy else PAPER
    try:
        case = measure_case(options.case, device, scale)
    except Exception as error:
        lines = f"{type(error).__name__}: {error}".strip().splitlines()
        print(f"{options.case} failed: {lines[0]}", file=sys.stderr)
        case = failed_case(options.case, device, scale, without_places(" ".join(lines[:3]))[:500])
    write_text(options.out, case.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main()
