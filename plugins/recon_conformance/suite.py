"""The conformance suite: every check in order, each on its own, and a short training, into one report."""

from __future__ import annotations

import math
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recon_conformance import coverage, gradients, protocol, values
from recon_conformance import coverage as robustness
from recon_conformance.report import CheckResult, ConformanceReport, summarise
from recon_conformance.subject import (
    SIZE,
    Ellipsoid,
    Factory,
    ProtocolFault,
    Registration,
    Subject,
    canonical_depth,
    register,
    smooth_image,
    view_of,
)
from recon_toolkit.components import describe
from recon_toolkit.config.pipeline import ResolvedPipeline
from recon_toolkit.data.packing import DataContext
from recon_toolkit.engine.checkpoint import load_run
from recon_toolkit.engine.environment import open_splits
from recon_toolkit.engine.log import read_log
from recon_toolkit.engine.run import run_pipeline
from recon_toolkit.errors import ReconError
from recon_toolkit.progress import QUIET, Progress
from recon_toolkit.rendering import DepthMeshRenderer

#: Mean mixed difference of the canonical depth over its spread: 0.006 on a sound model, 0.48 on a ruined one (the
#: figures of the health check's `rough-depth`); between them the limit is their geometric mean.
ROUGH = 0.05
TRIAL_STEPS = 8
#: Before the networks have settled, any depth is rough.
ENOUGH_STEPS = 200
SETTINGS = ("training.validate_every=null", "training.log_every=10", "evaluation.images=48")
#: A few hundred pictures are enough to see a shape being ruined, and are made in seconds.
FEW_IMAGES = ("dataset.count=400", "dataset.validation=8", "dataset.test=48")

#: Loads the pipeline with this renderer and further overrides.
Loader = Callable[[tuple[str, ...]], ResolvedPipeline]


def smoke_test(load: Loader, minutes: float = 2.0, *, device: str = "auto", progress: Progress = QUIET) -> CheckResult:
    """Train for about the time given and look for ruined shapes.

    Args:
        load: called with overrides; returns the pipeline with the renderer under test.
        minutes: for everything, data included; at least a few steps are done.
        device: as for :func:`~recon_toolkit.engine.run.run_pipeline`.
        progress: where bars go.

    Raises:
        ReconError: the pipeline cannot be run at all.
    """
    result = CheckResult(
        name="training",
        title=f"{minutes:g} minutes of training",
        limit=f"no step that is not finite, a falling loss, canonical depth no rougher than {ROUGH}",
        reason="a ruined shape is eighty times rougher than a sound one: 0.48 against 0.006 of its spread",
    )
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="recon-check-") as folder:
        overrides = _fitting(load)
        trial = run_pipeline(
            load((*overrides, f"training.steps={TRIAL_STEPS}")), out=Path(folder) / "trial", device=device
        )
        pace = max(trial.seconds / TRIAL_STEPS, 1e-3)
        # A fifth for building, scoring and for steps that slow down.
        steps = max(2 * TRIAL_STEPS, int(0.8 * (60 * minutes - (time.monotonic() - start)) / pace))
        resolved = load((*overrides, f"training.steps={steps}"))
        run = Path(folder) / "run"
        summary = run_pipeline(resolved, out=run, device=device, progress=progress)
        losses = [
            entry["loss"] for entry in read_log(run) if entry["kind"] == "train" and entry.get("loss") is not None
        ]
        rough = _roughness(run, resolved)
    fall = float(np.mean(losses[-5:]) - np.mean(losses[:5])) if len(losses) > 1 else math.nan
    result.measured = {
        "pipeline": resolved.name,
        "steps": summary.steps,
        "seconds": round(time.monotonic() - start, 1),
        "change of the loss": fall,
        "roughness": rough,
        "SIDE × constant depth": summary.side_ratio,
        "MAD × constant depth": summary.mad_ratio,
        "findings": ", ".join(summary.findings) or "none",
    }
    _judge(result, summary.findings, summary.steps, fall, rough)
    return result


