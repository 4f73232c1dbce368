"""A run from a resolved pipeline to a folder with weights, metrics, pictures and a page to look at."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import torch
from filelock import FileLock, Timeout
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from recon_toolkit.assembly import build_losses, build_model, build_optimizer, build_sampler, check_parts
from recon_toolkit.config.pipeline import ResolvedPipeline
from recon_toolkit.config.schema import Precision
from recon_toolkit.config.sources import PIPELINE, SEAL, seal
from recon_toolkit.data.packing import DataContext
from recon_toolkit.engine import checkpoint as files
from recon_toolkit.engine.callbacks import Callbacks, build_callbacks
from recon_toolkit.engine.environment import FILE as BUDGET
from recon_toolkit.engine.environment import (
    Environment,
    available_memory_mb,
    environment,
    native_bf16,
    open_splits,
    parameter_count,
    peak_memory_estimate,
    recorded_steps,
    settled,
    slowdown,
    steps_given,
)
from recon_toolkit.engine.first_look import check_output, watched_parts
from recon_toolkit.engine.log import MetricsLog
from recon_toolkit.engine.loop import Trainer
from recon_toolkit.engine.page import RunSummary
from recon_toolkit.engine.reporter import Reporter
from recon_toolkit.errors import CheckpointError, ReconError, TrainingError
from recon_toolkit.files import disk_error, is_partial, make_folder, remove_partials, write_text
from recon_toolkit.losses import Objective
from recon_toolkit.metrics.pipeline import metric_terms
from recon_toolkit.models import Model, Step
from recon_toolkit.progress import QUIET, Progress
from recon_toolkit.structures import Batch, Losses, ModelOutput
from recon_toolkit.threads import given

ENVIRONMENT, LOCK = "environment.json", ".lock"
#: What a run writes before its first checkpoint.
_FIRST_FILES = {PIPELINE, SEAL, ENVIRONMENT, BUDGET, "metrics.jsonl"}
_PRECISION: dict[Precision, Literal["32-true", "bf16-mixed"]] = {"fp32": "32-true", "bf16": "bf16-mixed"}


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
        ReconError: anything in the pipeline, the data, the folder or the weights that the user can fix.
        TrainingError: training could not go on; the summary says so, and has no scores.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was saved.
    """
    with _locked(out):
        config = resolved.pipeline.training
        saved = _open_folder(out, resolved, resume)
        before = _first_session(out) if saved is not None else None
        fabric, precision = _fabric(resolved, device, before)
        if precision == "bf16" and not native_bf16(fabric.device):
            progress.warn(
                f"bf16 is emulated on this {fabric.device.type}: a convolution takes {slowdown(fabric.device):.1f} "
                "times as long as in fp32; stop, and start again with --set training.precision=fp32"
            )
        torch.manual_seed(resolved.pipeline.seed)
        check_parts(resolved)
        metric_terms(resolved)  # names that cannot be are known before anything is made
        model = build_model(resolved)  # also fails on missing weights before any data is made
        if config.start_from is not None and saved is None:
            start, file = files.inference_checkpoint(config.start_from)
            files.load_weights(model, start.weights, str(file))
        objective = Objective(build_losses(resolved), fabric.autocast)
        _check_terms(model, objective, resolved)
        with fabric.rank_zero_first():
            splits = open_splits(resolved, DataContext(root=data, progress=progress))
        record = environment(
            command=command or [],
            device=fabric.device,
            precision=precision,
            seed=resolved.pipeline.seed,
            fingerprint=resolved.fingerprint,
            data=splits.fingerprints(),
        )
        if fabric.global_rank == 0:
            _record(out, resolved, record, before, saved)
        callbacks = Callbacks(build_callbacks(resolved) if fabric.global_rank == 0 else {}, progress)
        log = MetricsLog(
            out if fabric.global_rank == 0 else None,
            continue_from=saved.step if saved else 0,
            tensorboard=tensorboard or config.tensorboard,
            listener=callbacks.log,
        )
        steps = steps_given(config, len(splits.train)) or (recorded_steps(out) if saved else None)
        trainer = Trainer(
            model=model,
            objective=objective,
            data=splits.train,
            sampler=build_sampler(resolved, splits.train, model.group_size),
            optimizer=build_optimizer(resolved),
            config=config,
            steps=steps or 1,
            seed=resolved.pipeline.seed,
            fabric=fabric,
            run=out,
            pipeline=resolved.to_yaml(),
            fingerprint=resolved.fingerprint,
            log=log,
            progress=progress,
        )
        if steps is None:
            trainer.settle_steps()
        _announce(trainer, resolved, precision, progress)  # before restoring: it draws random numbers
        if saved is not None:
            trainer.restore(saved)
            progress.say(f"continuing {out} at step {saved.step}")
        callbacks.begin(out, trainer.state.step, trainer.steps)
        runner = Reporter(resolved, trainer, splits, out, log, progress)
        try:
            trainer.fit(runner.validate)
        except TrainingError as error:
            runner.give_up(error)
            log.close()
            raise
        summary = runner.finish()
        log.close()
        callbacks.end(out, summary)
        return summary


