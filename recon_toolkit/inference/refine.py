"""Adapting a trained model to the pictures at hand, by its own unsupervised losses."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from recon_toolkit.assembly import build_losses
from recon_toolkit.errors import ReconError
from recon_toolkit.inference.folder import RefinementGain
from recon_toolkit.inference.models import TrainedModel
from recon_toolkit.losses import Objective
from recon_toolkit.progress import QUIET, Progress
from recon_toolkit.structures import Batch

#: A quarter of the steps' learning rate in quick training: the shape is to move, not to be learned anew.
LEARNING_RATE = 3e-4
BATCH_SIZE = 16
#: How often the loss is looked at, to keep the best state, and on how many images at most, spread over all of them.
CHECKS, JUDGED = 5, 64
#: Views that turn the object out of the picture lower the loss too, which is no gain.
_LEAST_COVERAGE = 0.85
#: Training is over: weights that only its first epochs have do not count.
_EPOCH = math.inf


@dataclass(frozen=True)
class _State:
    """Where the model stands: its loss on the pictures, how much of them it covers, and its weights."""

    loss: float
    coverage: float
    weights: dict[str, Tensor]


def objective_of(trained: TrainedModel) -> Objective:
    """The losses that a model is refined with: those of its pipeline that need no ground truth.

    Raises:
        ReconError: the model or all its losses need ground truth, or a loss cannot be built.
    """
    terms = [term for term in build_losses(trained.resolved) if term.batch_fields <= {"image"}]
    needs = {*(trained.network.batch_fields or ("image",))} - {"image"}
    if needs or not terms:
        raise ReconError(
            f"{'it takes' if needs else 'all its losses compare with'} ground truth",
            where=trained.source,
            remedy="refine a model that was trained without",
        )
    return Objective(terms)


def refined(
    trained: TrainedModel,
    images: Tensor,
    steps: int,
    *,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    progress: Progress = QUIET,
) -> tuple[TrainedModel, RefinementGain]:
    """A copy of the model, trained for some steps on these pictures by its pipeline's losses.

    No ground truth is used. The state with the lowest loss on the pictures is kept; that may be the first one. A state
    that covers less of the pictures than 0.85 of what the model did is not taken: turning the object away lowers the
    loss without being right.

    Args:
        trained: the model; it is not changed.
        images: (N, 3, H, W) in [0, 1], H = W = the model's size.
        steps: 1 or more; each sees at most 16 of the pictures, mirrored at random.
        learning_rate: Adam's.
        seed: of the order of pictures and of mirroring.
        progress: where to show progress.

    Raises:
        ReconError: the pipeline's losses or its model need ground truth, or there is nothing to refine on.
    """
    if steps < 1 or not len(images):
        raise ReconError("refining takes 1 or more steps and 1 or more pictures", remedy="give both")
    objective = objective_of(trained)
    network = copy.deepcopy(trained.network)
    for term in objective.terms:
        if isinstance(term.component, nn.Module):
            term.component.to(trained.device)
    generator = torch.Generator().manual_seed(seed)
    judged = images[torch.linspace(0, len(images) - 1, min(len(images), JUDGED)).round().long()].to(trained.device)
    network.train()
    with torch.no_grad():
        objective.check(network(_batch(judged[:1])))
    first = _state(network, objective, judged)
    best, last = first, first
    config = trained.resolved.pipeline.training
    optimizer = _Adam([p for p in network.parameters() if p.requires_grad], learning_rate)
    every = max(1, math.ceil(steps / CHECKS))
    with progress.task("refining", steps, "step") as task:
        for step in range(1, steps + 1):
            network.zero_grad(set_to_none=True)
            batch = _batch(_draw(images, generator).to(trained.device))
            loss = objective(network(batch), _EPOCH, batch=batch).total
            if not bool(loss.isfinite()):
                break
            loss.backward()  # type: ignore[no-untyped-call]
            if config.clip_gradient is not None:
                torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_gradient)
            optimizer.step()
            task.advance()
            if step % every == 0 or step == steps:
                last = _state(network, objective, judged)
                task.describe(f"refining, loss {last.loss:.3f}")
                if last.loss < best.loss and last.coverage >= _LEAST_COVERAGE * first.coverage:
                    best = last
    network.load_state_dict(best.weights)
    network.eval()
    gain = RefinementGain(steps=steps, loss_before=first.loss, loss_after=best.loss, kept=best is not first)
    return replace(trained, network=network, source=f"{trained.source}, refined"), gain


class _Adam:
    """torch's Adam by its function: the class imports torch's compiler, which takes longer than some steps do."""

    def __init__(self, parameters: list[nn.Parameter], learning_rate: float) -> None:
        self.parameters, self.learning_rate = parameters, learning_rate
        self.means = [torch.zeros_like(p) for p in parameters]
        self.squares = [torch.zeros_like(p) for p in parameters]
        self.steps = [torch.zeros(()) for _ in parameters]

    @torch.no_grad()
    def step(self) -> None:
        used = [i for i, p in enumerate(self.parameters) if p.grad is not None]
        adam(
            [self.parameters[i] for i in used],
            [self.parameters[i].grad for i in used],  # type: ignore[misc]
            [self.means[i] for i in used],
            [self.squares[i] for i in used],
            [],
            [self.steps[i] for i in used],
            foreach=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )


def _draw(images: Tensor, generator: torch.Generator) -> Tensor:
    """Up to :data:`BATCH_SIZE` pictures, each mirrored or not."""
    count = min(len(images), BATCH_SIZE)
    chosen = images[torch.randperm(len(images), generator=generator)[:count]]
    mirrored = torch.rand(count, generator=generator) < 0.5
    return torch.where(mirrored[:, None, None, None], chosen.flip(-1), chosen)


def _batch(images: Tensor) -> Batch:
    return Batch(image=images, index=torch.arange(len(images), device=images.device))


def _state(network: nn.Module, objective: Objective, images: Tensor) -> _State:
    """Loss and coverage over all pictures, mirrored ones too, so that no draw decides."""
    losses, coverage = [], []
    with torch.no_grad():
        for chunk in torch.split(torch.cat((images, images.flip(-1))), BATCH_SIZE):
            batch = _batch(chunk)
            output = network(batch)
            losses.append(float(objective(output, _EPOCH, batch=batch).total) * len(chunk))
            covered = output.diagnostics.get("coverage")
            coverage.append(len(chunk) * (1.0 if covered is None else float(covered.mean())))
    total = 2 * len(images)
    return _State(
        sum(losses) / total, sum(coverage) / total, {k: v.detach().clone() for k, v in network.state_dict().items()}
    )
