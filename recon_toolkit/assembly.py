"""Building the parts of a resolved pipeline: the only place where components meet."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from recon_toolkit.components import blamed
from recon_toolkit.config.pipeline import ResolvedComponent, ResolvedPipeline
from recon_toolkit.config.schema import LossTermConfig, TrainingConfig
from recon_toolkit.config.signatures import check_contract, loss_arguments
from recon_toolkit.data.packed import PackedImages
from recon_toolkit.data.sampling import Sampler, default_sampler
from recon_toolkit.errors import ConfigError, PluginError, ReconError
from recon_toolkit.geometry.camera import Camera
from recon_toolkit.models import Model

#: Groups of parameters, as torch's optimisers take them, → an optimiser.
MakeOptimizer = Callable[[list[dict[str, Any]]], Optimizer]

Takes = Literal["pair", "output", "output and batch"]


@dataclass(frozen=True)
class LossTerm:
    """A loss component with its options set, and what the core does with its result.

    Args:
        name: the term's name in the pipeline.
        component: callable (prediction, target) → residual map, or (output) or (output, batch) → map or scalar.
        takes: whether it takes an image pair, the model's whole output, or that and the batch.
        batch_fields: fields of the batch that it reads, which training then asks of the data set.
        weight, likelihood, of, mask, start_weight, start_epochs: see
            :class:`~recon_toolkit.config.schema.LossTermConfig`.
    """

    name: str
    component: Callable[..., Any]
    takes: Takes
    weight: float
    likelihood: Literal["none", "laplace", "gaussian"]
    of: str
    mask: bool
    start_weight: float | None
    start_epochs: float
    batch_fields: frozenset[str] = frozenset()


def build_dataset(resolved: ResolvedPipeline) -> Any:
    """The data set: an object with ``splits`` and ``open(split, size, context)``.

    Raises:
        PluginError: it cannot be built, or does not say which splits it has.
        ReconError: it says by an attribute ``fov`` that its images have another field of view than the pipeline's.
    """
    part = resolved.components["dataset",]
    dataset = part.build()
    with blamed(part.who):
        splits, fov = getattr(dataset, "splits", None), getattr(dataset, "fov", None)
    if isinstance(splits, str) or not isinstance(splits, Iterable) or not all(isinstance(x, str) for x in splits):
        raise PluginError(
            f"{part.who} has no attribute 'splits' that lists the names of its splits",
            where=part.where,
            remedy="add it, e.g. splits = ('train', 'val', 'test')",
        )
    camera = resolved.pipeline.camera.fov
    if fov is not None and fov != camera:
        raise ReconError(
            f"the images have a field of view of {fov}°, the pipeline's camera one of {camera}°",
            where=part.where,
            remedy="depth would be wrong by a scale; make dataset.fov and camera.fov equal",
        )
    return dataset


def build_renderer(resolved: ResolvedPipeline) -> Any | None:
    """The renderer: callable (canonical depth, canonical image, view) → Rendering. None if the pipeline has none.

    Its depth range is what the model says (``canonical_depths``).
    """
    part = resolved.components.get(("renderer",))
    return part.build(camera=_camera(resolved), depth_range=_depth_range(resolved)) if part else None


def build_encoders(resolved: ResolvedPipeline) -> dict[str, nn.Module]:
    """The networks by role, with the channels that the model asks for.

    Raises:
        PluginError: one cannot be built, or is no ``nn.Module``.
    """
    encoders: dict[str, nn.Module] = {}
    for role, part in resolved.section("encoders").items():
        inwards, outwards = resolved.encoder_shapes[role]
        network = part.build(in_channels=inwards, out_channels=outwards, image_size=resolved.pipeline.image_size)
        encoders[role] = _module(network, part)
    return encoders


def build_model(resolved: ResolvedPipeline) -> Model:
    """The model with its encoders and renderer, on the CPU.

    Weights are drawn from a generator seeded with the pipeline's ``seed``; torch's global one is left as it was.

    Raises:
        ConfigError: it is a stranger's, and names files that would be read.
        PluginError: a part cannot be built.
    """
    part = resolved.components["model",]
    resolved.refuse_foreign_files("model", "encoders", "renderer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(resolved.pipeline.seed)
        model = part.build(
            encoders=build_encoders(resolved),
            renderer=build_renderer(resolved),
            camera=_camera(resolved),
            image_size=resolved.pipeline.image_size,
        )
    if not isinstance(model, Model):
        raise PluginError(
            f"{part.who} is a {type(model).__name__}", where=part.where, remedy="derive it from recon_toolkit.Model"
        )
    return model


def adam(config: TrainingConfig) -> MakeOptimizer:
    """The optimiser of a pipeline that names none: Adam with the settings under ``training``."""
    return lambda groups: torch.optim.Adam(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def build_optimizer(resolved: ResolvedPipeline) -> MakeOptimizer:
    """What makes an optimiser of groups of parameters: the pipeline's component, or :func:`adam`."""
    part = resolved.components.get(("optimizer",))
    if part is None:
        return adam(resolved.pipeline.training)

    def make(parameters: list[dict[str, Any]]) -> Optimizer:
        built = part.build(parameters=parameters, learning_rate=resolved.pipeline.training.learning_rate)
        if not isinstance(built, Optimizer):
            raise PluginError(
                f"{part.who} made a {type(built).__name__}", where=part.where, remedy="return a torch.optim.Optimizer"
            )
        return built

    return make