def _judge(result: CheckResult, findings: list[str], steps: int, fall: float, rough: float) -> None:
    ruined = "rough-depth" in findings or rough > ROUGH
    if "nan" in findings:
        result.verdict, result.cause = "fail", "steps had a loss or gradient that is not finite"
        result.remedy = "see 'near-far' and 'degenerate'"
    elif "dead-gradients" in findings:
        result.verdict, result.cause = "fail", "no gradient reaches some of the networks"
        result.remedy = "see the checks of gradients"
    elif steps < ENOUGH_STEPS:
        result.verdict, result.cause = "skipped", f"{steps} steps are too few to tell a ruined shape from a young one"
        result.remedy = "give it longer with --minutes"
    elif ruined:
        result.verdict, result.cause = "fail", "the shape is ruined: the depth fills with stripes or a checkerboard"
        result.remedy = "see 'evenness': more samples a pixel"
    elif fall > 0:
        result.verdict, result.cause = "warn", "the loss did not fall in this time"
        result.remedy = "try longer with --minutes"
    elif set(findings) - {"flat-depth"}:
        result.verdict, result.cause = "warn", f"the health check found {', '.join(findings)}"
        result.remedy = "compare with the same time through depth-mesh"


def _fitting(load: Loader) -> tuple[str, ...]:
    """The settings that this pipeline has: its data set may not be a generated one."""
    for overrides in ((*SETTINGS, *FEW_IMAGES), SETTINGS):
        try:
            load(overrides)
        except ReconError:
            continue
        return overrides
    return ()


@torch.no_grad()
def _roughness(run: Path, resolved: ResolvedPipeline) -> float:
    """Mean |mixed difference| over spread of the canonical depths of held-out images; 0 if there are none."""
    model, _ = load_run(run, resolved.host)
    data = open_splits(resolved, DataContext()).evaluation
    if data is None:
        return 0.0
    reconstruct: Any = model.reconstruct
    depth = reconstruct(data.batch(np.arange(min(16, len(data)))).image).canonical_depth
    if depth is None:
        return 0.0
    inner = depth[:, :, 3:-3]
    mixed = inner[:, 1:, 1:] - inner[:, 1:, :-1] - inner[:, :-1, 1:] + inner[:, :-1, :-1]
    return float((mixed.abs().mean((1, 2)) / inner.flatten(1).std(1).clamp(min=1e-6)).mean())


Check = Callable[[], CheckResult | Iterable[CheckResult]]


def check_renderer(
    factory: Factory,
    *,
    name: str = "renderer",
    options: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    only: Collection[str] = (),
    large: int = 256,
    training: Callable[[], CheckResult] | None = None,
    progress: Progress = QUIET,
) -> ConformanceReport:
    """Check a renderer against the renderer protocol.

    Nothing but the protocol is used: the renderer is built with a camera and a depth range, and called with canonical
    depth (B, H, W), canonical image (B, C, H, W) and view (B, 6). A check that raises fails and names the exception;
    the others go on.

    Args:
        factory: called with ``camera`` and ``depth_range`` as keywords; returns the renderer. A class will do.
        name: for the report.
        options: for the report.
        device: where the checks run.
        only: names of checks to run; all by default.
        large: the largest picture's side in pixels.
        training: runs the training check, see :func:`~recon_conformance.suite.smoke_test`; left out if
            None.
        progress: where bars go.

    Raises:
        ValueError: ``only`` names a check that there is not.
    """
    start, subject = time.monotonic(), Subject(factory, device)
    checks = _checks(subject, large, training)
    unknown = set(only) - checks.keys()
    if unknown:
        raise ValueError(f"there is no check {', '.join(sorted(unknown))}; there are {', '.join(checks)}")
    results: list[CheckResult] = []
    chosen = {key: check for key, check in checks.items() if not only or key in only}
    for key, check in progress.track(chosen.items(), description=f"checking {name}", unit="check"):
        results += _guarded(key, check)
    verdict, trainable, summary = summarise(results)
    return ConformanceReport(
        renderer=name,
        options=dict(options or {}),
        verdict=verdict,
        trainable=trainable,
        summary=summary,
        device=str(subject.device),
        seconds=round(time.monotonic() - start, 1),
        checks=results,
    )


