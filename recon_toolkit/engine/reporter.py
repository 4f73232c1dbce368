"""What surrounds training: validation with contact sheets, the last score, the summary and the page."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

from recon_toolkit.config.pipeline import ResolvedPipeline
from recon_toolkit.data.packed import PackedImages
from recon_toolkit.engine import checkpoint as files
from recon_toolkit.engine.environment import Splits, peak_memory_mb
from recon_toolkit.engine.log import MetricsLog
from recon_toolkit.engine.loop import Trainer
from recon_toolkit.engine.page import RunSummary, write_objects, write_page
from recon_toolkit.engine.validation import (
    HeldOut,
    evaluate,
    evaluate_held_out,
    evaluate_images,
    evaluate_metrics,
    sheet_columns,
)
from recon_toolkit.errors import TrainingError
from recon_toolkit.files import write_text
from recon_toolkit.geometry import Camera
from recon_toolkit.io.contact_sheet import contact_sheet
from recon_toolkit.io.maps import save_png
from recon_toolkit.metrics.contributed import MetricCollector, MetricScores, PipelineScorer, pipeline_metrics
from recon_toolkit.metrics.images import ImageMetrics, ImageReport, Lpips, find_lpips
from recon_toolkit.metrics.report import DepthEvaluator, ScoreReport
from recon_toolkit.progress import Progress

SUMMARY, IMAGE_SCORES = "summary.json", "scores.csv"
SHEETS, CONTACT_SHEET = "sheets", "contact_sheet.png"


class Reporter:
    """What happens around training: validation, contact sheets, the last score, the page."""

    def __init__(
        self,
        resolved: ResolvedPipeline,
        trainer: Trainer,
        splits: Splits,
        out: Path,
        log: MetricsLog,
        progress: Progress,
    ) -> None:
        self.resolved, self.trainer, self.splits = resolved, trainer, splits
        self.out, self.log, self.progress = out, log, progress
        self.camera = Camera(fov=resolved.pipeline.camera.fov)
        self.notes: list[str] = []
        self._scorers: dict[tuple[str, ...], PipelineScorer] = {}

    @cached_property
    def _lpips(self) -> Lpips | None:
        """LPIPS, looked for once; that it is absent is said once."""
        found, reason = find_lpips(self.trainer.fabric.device)
        if reason is not None:
            self.progress.warn(reason)
            self.notes.append(reason)
        return found

    def _evaluate_images(self, data: PackedImages | None, images: int | None, description: str) -> ImageMetrics | None:
        model = self.trainer.model
        if data is None or not model.defines("scored_pair"):
            return None
        return evaluate_images(
            model,
            data,
            device=self.trainer.fabric.device,
            images=images,
            batch_size=self.resolved.pipeline.evaluation.batch_size,
            autocast=self._autocast,
            lpips=self._lpips,
            progress=self.progress,
            description=description,
        )

    def _evaluate(self, data: PackedImages | None, images: int | None, description: str) -> DepthEvaluator | None:
        if data is None:
            return None
        return evaluate(
            self.trainer.model,
            data,
            self.camera,
            device=self.trainer.fabric.device,
            images=images,
            batch_size=self.resolved.pipeline.evaluation.batch_size,
            autocast=self._autocast,
            progress=self.progress,
            description=description,
        )

    def _evaluate_metrics(
        self, data: PackedImages | None, images: int | None, description: str, *, spread: bool = False
    ) -> MetricCollector | None:
        whole = pipeline_metrics(self.resolved)
        if data is None or not whole.metrics:
            return None
        sheet = pipeline_metrics(self.resolved, data.fields)
        left_out = [metric.name for metric in whole.metrics if metric not in sheet.metrics]
        if left_out:
            missing = ", ".join(whole.missing(data.fields))
            note = f"{', '.join(left_out)}: not scored, for the data set does not have {missing} of every image"
            if note not in self.notes:
                self.progress.warn(note)
                self.notes.append(note)
        if not sheet.metrics:
            return None
        names = tuple(metric.name for metric in sheet.metrics)
        if names not in self._scorers:  # made once, since its baselines may take a while
            self._scorers[names] = PipelineScorer(
                self.resolved, self.trainer.model, sheet, self.splits.train, self._autocast
            )
        return evaluate_metrics(
            sheet,
            self._scorers[names],
            data,
            device=self.trainer.fabric.device,
            images=images,
            spread=spread,
            batch_size=self.resolved.pipeline.evaluation.batch_size,
            autocast=self._autocast,
            progress=self.progress,
            description=description,
        )

    def _held_out(self, data: PackedImages | None, images: int | None, description: str) -> HeldOut | None:
        """Loss and reconstruction of images that nothing else can score, photographs for example."""
        trainer = self.trainer
        if data is None:
            return None
        return evaluate_held_out(
            trainer.model,
            trainer.objective,
            data,
            device=trainer.fabric.device,
            epoch=trainer.sampler.epoch(trainer.state.step),
            images=images,
            batch_size=self.resolved.pipeline.evaluation.batch_size,
            autocast=self._autocast,
            progress=self.progress,
            description=description,
        )

    @property
    def _autocast(self) -> Callable[[], AbstractContextManager[object]]:
        return self.trainer.fabric.autocast

    def validate(self, step: int) -> None:
        """Log the validation score and draw the contact sheet; the first process does it for all."""
        if self.trainer.fabric.global_rank != 0:
            return
        pipeline = self.resolved.pipeline
        held_out = self.splits.validation or self.splits.evaluation
        data = held_out or self.splits.train
        count = pipeline.training.validation_images
        depth = self._evaluate(data, count, "validating")
        pictures = self._evaluate_images(data, count, "validating")
        own = self._evaluate_metrics(data, count, "validating", spread=True)
        seen = None if depth or pictures or own else self._held_out(held_out, count, "validating")
        pictures = seen.pictures if seen else pictures
        self._log(
            step,
            depth.report() if depth else None,
            pictures.report() if pictures else None,
            own.report() if own else None,
            seen.loss if seen else None,
        )
        columns = sheet_columns(self.trainer.model, data, device=self.trainer.fabric.device, autocast=self._autocast)
        if columns is None:
            return
        title = f"{self.resolved.name}, step {step}: {'held-out' if held_out else 'training'} images"
        sheet = contact_sheet(columns, title=title)
        for path in (self.out / SHEETS / f"step-{step:08d}.png", self.out / CONTACT_SHEET):
            save_png(path, sheet)

    def _log(
        self,
        step: int,
        report: ScoreReport | None,
        pictures: ImageReport | None,
        own: MetricScores | None,
        held_out_loss: float | None,
    ) -> None:
        """One entry of the log with all scores of a step, and a line each for a person."""
        values: dict[str, Any] = {}
        if held_out_loss is not None:
            values["held_out_loss"] = held_out_loss
            self.progress.say(f"step {step}: loss {held_out_loss:.3f} on held-out images")
        if report is not None:
            values |= report.model_dump(include={"side", "mad", "mae", "mse", "slope", "correlation", "coverage"})
            constant = report.baselines.constant
            values |= {"side_ratio": _ratio(report.side, constant.side), "mad_ratio": _ratio(report.mad, constant.mad)}
            self.progress.say(
                f"step {step}: SIDE {report.side:.2f} ({values['side_ratio']:.2f} × constant depth), "
                f"MAD {report.mad:.1f}° ({values['mad_ratio']:.2f} ×), relief slope {report.slope:.2f}"
            )
        if pictures is not None:
            values |= pictures.model_dump(include={"psnr", "ssim", "lpips"}, exclude_none=True)
            self.progress.say(f"step {step}: {pictures.text()}")
        if own is not None:
            values |= own.log()
            self.progress.say(f"step {step}: {own.text()}")
        if values:
            self.log.write("validation", step, {**values, "seconds": self.trainer.state.seconds})

    def finish(self) -> RunSummary:
        """Score the finished model, write its weights, the summary and the page; the first process does it for all."""
        trainer, pipeline = self.trainer, self.resolved.pipeline
        state = trainer.state
        first = trainer.fabric.global_rank == 0
        with trainer.averaged():
            data = self.splits.evaluation if first else None
            depth = self._evaluate(data, pipeline.evaluation.images, "scoring")
            pictures = self._evaluate_images(data, pipeline.evaluation.images, "scoring")
            own = self._evaluate_metrics(data, pipeline.evaluation.images, "scoring")
            seen = None if depth or pictures or own else self._held_out(data, pipeline.evaluation.images, "scoring")
            pictures = seen.pictures if seen else pictures
            found = own.report() if own else None
            summary = self._summary(
                scores=found,
                held_out_loss=seen.loss if seen else None,
                **({"images": seen.images} if seen else {})
                | ({"images": found.images, "excluded": found.empty} if found else {})
                | (_image_scores(pictures.report()) if pictures else {})
                | (_scores(depth.report()) if depth else {}),
            )
            if first:
                tensors = {f"model.{k}": v.clone() for k, v in trainer.model.state_dict().items()}
                weights = files.Checkpoint(state.step, trainer.pipeline, trainer.fingerprint, tensors, {})
                files.save_checkpoint(self.out / files.WEIGHTS, weights)
                write_objects(
                    self.out,
                    self.resolved.name,
                    trainer.model,
                    data or self.splits.train,
                    self.camera,
                    device=trainer.fabric.device,
                    autocast=self._autocast,
                    progress=self.progress,
                )
        if first:
            if data is not None and (depth or pictures or own):
                write_image_scores(self.out / IMAGE_SCORES, data, depth, pictures, own)
            self._write(summary)
        return summary

    def give_up(self, error: TrainingError) -> None:
        """Write the summary and the page of a run whose training could not go on; the model is not scored."""
        self.notes.append(error.message)
        if self.trainer.fabric.global_rank == 0:
            self._write(self._summary(status="failed"))

    def _summary(self, **scores: Any) -> RunSummary:
        """What the run is and where it stands, with what is known besides."""
        state, pipeline = self.trainer.state, self.resolved.pipeline
        return RunSummary(
            run=self.out,
            pipeline=self.resolved.name,
            steps=state.step,
            seconds=round(state.seconds, 2),
            images_per_second=round(state.step * pipeline.training.batch_size / max(state.seconds, 1e-9), 1),
            peak_memory_mb=round(peak_memory_mb(self.trainer.fabric.device), 1),
            device=str(self.trainer.fabric.device),
            seed=pipeline.seed,
            findings=state.findings,
            notes=self.notes,
            **scores,
        )

    def _write(self, summary: RunSummary) -> None:
        write_text(self.out / SUMMARY, summary.model_dump_json(indent=1) + "\n", durable=True)
        write_page(self.out, summary)


def write_image_scores(
    path: Path,
    data: PackedImages,
    depth: DepthEvaluator | None,
    pictures: ImageMetrics | None,
    own: MetricCollector | None = None,
) -> None:
    """One row an image: its name, every metric, and those of the baselines; numbers so that they read back exactly."""
    import pandas as pd

    columns: dict[str, Any] = {**(depth.images() if depth else {})}
    if pictures is not None:
        columns |= {"psnr": pictures.psnr.tolist(), "ssim": pictures.ssim.tolist()}
        columns |= {"lpips": pictures.lpips.tolist()} if pictures.lpips is not None else {}
    if own is not None:
        columns |= own.columns()
    count = len(next(iter(columns.values())))
    words = {"group": own.groups()} if own is not None and own.groups() else {}
    frame = pd.DataFrame({"image": data.names[:count], **words, **columns})
    write_text(path, frame.to_csv(index=False))


def _scores(report: ScoreReport) -> dict[str, Any]:
    constant = report.baselines.constant
    fields = {"side", "side_std", "mad", "mad_std", "mae", "mse", "slope", "correlation", "images"}
    return {
        **report.model_dump(include=fields),
        "excluded": report.empty,
        "baselines": report.baselines,
        "side_ratio": _ratio(report.side, constant.side),
        "mad_ratio": _ratio(report.mad, constant.mad),
    }


def _image_scores(report: ImageReport) -> dict[str, Any]:
    values = report.model_dump()
    values["excluded"] = values.pop("empty")
    return values


def _ratio(value: float, baseline: float) -> float:
    """NaN where the true depth is as flat as the baseline."""
    return value / baseline if baseline > 0 else math.nan
