"""What a finished run reports, to people and to programs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from recon_toolkit.evaluation.own_scores import OwnScores
from recon_toolkit.evaluation.report import Baselines


class RunSummary(BaseModel):
    """The result of a run: the object that ``recon run --json`` prints and ``summary.json`` holds.

    Attributes:
        run: the run folder.
        pipeline: its name.
        status: ``finished``, or ``failed`` where training could not go on: then there are no scores, and the last of
            the notes says why.
        steps, seconds: training steps done, and seconds spent in training (over all sessions).
        images_per_second: training throughput.
        images: evaluated images.
        side: scale-invariant depth error ×10⁻², mean over images; None without ground truth, or where the model has
            no depth.
        mad: mean angle deviation of normals in degrees.
        side_std, mad_std: standard deviations over images.
        mae, mse, slope, correlation: means over images.
        baselines: constant and average depth on the same images.
        side_ratio, mad_ratio: side and mad over the constant-depth baseline's.
        psnr, ssim: of the model's pictures, means over images, see
            :class:`~recon_toolkit.evaluation.image_metrics.ImageMetrics`; None where it offers none to score.
        lpips: likewise; None also where AlexNet's weights are absent.
        psnr_std, ssim_std, lpips_std: standard deviations over images.
        held_out_loss: the training loss on held-out images, where there is no ground truth to score by; psnr and ssim
            are then those of the model's reconstruction of them.
        scores: what the model is judged by besides, with its baselines and by group; None where it brings nothing.
        notes: what was left out of the scores, and why.
        findings: failures that the health check named while training.
        excluded: evaluated images without a usable mask.
    """

    run: Path
    pipeline: str
    status: Literal["finished", "failed"] = "finished"
    steps: int
    seconds: float
    images_per_second: float
    peak_memory_mb: float
    device: str
    seed: int
    images: int = 0
    excluded: int = 0
    side: float | None = None
    side_std: float | None = None
    mad: float | None = None
    mad_std: float | None = None
    mae: float | None = None
    mse: float | None = None
    slope: float | None = None
    correlation: float | None = None
    side_ratio: float | None = None
    mad_ratio: float | None = None
    baselines: Baselines | None = None
    psnr: float | None = None
    psnr_std: float | None = None
    ssim: float | None = None
    ssim_std: float | None = None
    lpips: float | None = None
    lpips_std: float | None = None
    held_out_loss: float | None = None
    scores: OwnScores | None = None
    notes: list[str] = []
    findings: list[str] = []
