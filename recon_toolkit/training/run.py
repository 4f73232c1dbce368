"""A run from a resolved pipeline to a folder with weights, metrics, pictures and a page to look at."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from recon_toolkit.assembly import build_dataset, build_losses, build_model
from recon_toolkit.config.pipeline import ResolvedPipeline, load_pipeline
from recon_toolkit.data.context import DataContext
from recon_toolkit.data.packed import PackedImages
from recon_toolkit.errors import CheckpointError, DataError, MissingSplit, ReconError
from recon_toolkit.evaluation.report import ScoreReport
from recon_toolkit.export.contact_sheet import contact_sheet
from recon_toolkit.export.overview import reconstruction_columns
from recon_toolkit.export.pictures import save_png
from recon_toolkit.files import write_text
from recon_toolkit.geometry import Camera
from recon_toolkit.plugins import PluginHost
from recon_toolkit.progress import QUIET, Progress
from recon_toolkit.registry import blamed
from recon_toolkit.structures import Batch
from recon_toolkit.training import checkpoint as files
from recon_toolkit.training.environment import Environment, environment, peak_memory_mb
from recon_toolkit.training.estimate import available_memory_mb, parameter_count, peak_memory_estimate
from recon_toolkit.training.log import MetricsLog
from recon_toolkit.training.loop import Trainer
from recon_toolkit.training.objective import Objective
from recon_toolkit.training.page import write_page
from recon_toolkit.training.summary import RunSummary
from recon_toolkit.training.validation import evaluate, examples

PIPELINE, ENVIRONMENT, SUMMARY = "pipeline.yaml", "environment.json", "summary.json"
SHEETS, CONTACT_SHEET = "sheets", "contact_sheet.png"
_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed"}


@dataclass(frozen=True)
class Splits:
    """The packed data of a run; a data set without some split has None there."""

    train: PackedImages
    validation: PackedImages | None
    evaluation: PackedImages | None

    def fingerprints(self) -> dict[str, str]:
        """Fingerprint of each split."""
        parts = {"train": self.train, "validation": self.validation, "evaluation": self.evaluation}
        return {name: data.fingerprint for name, data in parts.items() if data is not None}


def run_pipeline(
    resolved: ResolvedPipeline,
    *,
    out: Path,
    data: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    tensorboard: bool = False,
    progress: Progress = QUIET,
    command: list[str] | None = None,
) -> RunSummary:
    """Train and score a pipeline.

    Args:
        resolved: the pipeline.
        out: the run folder; must not hold a run unless ``resume``.
        data: the user's data folder, for data sets that read one.
        resume: continue the run in ``out`` from its newest checkpoint.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``, … as Fabric names them.
        tensorboard: also write TensorBoard event files.
        progress: where bars and messages go.
        command: the command line, for the record.

    Raises:
        ReconError: anything in the pipeline, the data, the folder or the weights that the user can mend.
        TrainingError: training could not go on.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was saved.
    """
    config = resolved.pipeline.training
    saved = _open_folder(out, resolved, resume)
    fabric = _fabric(resolved, device)
    torch.manual_seed(resolved.pipeline.seed)
    model = build_model(resolved)  # also fails on missing weights before any data is made
    objective = Objective(build_losses(resolved), fabric.autocast)
    _check_terms(model, objective, resolved.pipeline.image_size)
    with fabric.rank_zero_first():
        splits = open_splits(resolved, DataContext(root=data, progress=progress))
    record = environment(
        command=command or [],
        device=fabric.device,
        precision=config.precision,
        seed=resolved.pipeline.seed,
        fingerprint=resolved.fingerprint,
        data=splits.fingerprints(),
    )
    if fabric.global_rank == 0:
        _record(out, resolved, record, saved)
    log = MetricsLog(
        out if fabric.global_rank == 0 else None,
        continue_from=saved.step if saved else 0,
        tensorboard=tensorboard or config.tensorboard,
    )
    trainer = Trainer(
        model=model,
        objective=objective,
        data=splits.train,
        config=config,
        steps=total_steps(resolved, len(splits.train)),
        seed=resolved.pipeline.seed,
        fabric=fabric,
        run=out,
        pipeline=resolved.to_yaml(),
        fingerprint=resolved.fingerprint,
        log=log,
        progress=progress,
    )
    _announce(trainer, progress)  # before restoring: it draws random numbers where the model does
    if saved is not None:
        trainer.restore(saved)
        progress.say(f"continuing {out} at step {saved.step}")
    runner = _Runner(resolved, trainer, splits, out, log, progress)
    trainer.fit(runner.validate)
    summary = runner.finish()
    log.close()
    return summary


def total_steps(resolved: ResolvedPipeline, images: int) -> int:
    """Steps of a run: as given, or those that its epochs make."""
    config = resolved.pipeline.training
    if config.steps is not None:
        return config.steps
    assert config.epochs is not None
    return max(1, math.ceil(config.epochs * images / config.batch_size))


def open_splits(resolved: ResolvedPipeline, context: DataContext) -> Splits:
    """Open, and if need be make, the splits that a run reads."""
    dataset = build_dataset(resolved)
    pipeline = resolved.pipeline
    known = tuple(dataset.splits)

    def split(name: str, loss: str) -> PackedImages | None:
        if name not in known:
            return None
        try:
            opened: PackedImages = dataset.open(name, pipeline.image_size, context)
        except MissingSplit as error:
            context.progress.warn(f"{error}; {loss}")
            return None
        return opened

    if "train" not in known:
        raise DataError("the data set has no split 'train'", where="dataset", remedy=f"it has {', '.join(known)}")
    train: PackedImages = dataset.open("train", pipeline.image_size, context)
    wanted = pipeline.evaluation.split
    if wanted not in known:
        raise DataError(
            f"the data set has no split '{wanted}'", where="evaluation.split", remedy=f"use one of {', '.join(known)}"
        )
    validation = split("val", "contact sheets will show other images")
    return Splits(train, validation, split(wanted, "the run will have no final score"))


def load_run(run: Path, host: PluginHost, device: str = "cpu") -> tuple[nn.Module, ResolvedPipeline]:
    """The model of a run with its trained weights, ready to reconstruct, and its pipeline.

    Args:
        run: a run folder.
        host: the loaded plugins.
        device: where the model goes.

    Raises:
        CheckpointError: not a run, no weights yet, or weights that cannot be read.
    """
    recorded = run / PIPELINE
    if not recorded.is_file():
        raise CheckpointError(
            f"not a run folder: it has no {PIPELINE}", where=str(run), remedy="name a folder that `recon run` made"
        )
    tensors, source = files.inference_weights(run)
    resolved = load_pipeline(recorded, [], host)
    model = build_model(resolved)
    files.load_weights(model, tensors, str(source))
    return model.to(device).eval(), resolved


def _record(out: Path, resolved: ResolvedPipeline, record: Environment, saved: files.Checkpoint | None) -> None:
    """Write the pipeline and the environment; of a resumed run, check the data and keep the first session's record."""
    path = out / ENVIRONMENT
    if saved is not None and path.is_file():
        before = Environment.model_validate_json(path.read_bytes()).data
        if before != record.data:
            changed = ", ".join(k for k in before.keys() | record.data.keys() if before.get(k) != record.data.get(k))
            raise CheckpointError(
                f"the data has changed since the run started: {changed}",
                where=str(out),
                remedy="put the data back as it was, or start a new run with another --out",
            )
        path = out / f"environment-resumed-at-{saved.step:08d}.json"
    write_text(out / PIPELINE, resolved.to_yaml())
    write_text(path, record.model_dump_json(indent=1))


