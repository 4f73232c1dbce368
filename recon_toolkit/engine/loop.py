"""Collects what goes wrong in a training, and says each thing once."""

from __future__ import annotations

import copy
import math
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from recon_toolkit.assembly import MakeOptimizer
from recon_toolkit.config.schema import TrainingConfig
from recon_toolkit.data.fields import check_mirrorable, mirror
from recon_toolkit.data.packed import PackedImages, ResidentImages
from recon_toolkit.data.sampling import Sampler, mirrored, random_numbers, share_of
from recon_toolkit.engine import checkpoint as files
from recon_toolkit.engine.environment import try_steps
from recon_toolkit.engine.first_look import blamed_part
from recon_toolkit.engine.log import MetricsLog
from recon_toolkit.engine.step import (
    Begin,
    Gradienter,
    Gradients,
    begin_step,
    check_shardable,
    gradient_norm,
    make_optimizers,
    named_parts,
)
from recon_toolkit.errors import PluginError, ReconError, TrainingError
from recon_toolkit.losses import Objective
from recon_toolkit.models import Finding, Model, Step
from recon_toolkit.progress import QUIET, Progress, Task
from recon_toolkit.structures import Batch, Losses, ModelOutput
from recon_toolkit.threads import Interrupted, interruptible

#: Steps before which no run has shapes of its own.
SETTLED = 500


@dataclass
class Health:
    """Findings of a run; each is new once.

    Args:
        seen: names of findings reported so far, kept in checkpoints.
    """

    seen: list[str] = field(default_factory=list)

    def check(
        self, own: Sequence[Finding], gradient_norms: Mapping[str, float], skipped: int
    ) -> tuple[list[Finding], list[Finding]]:
        """All present findings, and those among them that are new.

        Args:
            own: the model's.
            gradient_norms: norm of the gradient per part of the model.
            skipped: steps left out since the last check because loss or gradient was not finite.
        """
        found: list[Finding] = []
        if skipped:
            message = f"{skipped} steps had a loss or gradient that is not finite, skipped"
            remedy = "lower training.learning_rate (the published one is 1e-4) or set training.clip_gradient"
            found.append(Finding(name="nan", message=message, remedy=remedy))
        found += own
        dead = [name for name, norm in gradient_norms.items() if norm == 0]
        if dead:
            message, remedy = f"no gradient reaches {', '.join(dead)}", "check the losses and the renderer"
            found.append(Finding(name="dead-gradients", message=message, remedy=remedy))
        new = [f for f in found if f.name not in self.seen]
        self.seen += [f.name for f in new]
        return found, new


#: Non-finite steps in a row after which training gives up.
PATIENCE = 20


@dataclass
class State:
    """Where a run stands; all of it goes into checkpoints."""

    step: int = 0
    seconds: float = 0.0
    skipped: int = 0  # steps left out because something was not finite
    findings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Update:
    """What one optimiser did in a step."""

    losses: Losses
    norm: Tensor  # of the gradient
    output: ModelOutput | None  # of the first shard


