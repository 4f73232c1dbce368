"""How long a renderer takes, beside the exact mesh renderer."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from recon_toolkit.conformance.report import CheckResult
from recon_toolkit.conformance.subject import Subject, smooth_image
from recon_toolkit.conformance.truth import SIZE, Ellipsoid, canonical_depth, view_of
from recon_toolkit.rendering import DepthMeshRenderer

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