def _checks(
    subject: Subject,
    large: int,
    training: Callable[[], CheckResult] | None,
) -> dict[str, Check]:
    @cache
    def registration() -> Registration | Exception:
        """Estimated once, when the first check needs it; what it raises is raised to each of them."""
        try:
            return register(subject)
        except Exception as error:
            return error

    def placed(check: Callable[[Registration], CheckResult]) -> Check:
        def run() -> CheckResult:
            found = registration()
            if isinstance(found, Exception):
                raise found
            return check(found)

        return run

    checks: dict[str, Check] = {
        "planes": placed(partial(values.planes, subject)),
        "ellipsoid": placed(partial(values.curved, subject)),
        "colours": placed(partial(values.colours, subject)),
        "pixel-offset": placed(values.offset),
        "edges": partial(coverage.edges, subject),
        "background": placed(partial(coverage.background, subject)),
        "gradients": partial(gradients.against_differences, subject),
        "evenness": partial(gradients.evenness, subject),
        "near-far": partial(robustness.near_far, subject),
        "degenerate": partial(robustness.degenerate, subject),
        "broken-input": partial(robustness.one_broken, subject),
        "batch": partial(protocol.batch_independence, subject),
        "determinism": partial(protocol.determinism, subject),
        "types": partial(protocol.types, subject),
        "sizes": placed(partial(protocol.sizes, subject, large=large)),
        "inputs": partial(protocol.inputs_kept, subject),
        "device": partial(protocol.device, subject),
        "speed": partial(speed, subject),
    }
    if training is not None:
        checks["training"] = training
    return checks


def _guarded(name: str, check: Check) -> list[CheckResult]:
    try:
        found = check()
    except ProtocolFault as fault:
        return [_raised(name, str(fault), "return a Rendering: image (B,C,H,W), depth (B,H,W), mask (B,H,W) bool")]
    except Exception as error:
        return [_raised(name, f"it raises {describe(error)}", f"fix what raises, at {_place(error)}")]
    return [found] if isinstance(found, CheckResult) else list(found)


def _place(error: Exception) -> str:
    """File and line where it was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}"


def _raised(name: str, cause: str, remedy: str) -> CheckResult:
    return CheckResult(name=name, title="could not be checked", verdict="fail", cause=cause, remedy=remedy)


BATCH = 16
#: A renderer that takes longer than this is measured once.
PATIENCE = 4.0


def speed(subject: Subject, rounds: int = 5) -> CheckResult:
    """Forward and backward for 16 pictures of 64², and how the time grows to 128²; never a failure."""
    result = CheckResult(
        name="speed",
        title=f"forward and backward, {BATCH} pictures, beside depth-mesh",
        limit="none: to know",
        reason="the shortest of several rounds; other work on the machine makes all of them longer",
        ruins_training=False,
    )
    mesh = Subject(DepthMeshRenderer, subject.device)
    small, large, exact = _seconds(((subject, SIZE), (subject, 2 * SIZE), (mesh, SIZE)), rounds)
    result.measured = {
        "ms at 64": round(1e3 * small, 2),
        "ms at 128": round(1e3 * large, 2),
        "growth from 64 to 128": round(large / small, 2),
        "depth-mesh, ms at 64": round(1e3 * exact, 2),
        "times depth-mesh": round(small / exact, 2),
    }
    if large / small > 8:
        result.verdict = "warn"
        result.cause = f"time grows by {large / small:.0f} for four times the pixels: every sample looks at every face"
        result.remedy = "bin faces by tile, or walk the grid, so that cost grows with pixels plus faces"
    return result


def _seconds(cases: Sequence[tuple[Subject, int]], rounds: int) -> list[float]:
    """The shortest time of each case; the cases take turns, so that other work on the machine meets all alike."""
    times: list[list[float]] = [[] for _ in cases]
    for subject, size in cases:
        subject.gradients(*_inputs(subject, size, 1))  # compile and warm up
    start = time.perf_counter()
    while not times[-1] or (len(times[-1]) < rounds and time.perf_counter() - start < PATIENCE):
        for taken, (subject, size) in zip(times, cases, strict=True):
            inputs = _inputs(subject, size, BATCH)
            began = time.perf_counter()
            subject.gradients(*inputs)
            if subject.device.type == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - began)
    return [min(taken) for taken in times]


def _inputs(subject: Subject, size: int, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    depth = canonical_depth(Ellipsoid(), size).float().repeat(batch, 1, 1)
    image = smooth_image(1, size).repeat(batch, 1, 1, 1)
    view = torch.stack([view_of(n - 8, 3 * n - 24, n % 3) for n in range(batch)]).float()
    return depth.to(subject.device), image.to(subject.device), view.to(subject.device)
