"""The conformance suite: every check in order, each on its own, into one report."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from recon_toolkit.conformance import coverage, gradients, protocol, robustness, values
from recon_toolkit.conformance.registration import Registration, register
from recon_toolkit.conformance.report import CheckResult, ConformanceReport, summarise
from recon_toolkit.conformance.subject import Factory, ProtocolFault, Subject, smooth_image
from recon_toolkit.conformance.truth import SIZE, Ellipsoid, canonical_depth, view_of
from recon_toolkit.progress import QUIET, Progress
from recon_toolkit.registry import describe
from recon_toolkit.rendering import DepthMeshRenderer

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
        training: runs the training check, see :func:`~recon_toolkit.conformance.training.smoke_test`; left out if
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
