"""The training loop: one linear recipe, restartable at any step, that says what goes wrong while it runs."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from recon_toolkit.config.schema import TrainingConfig
from recon_toolkit.data.packed import PackedImages, ResidentImages
from recon_toolkit.errors import ReconError, TrainingError
from recon_toolkit.progress import QUIET, Progress, Task
from recon_toolkit.structures import Batch, ModelOutput
from recon_toolkit.training import checkpoint as files
from recon_toolkit.training.budget import try_steps
from recon_toolkit.training.first_look import blamed_part
from recon_toolkit.training.health import SETTLED, Finding, Health
from recon_toolkit.training.interrupt import Interrupted, interruptible
from recon_toolkit.training.log import MetricsLog
from recon_toolkit.training.objective import Losses, Objective
from recon_toolkit.training.parts import gradient_norm, named_parts, parameter_groups
from recon_toolkit.training.sampler import Sampler, check_mirrorable, mirror
from recon_toolkit.training.shards import Forward, ShardedGradients, check_shardable

#: Non-finite steps in a row after which training gives up.
PATIENCE = 20


@dataclass
class State:
    """Where a run stands; all of it goes into checkpoints."""

    step: int = 0
    seconds: float = 0.0
    skipped: int = 0  # steps left out because something was not finite
    findings: list[str] = field(default_factory=list)


class Trainer:
    """Trains a model on a packed data set.

    Args:
        model: the model.
        objective: turns the model's output into a scalar.
        data: packed training images.
        config: how to train.
        steps: how many steps in all; 1 until a trial has told, see :meth:`settle_steps`.
        seed: of the run.
        fabric: devices and precision.
        run: the run folder.
        pipeline, fingerprint: the resolved pipeline, stored in checkpoints.
        log: where metrics go.
        progress: where bars and warnings go.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        objective: Objective,
        data: PackedImages,
        config: TrainingConfig,
        steps: int,
        seed: int,
        fabric: Fabric,
        run: Path,
        pipeline: str,
        fingerprint: str,
        log: MetricsLog,
        progress: Progress = QUIET,
    ) -> None:
        self.config, self.steps, self.fabric = config, steps, fabric
        self.run, self.log, self.progress = run, log, progress
        self.objective, self.pipeline, self.fingerprint = objective, pipeline, fingerprint
        # Not wrapped by Fabric: gradients are taken on threads of our own, and every process averages them itself.
        self.model = model.to(fabric.device)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(
            parameter_groups(model, config.part_warmup_steps),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
        for term in objective.terms:
            if isinstance(term.component, nn.Module):
                term.component.to(fabric.device)
        self.average = [p.detach().clone() for p in self.parameters] if config.ema else []
        if config.batch_size % fabric.world_size:
            raise ReconError(
                f"a batch of {config.batch_size} images cannot be shared equally by {fabric.world_size} processes",
                where="training.batch_size",
                remedy="make it a multiple of training.devices",
            )
        self.sampler = Sampler(len(data), config.batch_size, seed, fabric.global_rank, fabric.world_size)
        self.data: PackedImages | ResidentImages = data
        self._fields = _fields_to_read(model, objective, data)
        if config.augment_flip:
            check_mirrorable(self._fields or data.fields)
        if fabric.device.type != "cpu" and config.keep_on_device and _fits(data, self._fields, fabric.device):
            self.data = data.resident(fabric.device, self._fields)
        self.shards: ShardedGradients | None = None
        if config.workers > 1 and fabric.device.type == "cpu":
            check_shardable(model)
            self.shards = ShardedGradients(config.workers)
        self.state, self.health = State(), Health()
        self._skipped_in_a_row = 0

    # -- one step ------------------------------------------------------------------------------------------------

    def batch(self, step: int) -> Batch:
        """The images of a step, on the device, mirrored as the step's seed says."""
        batch = self.data.batch(torch.from_numpy(self.sampler.indices(step)), self._fields)
        batch = replace(batch, draw=self.sampler.draws(step)).to(self.fabric.device)
        return mirror(batch, self.sampler.mirrored(step)) if self.config.augment_flip else batch

    def learning_rate(self, step: int) -> float:
        """Learning rate at a step: warm-up, then as the schedule says.

        ``cosine`` falls by half a cosine to zero at the last step; ``trapezoid`` stays constant and falls in a straight
        line over the last quarter.
        """
        rate = self.config.learning_rate
        if step < self.config.warmup_steps:
            return rate * (step + 1) / self.config.warmup_steps
        if self.config.schedule == "constant":
            return rate
        done = (step - self.config.warmup_steps) / max(self.steps - self.config.warmup_steps, 1)
        if self.config.schedule == "trapezoid":
            return rate * min(1.0, 4 * (1 - done))
        return rate * 0.5 * (1 + math.cos(math.pi * done))

    def settle_steps(self) -> None:
        """Find out how many steps fit into the minutes that the pipeline gives; nothing is trained."""
        assert self.config.minutes is not None
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        with torch.random.fork_rng(devices=[]):
            run = self.run if self.fabric.global_rank == 0 else None
            steps = try_steps(self._trial, self.config.minutes, run)
        self.steps = int(self.fabric.broadcast(steps))  # the first process decides
        for name, buffer in self.model.named_buffers():
            buffer.copy_(buffers[name])
        self.optimizer.zero_grad(set_to_none=True)

    def _trial(self) -> None:
        """A step without the optimiser's, which is small; the norm is asked for, since a GPU must have got there."""
        self._backward(self.forward, self.batch(0))
        gradient_norm(self.model)

    def output(self, batch: Batch) -> ModelOutput:
        """What the model makes of a batch, in the run's precision."""
        with blamed_part(self.model), self.fabric.autocast():
            found: ModelOutput = self.model(batch)
        return found

    def forward(self, batch: Batch, epoch: float = 0.0) -> tuple[ModelOutput, Losses]:
        """The model's output and the losses for a batch."""
        output = self.output(batch)
        return output, self.objective(output, epoch, batch=batch)

    def train_step(self, step: int) -> tuple[ModelOutput, Losses, Tensor]:
        """One update; it is left out if the loss or the gradient is not finite. Returns also the gradient's norm."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step) * min(1.0, (step + 1) / max(group["warmup"], 1))
        self.optimizer.zero_grad(set_to_none=True)
        epoch = self.sampler.epoch(step)
        output, losses = self._backward(lambda part: self.forward(part, epoch), self.batch(step))
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_gradient or math.inf)
        if not self._any(not bool(torch.isfinite(norm) & torch.isfinite(losses.total.detach()))):
            self.optimizer.step()
            self._skipped_in_a_row = 0
            self._update_average(step)
        else:
            self._skip(step)
        return output, losses, norm

    def _backward(self, forward: Forward, batch: Batch) -> tuple[ModelOutput, Losses]:
        """Set the gradients of a batch, on several threads if the pipeline says so; their mean over processes."""
        if self.shards is not None:
            output, losses = self.shards(forward, batch, self.parameters)
        else:
            output, losses = forward(batch)
            torch.autograd.backward(losses.total)
        if self.fabric.world_size > 1:
            # Every process runs the same graph, so the same parameters have gradients in each.
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            whole = torch.cat([gradient.flatten() for gradient in gradients])
            mean = torch.as_tensor(self.fabric.all_reduce(whole, reduce_op="mean"))
            for gradient, part in zip(gradients, torch.split(mean, [g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))
        return output, losses

    def _warm_start_loss(self, batch: Batch) -> tuple[ModelOutput, Losses]:
        with blamed_part(self.model), self.fabric.autocast():
            loss: Tensor = self.model.warm_start_loss(batch)  # type: ignore[operator]
        return ModelOutput(pairs={}, factors={}), Losses(loss, {})

    def _any(self, flag: bool) -> bool:
        """Whether the flag is set in any process: all have to take the same turn."""
        if self.fabric.world_size == 1:
            return flag
        total = self.fabric.all_reduce(torch.tensor(float(flag), device=self.fabric.device), reduce_op="sum")
        return bool(torch.as_tensor(total) > 0)

    def _skip(self, step: int) -> None:
        self.state.skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= PATIENCE:
            raise TrainingError(
                f"the loss or its gradient was not finite in {PATIENCE} steps in a row, up to step {step}",
                where=str(self.run),
                remedy="lower training.learning_rate, set training.clip_gradient, or look at the last health findings",
            )

    def _update_average(self, step: int) -> None:
        if self.average and self.config.ema:
            decay = min(self.config.ema, (1 + step) / (10 + step))
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)

    # -- the run -------------------------------------------------------------------------------------------------

    def warm_start(self, interrupted: Sequence[int] = ()) -> None:
        """What a model asks to be fitted before training starts (its ``warm_start_steps``), if anything.

        Raises Interrupted as soon as ``interrupted`` holds a signal: there is nothing to save yet.
        """
        count = int(getattr(self.model, "warm_start_steps", 0))
        if count == 0:
            return
        optimizer = torch.optim.Adam(
            self.parameters, lr=float(getattr(self.model, "warm_start_rate", 1e-3)), fused=True
        )
        with self.progress.task("convex start", count, "step") as task:
            for step in range(count):
                # Steps beyond the last keep these draws apart from those of training.
                optimizer.zero_grad(set_to_none=True)
                self._backward(self._warm_start_loss, self.batch(self.steps + step))
                optimizer.step()
                task.advance()
                if self._any(bool(interrupted)):
                    raise Interrupted(interrupted[0] if interrupted else signal.SIGTERM, 0)
        if self.average:
            self.average = [p.detach().clone() for p in self.parameters]

    def fit(self, validate: Callable[[int], None]) -> None:
        """Train from the current state to the last step.

        Args:
            validate: called with the step after every ``validate_every`` steps and at the end.

        Raises:
            Interrupted: Ctrl-C or SIGTERM came; a checkpoint was saved.
            TrainingError: the loss stayed non-finite; a checkpoint of the last finite weights was saved.
        """
        try:
            self._fit(validate)
        finally:
            if self.shards is not None:
                self.shards.close()

    def _fit(self, validate: Callable[[int], None]) -> None:
        config, state = self.config, self.state
        every = config.checkpoint_every or config.validate_every or self.steps
        with interruptible() as interrupted, self.progress.task("training", self.steps, "step") as task:
            if state.step == 0:
                self.warm_start(interrupted)
            task.advance(state.step)
            while state.step < self.steps:
                started = time.monotonic()
                try:
                    output, losses, norm = self.train_step(state.step)
                except TrainingError:
                    self.save()
                    raise
                state.step += 1
                if state.step % config.log_every == 0 or state.step == self.steps:
                    self._report(task, output, losses, norm)
                state.seconds += time.monotonic() - started
                task.advance()
                if state.step == self.steps or (config.validate_every and state.step % config.validate_every == 0):
                    with self.averaged():
                        validate(state.step)
                stop = self._any(bool(interrupted))
                if state.step == self.steps or state.step % every == 0 or stop:
                    self.save()
                if stop and state.step < self.steps:
                    raise Interrupted(interrupted[0] if interrupted else signal.SIGTERM, state.step)

    def _report(self, task: Task, output: ModelOutput, losses: Losses, norm: Tensor) -> None:
        """Write the log entry of a step and check the run's health."""
        spreads = {name: pair.spreads[0].detach() for name, pair in output.pairs.items() if pair.spreads}
        unused: frozenset[str] = getattr(self.model, "unused_encoders", frozenset())
        gradients = {name: gradient_norm(part) for name, part in named_parts(self.model) if name not in unused}
        skipped, settled = self.state.skipped - self._reported, self.state.step >= max(self.steps / 2, SETTLED)
        findings, new = self.health.check(output.diagnostics, spreads, gradients, skipped, settled=settled)
        self._reported = self.state.skipped
        self.state.findings = list(self.health.seen)
        total = float(losses.total.detach())
        task.describe(f"training, loss {total:.3f}")
        if self.fabric.global_rank != 0:
            return
        values: dict[str, Any] = {
            "loss": total,
            **{f"loss.{name}": float(value) for name, value in losses.terms.items()},
            "gradient_norm": float(norm),
            "learning_rate": self.optimizer.param_groups[-1]["lr"],
            "epoch": self.sampler.epoch(self.state.step),
            "seconds": self.state.seconds,
        }
        if "coverage" in output.diagnostics:
            values["coverage"] = float(output.diagnostics["coverage"].mean())
        self.log.write("train", self.state.step, values)
        if findings:
            self.log.write("health", self.state.step, {"findings": [f.model_dump() for f in findings]})
        for finding in new:
            self._warn(finding)

    _reported = 0

    def _warn(self, finding: Finding) -> None:
        self.progress.warn(f"step {self.state.step}: {finding.message}. Remedy: {finding.remedy}")

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model as it is used: in evaluation mode, and with its averaged weights if an average is kept."""
        kept = [p.detach().clone() for p in self.parameters] if self.average else []
        if self.average:
            _assign(self.parameters, self.average)
        self.model.eval()
        try:
            yield
        finally:
            self.model.train()
            if kept:
                _assign(self.parameters, kept)

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint of the current state, by the first process."""
        if self.fabric.global_rank == 0:
            tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
            tensors |= {f"optimizer.{k}": v for k, v in files.optimizer_tensors(self.optimizer).items()}
            tensors["random.torch"] = torch.get_rng_state()
            if self.average:
                with self.averaged():
                    tensors |= {f"average.{k}": v.clone() for k, v in self.model.state_dict().items()}
            saved = files.Checkpoint(self.state.step, self.pipeline, self.fingerprint, tensors, vars(self.state))
            files.save_checkpoint(files.checkpoint_path(self.run, self.state.step), saved)
            files.prune(self.run)
        self.fabric.barrier()

    def restore(self, saved: files.Checkpoint) -> None:
        """Continue from a checkpoint of the same pipeline."""
        source = str(files.checkpoint_path(self.run, saved.step))
        files.load_weights(self.model, saved.part("model"), source)
        files.restore_optimizer(self.optimizer, saved.part("optimizer"), source)
        if self.average:
            kept = {k: v.clone() for k, v in self.model.state_dict().items()}
            files.load_weights(self.model, saved.part("average"), source)
            self.average = [p.detach().clone() for p in self.parameters]
            files.load_weights(self.model, kept, source)
        files.restore_random(saved.tensors.get("random.torch"), source)
        files.check_extra(saved.extra, {"step": int, "seconds": float, "skipped": int, "findings": list}, source)
        self.state = State(**saved.extra | {"step": saved.step})
        self.health = Health(seen=list(self.state.findings))
        self._reported = self.state.skipped


def _assign(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    with torch.no_grad():
        torch._foreach_copy_([*parameters], values)


def _fields_to_read(model: nn.Module, objective: Objective, data: PackedImages) -> Collection[str] | None:
    """The fields of the data that the model and the losses read; None for all."""
    missing = {f"losses.{t.name}": sorted(t.batch_fields - data.fields.keys()) for t in objective.terms}
    for where, fields in missing.items():
        if fields:
            raise ReconError(
                f"the loss needs {' and '.join(fields)} of every image, which the data set does not have",
                where=where,
                remedy=f"choose a data set with ground truth, or leave the term out: --set {where}=null",
            )
    own: Collection[str] | None = getattr(model, "batch_fields", None)
    return None if own is None else sorted({*own, *objective.batch_fields})


def _fits(data: PackedImages, fields: Collection[str] | None, device: torch.device) -> bool:
    return device.type == "cuda" and data.bytes_of(fields) < 0.5 * torch.cuda.mem_get_info(device)[0]
