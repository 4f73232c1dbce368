"""What surrounds training: validation with contact sheets, the last score, the summary and the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from recon_toolkit.engine.page import RunSummary, summarised, write_objects, write_page
from recon_toolkit.engine.validation import (
    HeldOut,
    evaluate,
    evaluate_held_out,
    sheet_columns,
)
from recon_toolkit.errors import TrainingError
from recon_toolkit.files import write_text
from recon_toolkit.geometry import Camera
from recon_toolkit.io.contact_sheet import contact_sheet
from recon_toolkit.io.maps import save_png
from recon_toolkit.metrics.images import Lpips, find_lpips
from recon_toolkit.metrics.metric import ImageScores, MetricScores, MetricSet
from recon_toolkit.metrics.pipeline import PipelineScorer, pipeline_metrics
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

    def _evaluate(
        self, data: PackedImages | None, images: int | None, description: str, *, final: bool = False
    ) -> ImageScores | None:
        """The scores of some images by all of the pipeline's metrics; None where the data, or the model, has none.

        The final scores are those of the first images, with the average of their true depth as a baseline.
        """
        if data is None:
            return None
        model = self.trainer.model
        metrics = pipeline_metrics(self.resolved, data.fields, model)
        self._say_left_out(metrics, data)
        if not metrics.metrics:
            return None
        names = tuple(metric.name for metric in metrics.metrics)
        if names not in self._scorers:  # made once, since its baselines may take a while
            lpips = self._lpips if "lpips" in names else None
            self._scorers[names] = PipelineScorer(
                self.resolved, model, metrics, self.splits.train, self._autocast, lpips
            )
        collector = evaluate(
            metrics,
            self._scorers[names],
            data,
            device=self.trainer.fabric.device,
            images=images,
            spread=not final,
            average=final,
            batch_size=self.resolved.pipeline.evaluation.batch_size,
            progress=self.progress,
            description=description,
        )
        return collector.scored()

    def _say_left_out(self, metrics: MetricSet, data: PackedImages) -> None:
        """Metrics of a model or a pipeline that cannot be had of the data are named once."""
        whole = pipeline_metrics(self.resolved, None, self.trainer.model)
        left_out = [m.name for m in whole.metrics if m.needs == "own" and m not in metrics.metrics]
        missing = ", ".join(name for name in whole.missing(data.fields))
        note = f"{', '.join(left_out)}: not scored, for the data set does not have {missing} of every image"
        if left_out and note not in self.notes:
            self.progress.warn(note)
            self.notes.append(note)

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
        scored = self._evaluate(data, count, "validating")
        seen = None if scored else self._held_out(held_out, count, "validating")
        self._log(step, scored.scores if scored else None, seen)
        columns = sheet_columns(self.trainer.model, data, device=self.trainer.fabric.device, autocast=self._autocast)
        if columns is None:
            return
        title = f"{self.resolved.name}, step {step}: {'held-out' if held_out else 'training'} images"
        sheet = contact_sheet(columns, title=title)
        for path in (self.out / SHEETS / f"step-{step:08d}.png", self.out / CONTACT_SHEET):
            save_png(path, sheet)

    def _log(self, step: int, scores: MetricScores | None, seen: HeldOut | None) -> None:
        """One entry of the log with all scores of a step, and a line for a person."""
        values: dict[str, Any] = {}
        if seen is not None:
            values["held_out_loss"] = seen.loss
            self.progress.say(f"step {step}: loss {seen.loss:.3f} on held-out images")
            scores = seen.scored.scores if seen.scored else None
        if scores is not None:
            values |= scores.log()
            self.progress.say(f"step {step}: {scores.text()}")
        if values:
            self.log.write("validation", step, {**values, "seconds": self.trainer.state.seconds})

    def finish(self) -> RunSummary:
        """Score the finished model, write its weights, the summary and the page; the first process does it for all."""
        trainer, pipeline = self.trainer, self.resolved.pipeline
        state = trainer.state
        first = trainer.fabric.global_rank == 0
        with trainer.averaged():
            data = self.splits.evaluation if first else None
            scored = self._evaluate(data, pipeline.evaluation.images, "scoring", final=True)
            seen = None if scored else self._held_out(data, pipeline.evaluation.images, "scoring")
            names: Sequence[str] = data.names if data is not None else []
            if seen is not None:
                scored, names = seen.scored, seen.names
            scores = scored.scores if scored else None
            if data is not None and scored is None and seen is None and trainer.model.group_size > 1:
                self.notes.append(f"nothing was scored: no group of the split has {trainer.model.group_size} images")
            held_out: dict[str, Any] = {} if seen is None else {"held_out_loss": seen.loss, "images": seen.images}
            summary = self._summary(**held_out | ({} if scores is None else summarised(scores)))
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
            if data is not None and scored:
                write_image_scores(self.out / IMAGE_SCORES, names, scored)
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


def write_image_scores(path: Path, names: Sequence[str], scored: ImageScores) -> None:
    """One row an image: its name, every metric, and those of the baselines; numbers so that they read back exactly."""
    import pandas as pd

    count = len(next(iter(scored.columns.values())))
    groups = {"group": scored.groups} if scored.groups else {}
    frame = pd.DataFrame({"image": names[:count], **groups, **scored.columns})
    write_text(path, frame.to_csv(index=False))