def build_sampler(resolved: ResolvedPipeline, data: PackedImages, group_size: int) -> Sampler:
    """Which images each training step sees: the pipeline's sampler, or the default.

    Args:
        resolved: the pipeline.
        data: what is sampled.
        group_size: the model's.
    """
    pipeline, part = resolved.pipeline, resolved.components.get(("sampler",))
    size = pipeline.training.batch_size
    if part is None:
        return default_sampler(data, size, group_size, pipeline.seed)
    built: Sampler = part.build(data=data, batch_size=size, group_size=group_size, seed=pipeline.seed)
    with blamed(part.who):
        indices = built.indices(0)
    if not isinstance(indices, np.ndarray) or indices.shape != (size,) or indices.dtype != np.int64:
        raise PluginError(
            f"{part.who} gave no array ({size},) of int64 for a step",
            where=part.where,
            remedy="return one from indices()",
        )
    return built


def build_losses(resolved: ResolvedPipeline) -> list[LossTerm]:
    """The loss terms in the pipeline's order.

    Each component is built once for its term; terms of one class with ``prepare`` and equal options share it.

    Raises:
        ConfigError: some cannot be built; all of them are named. Or the pipeline is a stranger's, and names files that
            would be read.
    """
    resolved.refuse_foreign_files("losses")
    terms: list[LossTerm] = []
    problems: dict[str, ReconError] = {}  # two terms may lack the same file
    shared: dict[str, Any] = {}
    for name, part in resolved.section("losses").items():
        try:
            component = _loss_component(part, shared)
            terms.append(_loss_term(name, part, component, resolved.pipeline.losses[name]))
        except ReconError as error:
            problems[str(error)] = error
    if problems:
        raise ConfigError(list(problems.values()))
    return terms


def _loss_component(part: ResolvedComponent, shared: dict[str, Any]) -> Callable[..., Any]:
    # A function's other arguments come with each call; a class gets its options now.
    if not inspect.isclass(part.target):
        return partial(part.target, **part.options)
    if not hasattr(part.target, "prepare"):
        return part.build()  # type: ignore[no-any-return]
    key = f"{part.entry.provider}:{part.entry.name} {sorted(part.options.items())}"
    if key not in shared:
        shared[key] = part.build()
    return shared[key]  # type: ignore[no-any-return]


def _loss_term(name: str, part: ResolvedComponent, component: Callable[..., Any], term: LossTermConfig) -> LossTerm:
    return LossTerm(
        name=name,
        component=component,
        takes=_takes(part),
        weight=term.weight,
        likelihood=term.likelihood,
        of=term.of,
        mask=term.mask,
        start_weight=term.start_weight,
        start_epochs=term.start_epochs,
        # Of a class the built one, whose options may decide.
        batch_fields=frozenset(getattr(component, "batch_fields", getattr(part.target, "batch_fields", ()))),
    )


def _takes(part: ResolvedComponent) -> Takes:
    """What a loss looks at; two positional arguments of any other name are an image pair."""
    positional = loss_arguments(part.target)
    if positional == ["output"]:
        return "output"
    if positional == ["output", "batch"]:
        return "output and batch"
    if len(positional) == 2:
        return "pair"
    raise PluginError(
        f"loss '{part.entry.name}' of plugin '{part.entry.provider}' takes ({', '.join(positional)})",
        where=part.where,
        remedy="a loss takes (prediction, target), (output) or (output, batch)",
    )


def check_parts(resolved: ResolvedPipeline) -> None:
    """Check that every component is what its kind asks for, before anything is built or made.

    Raises:
        ConfigError: some are not; all of them are named with their plugins.
    """
    problems = []
    for part in resolved.components.values():
        try:
            check_contract(part.entry)
        except PluginError as error:
            problems.append(PluginError(error.message, where=part.where, remedy=error.remedy))
    if problems:
        raise ConfigError(problems)


def _module(value: Any, part: ResolvedComponent) -> nn.Module:
    if isinstance(value, nn.Module):
        return value
    raise PluginError(
        f"{part.entry.kind} '{part.entry.name}' of plugin '{part.entry.provider}' is a {type(value).__name__}",
        where=part.where,
        remedy="make it a torch.nn.Module",
    )


def _camera(resolved: ResolvedPipeline) -> Camera:
    return Camera(fov=resolved.pipeline.camera.fov)


def _depth_range(resolved: ResolvedPipeline) -> tuple[float, float]:
    part = resolved.components["model",]
    if not inspect.isclass(part.target) or not issubclass(part.target, Model):
        return Model.canonical_depths()
    with blamed(part.who):
        low, high = part.target.canonical_depths(**part.options)
    return float(low), float(high)