def _first_session(out: Path) -> Environment | None:
    """What the run in a folder was started with, if that was recorded."""
    path = out / ENVIRONMENT
    if not path.is_file():
        return None
    try:
        found = Environment.model_validate_json(path.read_bytes())
        if found.precision not in _PRECISION:
            raise ValueError(f"its precision is {found.precision!r}")
        return found
    except (ValueError, OSError) as error:
        raise CheckpointError(
            "the record of the run's first session is damaged",
            where=str(path),
            remedy="remove this file to resume without its check of data and precision",
        ) from error


def _record(
    out: Path,
    resolved: ResolvedPipeline,
    record: Environment,
    before: Environment | None,
    saved: files.Checkpoint | None,
) -> None:
    """Write the pipeline and the environment; of a resumed run, check the data and keep the first session's record."""
    path = out / ENVIRONMENT
    if saved is not None and before is not None:
        if before.data != record.data:
            names = before.data.keys() | record.data.keys()
            changed = ", ".join(sorted(k for k in names if before.data.get(k) != record.data.get(k)))
            raise CheckpointError(
                f"the data has changed since the run started: {changed}",
                where=str(out),
                remedy="put the data back as it was, or start a new run with another --out",
            )
        path = out / f"environment-resumed-at-{saved.step:08d}.json"
    write_text(out / PIPELINE, resolved.to_yaml(), durable=True)
    seal(out)
    write_text(path, record.model_dump_json(indent=1), durable=True)


def _check_terms(model: Model, objective: Objective, resolved: ResolvedPipeline) -> None:
    """Find terms that do not fit the model before data is made, where the model needs no more than an image."""
    if tuple(model.batch_fields or ()) == ("image",) and model.defines("forward") and model.group_size == 1:
        model, objective = copy.deepcopy(model).eval(), objective.copy()  # looking changes nothing
        size = resolved.pipeline.image_size
        with torch.random.fork_rng(devices=[]), torch.no_grad(), watched_parts(model, resolved):
            output = model(Batch(image=torch.full((2, 3, size, size), 0.5), index=torch.zeros(2)))
            check_output(output, resolved)
            objective.check(output)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep other commands from writing to the same run folder. The processes of one run share the first one's lock."""
    if os.environ.get("LOCAL_RANK", "0") != "0":
        yield
        return
    made = make_folder(out)
    lock = FileLock(out / LOCK)
    try:
        lock.acquire(timeout=2, poll_interval=0.05)  # a look at whether it is held lasts a moment
    except Timeout as error:
        raise ReconError(
            "another process is writing to this run", where=str(out), remedy="wait for it, or choose another --out"
        ) from error
    except OSError as error:
        raise disk_error(error, out) from error
    try:
        yield
    finally:
        lock.release()
        (out / LOCK).unlink(missing_ok=True)
        if made and not any(out.iterdir()):
            out.rmdir()


