"""From residuals to one scalar: mask, likelihood, mean and weight, the same for every loss component."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from recon_toolkit.assembly import LossTerm
from recon_toolkit.components import blamed
from recon_toolkit.errors import ConfigError, ReconError
from recon_toolkit.structures import Batch, ImagePair, Losses, ModelOutput

Likelihood = Literal["none", "laplace", "gaussian"]
#: Keeps a sigma of zero harmless (Wu et al. 2020, code).
EPSILON = 1e-7


def negative_log_likelihood(residual: Tensor, sigma: Tensor | None, likelihood: Likelihood) -> Tensor:
    """A residual weighed by how unsure the model is of it, without the constants.

    ``laplace``: √2 · r / (σ + ε) + ln (σ + ε) (Wu et al. 2020, Eq. 3); ``gaussian``: r / (2 σ² + ε) + ln (σ + ε) for a
    squared residual (Eq. 7); ``none``: the residual itself.

    Args:
        residual: (B, C, h, w) ≥ 0.
        sigma: σ (B, 1, h, w) > 0; not needed for ``none``.
        likelihood: which.
    """
    if likelihood == "none":
        return residual
    if sigma is None:
        raise ValueError(f"a {likelihood} likelihood needs a sigma")
    if likelihood == "laplace":
        return math.sqrt(2) * residual / (sigma + EPSILON) + (sigma + EPSILON).log()
    return residual / (2 * sigma.square() + EPSILON) + (sigma + EPSILON).log()


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of values (B, C, h, w) over a mask (B, H, W), average-pooled to their size; 0 for an empty mask."""
    if mask is None:
        return values.mean()
    weights = mask[:, None]
    if weights.shape[-2:] != values.shape[-2:]:
        weights = F.adaptive_avg_pool2d(weights, (values.shape[-2], values.shape[-1]))
    return (values * weights).sum() / (weights.sum() * values.shape[1]).clamp(min=EPSILON)


def sigma_for(pair: ImagePair, height: int, width: int) -> Tensor | None:
    """The pair's confidence map at a residual's size: the one predicted at that size, else the finest one resized."""
    for sigma in pair.spreads:
        if sigma.shape[-2:] == (height, width):
            return sigma
    if not pair.spreads:
        return None
    return F.interpolate(pair.spreads[0], (height, width), mode="bilinear", align_corners=True)