class Trainer:
    """Trains a model on a packed data set.

    Args:
        model: the model.
        objective: turns the model's output into a scalar.
        data: packed training images.
        sampler: which of them each step sees.
        optimizer: makes an optimiser of groups of parameters.
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
        model: Model,
        objective: Objective,
        data: PackedImages,
        sampler: Sampler,
        optimizer: MakeOptimizer,
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
        self.optimizers: dict[str, Optimizer] = make_optimizers(model, config, optimizer)
        self._trained = {
            name: [p for group in optimiser.param_groups for p in group["params"]]
            for name, optimiser in self.optimizers.items()
        }
        for term in objective.terms:
            if isinstance(term.component, nn.Module):
                term.component.to(fabric.device)
        self.average = [p.detach().clone() for p in self.parameters] if config.ema else []
        if config.batch_size % (fabric.world_size * model.group_size):
            groups = f" in groups of {model.group_size}" if model.group_size > 1 else ""
            raise ReconError(
                f"{config.batch_size} images cannot be shared equally{groups} by {fabric.world_size} processes",
                where="training.batch_size",
                remedy=f"make it a multiple of {fabric.world_size * model.group_size}",
            )
        self.seed, self.sampler = seed, sampler
        self.data: PackedImages | ResidentImages = data
        self._fields = _fields_to_read(model, objective, data)
        if config.augment_flip:
            check_mirrorable({name: data.fields[name] for name in self._fields or data.fields if name in data.fields})
        self._specs = data.fields
        if fabric.device.type != "cpu" and config.keep_on_device and _fits(data, self._fields, fabric.device):
            self.data = data.resident(fabric.device, self._fields)
        workers = config.workers if fabric.device.type == "cpu" else 1
        if workers > 1:
            check_shardable(model)
        self.gradients = Gradienter(workers, self._running)
        self.state, self.health = State(), Health()
        self._skipped_in_a_row = 0

    # -- one step ------------------------------------------------------------------------------------------------

    def batch(self, step: int) -> Batch:
        """The images of a step, on the device, mirrored as the step's seed says."""
        count, groups = self.config.batch_size, self.model.group_size

        def own(values: NDArray[Any]) -> Tensor:
            return torch.from_numpy(share_of(values, self.fabric.global_rank, self.fabric.world_size, groups))

        batch = self.data.batch(own(self.sampler.indices(step)), self._fields)
        batch = replace(batch, draw=own(random_numbers(self.seed, step, count))).to(self.fabric.device)
        if not self.config.augment_flip:
            return batch
        return mirror(batch, own(mirrored(self.seed, step, count, groups)), self._specs)

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
        model, objective = self.rehearsal()
        parameters = {
            name: [p for group in groups for p in group.parameters] for name, groups in model.optimizers().items()
        }

        def trial() -> None:
            """A step without the optimisers', which are small; the norm is asked for: a GPU must have got there."""
            begin = begin_step(model, 0, 0.0, lambda output, batch: objective(output, batch=batch))
            for _ in self.gradients(begin, self.batch(0), parameters, model.group_size):
                gradient_norm(model)

        with torch.random.fork_rng(devices=[]):
            run = self.run if self.fabric.global_rank == 0 else None
            steps = try_steps(trial, self.config.minutes, run)
        self.steps = int(self.fabric.broadcast(steps))  # the first process decides

    def rehearsal(self) -> tuple[Model, Objective]:
        """Copies of the model and the losses: what is tried with them leaves no trace in training."""
        return copy.deepcopy(self.model), self.objective.copy()

    @contextmanager
    def _running(self) -> Iterator[None]:
        """The model's code runs: in the run's precision, and who raises is named."""
        with blamed_part(self.model), self.fabric.autocast():
            yield

    def train_step(self, step: int) -> dict[str, Update]:
        """One training step: an update of every optimiser that the model's losses name, by name.

        An update is left out, and the step ends, where the loss or the gradient is not finite.
        """
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                warmed = min(1.0, (step + 1) / max(group["warmup"], 1))
                group["lr"] = self.learning_rate(step) * group["rate"] * warmed
        epoch = self.sampler.epoch(step)
        begin = begin_step(
            self.model, step, epoch, lambda output, batch: self.objective(output, epoch, batch=batch, plain=True)
        )
        updates: dict[str, Update] = {}
        for found in self._gradients(begin, self.batch(step), self._trained):
            trained = self._trained[found.optimizer]
            norm = nn.utils.clip_grad_norm_(trained, self.config.clip_gradient or math.inf)
            updates[found.optimizer] = Update(found.losses, norm, found.output)
            if self._any(not bool(torch.isfinite(norm) & torch.isfinite(found.losses.total.detach()))):
                self._skip(step)
                return updates
            self.optimizers[found.optimizer].step()
        if not updates:
            raise PluginError("the model's training_step yields no loss", remedy="yield one for each optimiser")
        self._skipped_in_a_row = 0
        self._update_average(step)
        return updates

    def _gradients(
        self, begin: Begin, batch: Batch, parameters: Mapping[str, Sequence[nn.Parameter]]
    ) -> Iterator[Gradients]:
        """The gradients of a step's losses, one after another; each their mean over processes."""
        for found in self.gradients(begin, batch, parameters, self.model.group_size):
            if self.fabric.world_size > 1:
                # Every process runs the same graph, so the same parameters have gradients in each.
                gradients = [p.grad for p in parameters[found.optimizer] if p.grad is not None]
                whole = torch.cat([gradient.flatten() for gradient in gradients])
                mean = torch.as_tensor(self.fabric.all_reduce(whole, reduce_op="mean"))
                for gradient, part in zip(gradients, torch.split(mean, [g.numel() for g in gradients]), strict=True):
                    gradient.copy_(part.view_as(gradient))
            yield found

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
        model, name = self.model, self.model.warm_start_name
        if model.warm_start_steps == 0:
            return

        def begin(batch: Batch) -> tuple[Iterator[tuple[str, Losses]], Step]:
            losses = ((name, Losses(model.warm_start_loss(batch))) for _ in range(1))
            return losses, Step(0, 0.0, lambda output, batch: self.objective(output, batch=batch))

        optimizer = torch.optim.Adam(self.parameters, lr=model.warm_start_rate, fused=True)
        with self.progress.task(name, model.warm_start_steps, "step") as task:
            for step in range(model.warm_start_steps):
                # Steps beyond the last keep these draws apart from those of training.
                for _ in self._gradients(begin, self.batch(self.steps + step), {name: self.parameters}):
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
            self.gradients.close()

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
                    updates = self.train_step(state.step)
                except TrainingError:
                    self.save()
                    raise
                state.step += 1
                if state.step % config.log_every == 0 or state.step == self.steps:
                    self._report(task, updates)
                state.seconds += time.monotonic() - started
                task.advance()
                if state.step == self.steps or (config.validate_every and state.step % config.validate_every == 0):
                    try:
                        with self.averaged():
                            validate(state.step)
                    except Exception:  # a plugin's metric, say: what was trained is kept
                        self.save()
                        raise
                stop = self._any(bool(interrupted))
                if state.step == self.steps or state.step % every == 0 or stop:
                    self.save()
                if stop and state.step < self.steps:
                    raise Interrupted(interrupted[0] if interrupted else signal.SIGTERM, state.step)

    def _report(self, task: Task, updates: Mapping[str, Update]) -> None:
        """Write the log entry of a step and check the run's health."""
        outputs = [update.output for update in updates.values() if update.output is not None]
        output = outputs[0] if outputs else ModelOutput(pairs={}, factors={})
        unused = self.model.unused_encoders
        gradients = {name: gradient_norm(part) for name, part in named_parts(self.model) if name not in unused}
        skipped, settled = self.state.skipped - self._reported, self.state.step >= max(self.steps / 2, SETTLED)
        with torch.no_grad():
            own = self.model.health(output, settled=settled)
        findings, new = self.health.check(own, gradients, skipped)
        self._reported = self.state.skipped
        self.state.findings = list(self.health.seen)
        totals = {name: float(update.losses.total.detach()) for name, update in updates.items()}
        first = next(iter(totals))
        others = "".join(f", {name} {value:.3f}" for name, value in totals.items() if name != first)
        task.describe(f"training, loss {totals[first]:.3f}{others}")
        if self.fabric.global_rank != 0:
            return
        values: dict[str, Any] = {
            "loss": totals[first],
            **{f"loss.{name}": value for name, value in totals.items() if name != first},
            **{f"loss.{name}": float(value) for u in updates.values() for name, value in u.losses.terms.items()},
            "gradient_norm": float(updates[first].norm),
            "learning_rate": self.optimizers[first].param_groups[-1]["lr"],
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
            for name, optimizer in self.optimizers.items():
                tensors |= {f"{_stored(name)}.{k}": v for k, v in files.optimizer_tensors(optimizer).items()}
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
        for name, optimizer in self.optimizers.items():
            files.restore_optimizer(optimizer, saved.part(_stored(name)), source)
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


def _stored(name: str) -> str:
    """What a checkpoint calls an optimiser."""
    return "optimizer" if name == "main" else f"optimizer:{name}"


def _assign(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    with torch.no_grad():
        torch._foreach_copy_([*parameters], values)


def _fields_to_read(model: Model, objective: Objective, data: PackedImages) -> Collection[str] | None:
    """The fields of the data that the model and the losses read; None for all."""
    missing = {f"losses.{t.name}": sorted(t.batch_fields - data.fields.keys()) for t in objective.terms}
    for where, fields in missing.items():
        if fields:
            raise ReconError(
                f"the loss needs {' and '.join(fields)} of every image, which the data set does not have",
                where=where,
                remedy=f"choose a data set with ground truth, or leave the term out: --set {where}=null",
            )
    own = model.batch_fields
    return None if own is None else sorted({*own, *objective.batch_fields})


def _fits(data: PackedImages, fields: Collection[str] | None, device: torch.device) -> bool:
    return device.type == "cuda" and data.bytes_of(fields) < 0.5 * torch.cuda.mem_get_info(device)[0]