def _open_folder(out: Path, resolved: ResolvedPipeline, resume: bool) -> files.Checkpoint | None:
    """Check the run folder before any work is done; returns the checkpoint to continue from.

    A run that failed before its first checkpoint holds nothing to lose: a new one may take its place. What a killed
    process left half written is removed.
    """
    if os.environ.get("LOCAL_RANK", "0") == "0":  # the folder is locked, so that nobody writes these any more
        for folder in (out, out / files.FOLDER):
            remove_partials(folder)
        if not resume:
            with suppress(OSError):  # not there, or not empty
                (out / files.FOLDER).rmdir()
    used = (out / PIPELINE).exists()
    if not resume:
        others = {path.name for path in out.iterdir() if not is_partial(path)} - {LOCK}
        if used and others <= _FIRST_FILES:
            for name in others:
                (out / name).unlink()
        elif others:
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


def _fabric(resolved: ResolvedPipeline, device: str, before: Environment | None) -> tuple[Fabric, Precision]:
    """The devices, and the precision: that which a resumed run began with."""
    config = resolved.pipeline.training
    accelerator = config.accelerator if device == "auto" else device
    kind, _, index = accelerator.partition(":")
    if index and config.devices > 1:
        raise ReconError(
            f"one device is named, and training.devices is {config.devices}",
            where="--device",
            remedy=f"use --device {kind}, or training.devices=1",
        )
    if accelerator.startswith("cuda") and not torch.cuda.is_available():
        raise ReconError(
            "no CUDA device is available to torch", where="--device", remedy="use --device cpu, or leave it out"
        )
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # its notes on precision are in environment.json
    devices = [int(index)] if index else config.devices
    try:
        fabric = Fabric(accelerator=kind, devices=devices)
        precision = settled(before.precision if before is not None else config.precision, fabric.device)
        fabric = Fabric(accelerator=kind, devices=devices, precision=_PRECISION[precision])
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        raise ReconError(str(error), where="--device", remedy="use auto, cpu, cuda, cuda:N or mps") from error
    if config.devices > 1:
        fabric.launch()
    return fabric, precision


def _place(trainer: Trainer) -> str:
    device = trainer.fabric.device
    return f"the CPU with {given()}" if device.type == "cpu" else str(device)


def _announce(trainer: Trainer, resolved: ResolvedPipeline, precision: Precision, progress: Progress) -> None:
    """Say, before training starts, how large the model is and how much memory it will take; warn if too much."""

    model, objective = trainer.rehearsal()

    def pipeline_losses(output: ModelOutput, batch: Batch) -> Losses:
        check_output(output, resolved)
        objective.check(output)
        return objective(output, batch=batch, plain=True)

    def loss(images: int) -> Tensor:
        part = trainer.batch(0).rows(0, images)
        with watched_parts(model, resolved), trainer.fabric.autocast():
            # The first loss of a step; those of other optimisers need its update.
            return next(iter(model.training_step(part, Step(0, 0.0, pipeline_losses))))[1].total

    with torch.random.fork_rng(devices=[]):
        batch_size = trainer.config.batch_size // trainer.fabric.world_size
        need = peak_memory_estimate(model, loss, batch_size, model.group_size, ema=bool(trainer.average))
    have = available_memory_mb(trainer.fabric.device)
    count = parameter_count(trainer.model)
    progress.say(
        f"{count / 1e6:.2f} M parameters, {len(trainer.data)} training images, {trainer.steps} steps of "
        f"{trainer.config.batch_size} on {_place(trainer)} in {precision}; "
        f"about {need / 1024:.1f} GiB of memory at the peak"
    )
    if need > 0.95 * have:
        progress.warn(
            f"only {have / 1024:.1f} GiB of memory are free; lower training.batch_size if the run is stopped for memory"
        )