def _check_terms(model: nn.Module, objective: Objective, image_size: int) -> None:
    """Find terms that do not fit the model before data is made, where the model needs no more than an image."""
    if tuple(getattr(model, "batch_fields", ())) == ("image",):
        model.eval()  # statistics of a batch of one mean nothing
        with torch.no_grad(), blamed("the pipeline's model, one of its encoders or its renderer"):
            objective.check(model(Batch(image=torch.full((1, 3, image_size, image_size), 0.5), index=torch.zeros(1))))
        model.train()


def _open_folder(out: Path, resolved: ResolvedPipeline, resume: bool) -> files.Checkpoint | None:
    """Check the run folder before any work is done; returns the checkpoint to continue from."""
    used = (out / PIPELINE).exists()
    if not resume:
        if used or (out.exists() and any(out.iterdir())):
            raise ReconError(
                "the folder is not empty" if not used else "a run is here already",
                where=str(out),
                remedy="continue it with --resume, or choose another folder with --out",
            )
        return None
    if not used:
        raise CheckpointError("there is no run to resume here", where=str(out), remedy="leave --resume out")
    saved = files.latest_checkpoint(out)
    if saved is not None and saved.fingerprint != resolved.fingerprint:
        raise CheckpointError(
            "the checkpoint is of another pipeline or other settings",
            where=str(out),
            remedy=f"resume with the pipeline as it was: --pipeline {out / PIPELINE}",
        )
    return saved


def _fabric(resolved: ResolvedPipeline, device: str) -> Fabric:
    config = resolved.pipeline.training
    accelerator = config.accelerator if device == "auto" else device
    if accelerator.startswith("cuda") and not torch.cuda.is_available():
        raise ReconError(
            "no CUDA device is available to torch", where="--device", remedy="use --device cpu, or leave it out"
        )
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # its notes on precision are in environment.json
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=config.devices,
            precision=_PRECISION[config.precision],  # type: ignore[arg-type]
        )
    except (ValueError, RuntimeError) as error:
        raise ReconError(str(error), where="--device", remedy="use auto, cpu, cuda or mps") from error
    if config.devices > 1:
        fabric.launch()
    return fabric


