"""A short training run through the renderer, and a look at the shapes that it leaves."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recon_toolkit.config.pipeline import ResolvedPipeline
from recon_toolkit.conformance.report import CheckResult
from recon_toolkit.data.context import DataContext
from recon_toolkit.errors import ReconError
from recon_toolkit.progress import QUIET, Progress
from recon_toolkit.training.log import read_log
from recon_toolkit.training.run import run_pipeline
from recon_toolkit.training.run_data import open_splits
from recon_toolkit.training.trained import load_run

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
        device: as for :func:`~recon_toolkit.training.run.run_pipeline`.
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
