"""What every benchmark writes: its rows with the machine they were measured on, validated, as JSON."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import BaseModel

from recon_toolkit.engine.environment import Environment, environment

RESULTS = Path(__file__).parent / "results"


class Timing(BaseModel):
    """Repeated measurements of one case, in milliseconds."""

    case: str
    median_ms: float
    low_ms: float  # first quartile
    high_ms: float  # third quartile
    repeats: int


class Results(BaseModel):
    """What every benchmark's results hold."""

    benchmark: str
    environment: Environment
    values: dict[str, float] = {}
    notes: list[str] = []

    def write(self, path: Path | None = None) -> Path:
        """Write ``results/BENCHMARK.json``, or another file, and return its path."""
        RESULTS.mkdir(exist_ok=True)
        path = path or RESULTS / f"{self.benchmark}.json"
        path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return path


class Record(Results):
    """The results of a benchmark that times pieces of work."""

    timings: list[Timing] = []


def describe(command: list[str], device: torch.device, precision: str = "fp32") -> Environment:
    """This machine, for a record."""
    return environment(command=command, device=device, precision=precision, seed=0, fingerprint="", data={})


def measure(
    case: str,
    work: Callable[[], object],
    *,
    device: torch.device,
    repeats: int,
    warm_up: int = 3,
    budget: float | None = None,
) -> Timing:
    """Time a piece of work after some rounds of warm-up; waits for the device before and after.

    Args:
        case: what it is called.
        work: called once a round.
        device: waited for.
        repeats, warm_up: rounds that count, and rounds before.
        budget: seconds after which no further round starts; a case that takes longer counts from its first round.
    """
    samples: list[float] = []
    begun = time.perf_counter()
    while len(samples) < warm_up + repeats:
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        samples.append(1e3 * (time.perf_counter() - started))
        if budget is not None and time.perf_counter() - begun > budget:
            break
    counted = samples[min(warm_up, len(samples) - 1) :]
    low, median, high = statistics.quantiles(counted, n=4, method="inclusive") if len(counted) > 1 else counted * 3
    timing = Timing(case=case, median_ms=median, low_ms=low, high_ms=high, repeats=len(counted))
    print(f"{case:<48} {median:9.2f} ms   ({low:.2f} to {high:.2f}, {len(counted)} rounds)", flush=True)
    return timing


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