class Objective:
    """The weighted sum of a pipeline's loss terms.

    Args:
        terms: what the pipeline lists under ``losses``.
        autocast: returns the context in which components compute their residuals (networks inside losses).
    """

    def __init__(
        self, terms: Sequence[LossTerm], autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    ) -> None:
        self.terms, self.autocast = list(terms), autocast

    def weight(self, term: LossTerm, epoch: float) -> float:
        """A term's weight in an epoch: its start weight for the first ``start_epochs``, if it has one."""
        if term.start_weight is not None and epoch < term.start_epochs:
            return term.start_weight
        return term.weight

    def check(self, output: ModelOutput) -> None:
        """Raise ConfigError if a term does not fit the model's output, naming all that do not."""
        problems = []
        for term in self.terms:
            where = f"losses.{term.name}"
            if term.takes != "pair":
                if term.likelihood != "none":
                    problems.append(
                        _problem(where, "a term on the model's output has no likelihood", "likelihood: none")
                    )
            elif term.of not in output.pairs:
                known = ", ".join(sorted(output.pairs))
                problems.append(_problem(where, f"the model gives no image pair '{term.of}'", f"of: one of {known}"))
            elif term.likelihood != "none" and not output.pairs[term.of].spreads:
                message = f"likelihood {term.likelihood} needs confidence maps, which the model does not predict"
                problems.append(_problem(where, message, "add a confidence encoder, or set likelihood: none"))
        if problems:
            raise ConfigError(problems)

    @property
    def batch_fields(self) -> frozenset[str]:
        """Fields of the batch that some term reads."""
        return frozenset().union(*(term.batch_fields for term in self.terms))

    def copy(self) -> Objective:
        """The same with copies of the components, which may keep something of what they are called with."""
        terms = [replace(term, component=copy.deepcopy(term.component)) for term in self.terms]
        return Objective(terms, self.autocast)

    def __call__(
        self, output: ModelOutput, epoch: float = 0.0, *, batch: Batch | None = None, plain: bool = False
    ) -> Losses:
        """Evaluate all terms on a model's output; terms of weight 0 are evaluated for the log, without gradients.

        Args:
            output: the model's.
            epoch: for weights that change.
            batch: what the output was made of, for terms that compare with its ground truth.
            plain: the caller has autocast on; only components are to have it.
        """
        if plain:
            with torch.autocast(next(iter(_tensors(output))).device.type, enabled=False):
                return self(output, epoch, batch=batch)
        values: dict[str, Tensor] = {}
        total: Tensor | None = None
        prepared: dict[tuple[int, int], Any] = {}
        for term in self.terms:
            weight = self.weight(term, epoch)
            with torch.set_grad_enabled(weight != 0 and torch.is_grad_enabled()):
                value = self._evaluate(term, output, batch, prepared)
            values[term.name] = value.detach()
            if weight != 0:
                total = value * weight if total is None else total + value * weight
        if total is None:
            raise _problem("losses", "every term has weight 0", "give at least one a weight")
        return Losses(total, values)

    def _evaluate(
        self, term: LossTerm, output: ModelOutput, batch: Batch | None, prepared: dict[tuple[int, int], Any]
    ) -> Tensor:
        if term.takes != "pair":
            arguments = (output,) if term.takes == "output" else (output, batch)
            with self.autocast(), blamed(f"the loss of losses.{term.name}"):
                value: Tensor = term.component(*arguments)
            if not isinstance(value, Tensor) or value.is_complex():
                raise _problem(
                    f"losses.{term.name}",
                    f"the loss returned {type(value).__name__}; a tensor was expected",
                    "return one",
                )
            return value.float().mean()
        pair = output.pairs[term.of]
        with self.autocast(), blamed(f"the loss of losses.{term.name}"):
            residual = self._residual(term.component, pair, prepared)
        self._check_residual(term, residual, pair)
        residual = residual.float()
        sigma = None if term.likelihood == "none" else sigma_for(pair, *residual.shape[-2:])
        return masked_mean(negative_log_likelihood(residual, sigma, term.likelihood), pair.mask if term.mask else None)

    @staticmethod
    def _residual(component: Any, pair: ImagePair, prepared: dict[tuple[int, int], Any]) -> Tensor:
        """The residual of a pair; what depends on the target alone is computed once for all terms that share it."""
        if not hasattr(component, "prepare"):
            return component(pair.prediction, pair.target)  # type: ignore[no-any-return]
        key = (id(component), id(pair.target))
        if key not in prepared:
            with torch.no_grad():
                prepared[key] = component.prepare(pair.target)
        return component.compare(pair.prediction, prepared[key])  # type: ignore[no-any-return]

    @staticmethod
    def _check_residual(term: LossTerm, residual: object, pair: ImagePair) -> None:
        if isinstance(residual, Tensor) and residual.ndim == 4 and len(residual) == len(pair.target):
            return
        found = tuple(residual.shape) if isinstance(residual, Tensor) else type(residual).__name__
        message = f"the loss returned {found}; a residual map (B, C, h, w) with B = {len(pair.target)} was expected"
        raise _problem(f"losses.{term.name}", message, "return it per pixel; the core takes the mean")


def _tensors(output: ModelOutput) -> Iterator[Tensor]:
    for pair in output.pairs.values():
        yield pair.prediction
    yield from output.factors.values()


def _problem(where: str, message: str, remedy: str) -> ReconError:
    return ReconError(message, where=where, remedy=remedy)