def _announce(trainer: Trainer, progress: Progress) -> None:
    """Say, before training starts, how large the model is and how much memory it will take; warn if too much."""

    def loss(images: int) -> Tensor:
        batch = trainer.batch(0)
        part = replace(batch, **{k: v[:images] for k, v in vars(batch).items() if isinstance(v, Tensor)})
        output = trainer.output(part)
        trainer.objective.check(output)
        return trainer.objective(output).total

    buffers = {name: buffer.clone() for name, buffer in trainer.model.named_buffers()}
    with torch.random.fork_rng(devices=[]):
        batch_size = trainer.config.batch_size // trainer.fabric.world_size
        need = peak_memory_estimate(trainer.model, loss, batch_size, ema=bool(trainer.average))
    for name, buffer in trainer.model.named_buffers():
        buffer.copy_(buffers[name])
    have = available_memory_mb(trainer.fabric.device)
    count = parameter_count(trainer.model)
    progress.say(
        f"{count / 1e6:.2f} M parameters, {len(trainer.data)} training images, {trainer.steps} steps of "
        f"{trainer.config.batch_size} on {trainer.fabric.device} in {trainer.config.precision}; "
        f"about {need / 1024:.1f} GiB of memory at the peak"
    )
    if need > 0.95 * have:
        progress.warn(
            f"only {have / 1024:.1f} GiB of memory are free; lower training.batch_size if the run is stopped for memory"
        )


class _Runner:
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

    def _evaluate(self, data: PackedImages | None, images: int | None, description: str) -> ScoreReport | None:
        if data is None:
            return None
        found = evaluate(
            self.trainer.model,  # type: ignore[arg-type]
            data,
            self.camera,
            device=self.trainer.fabric.device,
            images=images,
            batch_size=self.resolved.pipeline.evaluation.batch_size,
            autocast=self._autocast,
            progress=self.progress,
            description=description,
        )
        return found[0] if found else None

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
        report = self._evaluate(data, pipeline.training.validation_images, "validating")
        if report is not None:
            values = report.model_dump(include={"side", "mad", "mae", "mse", "slope", "correlation", "coverage"})
            constant = report.baselines.constant
            values |= {"side_ratio": _ratio(report.side, constant.side), "mad_ratio": _ratio(report.mad, constant.mad)}
            self.log.write("validation", step, {**values, "seconds": self.trainer.state.seconds})
            self.progress.say(
                f"step {step}: SIDE {report.side:.2f} ({values['side_ratio']:.2f} × constant depth), "
                f"MAD {report.mad:.1f}° ({values['mad_ratio']:.2f} ×), relief slope {report.slope:.2f}"
            )
        batch, found = examples(
            self.trainer.model,  # type: ignore[arg-type]
            data,
            device=self.trainer.fabric.device,
            autocast=self._autocast,
        )
        title = f"{self.resolved.name}, step {step}: {'held-out' if held_out else 'training'} images"
        sheet = contact_sheet(reconstruction_columns(found, batch), title=title)
        for path in (self.out / SHEETS / f"step-{step:08d}.png", self.out / CONTACT_SHEET):
            save_png(path, sheet)

    def finish(self) -> RunSummary:
        """Score the finished model, write its weights, the summary and the page; the first process does it for all."""
        trainer, pipeline = self.trainer, self.resolved.pipeline
        state = trainer.state
        first = trainer.fabric.global_rank == 0
        with trainer.averaged():
            data = self.splits.evaluation if first else None
            report = self._evaluate(data, pipeline.evaluation.images, "scoring")
            summary = RunSummary(
                run=self.out,
                pipeline=self.resolved.name,
                steps=state.step,
                seconds=round(state.seconds, 2),
                images_per_second=round(state.step * pipeline.training.batch_size / max(state.seconds, 1e-9), 1),
                peak_memory_mb=round(peak_memory_mb(trainer.fabric.device), 1),
                device=str(trainer.fabric.device),
                seed=pipeline.seed,
                findings=state.findings,
                **(_scores(report) if report else {}),
            )
            if first:
                tensors = {f"model.{k}": v.clone() for k, v in trainer.model.state_dict().items()}
                weights = files.Checkpoint(state.step, trainer.pipeline, trainer.fingerprint, tensors, {})
                files.save_checkpoint(self.out / files.WEIGHTS, weights)
        if first:
            write_text(self.out / SUMMARY, summary.model_dump_json(indent=1) + "\n")
            write_page(self.out, summary)
        return summary


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


def _ratio(value: float, baseline: float) -> float:
    """NaN where the true depth is as flat as the baseline."""
    return value / baseline if baseline > 0 else math.nan
