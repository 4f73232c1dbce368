"""The contract of a model: what training, scoring and inference ask of a method."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from recon_toolkit.models.health import Finding
from recon_toolkit.structures import Batch, ImagePair, Losses, ModelOutput, Reconstruction

if TYPE_CHECKING:
    from recon_toolkit.data.packed import PackedImages
    from recon_toolkit.detection import Detector
    from recon_toolkit.metrics.metric import MetricSet, Scorer


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are trained alike.

    Args:
        parameters: each belongs to one group of one optimiser; those of no group are not trained.
        rate: factor on ``training.learning_rate``.
        warmup: steps over which the rate rises to its value, besides the pipeline's own warm-up.
        weight_decay: in place of ``training.weight_decay``.
    """

    parameters: Sequence[nn.Parameter]
    rate: float = 1.0
    warmup: int = 0
    weight_decay: float | None = None


@dataclass
class Step:
    """What a model is told of the training step that it takes part in.

    Attributes:
        number: of the step, from 0.
        epoch: epochs seen before it.
        pipeline_losses: evaluates the pipeline's loss terms; use :meth:`losses`.
        output: the last output that :meth:`losses` was given, for the health report.
    """

    number: int
    epoch: float
    pipeline_losses: Callable[[ModelOutput, Batch], Losses]
    output: ModelOutput | None = field(default=None, init=False)

    def losses(self, output: ModelOutput, batch: Batch) -> Losses:
        """The weighted sum of the terms under ``losses`` in the pipeline, and each term by itself."""
        self.output = output
        return self.pipeline_losses(output, batch)


class Model(nn.Module):
    """A method: what it learns from a batch, and what it makes of images.

    A subclass is a component of the kind ``model`` and is built as ``Model(encoders=, renderer=, camera=, image_size=,
    **options)``, of which its ``__init__`` takes what it needs; its other keyword arguments are its options. Most
    methods define :meth:`forward` and :meth:`reconstruct` and leave the rest as it is. A method with several
    optimisers, such as an adversarial one, defines :meth:`optimizers` and :meth:`training_step`.

    Training may run shards of a batch on several threads, each with a ``training_step`` of its own, and looks ahead
    (memory, wrong shapes, length of a step) on a copy of the model.
    """

    #: Fields of a batch that training reads; None for all that the data set has. A loss adds those that it reads.
    batch_fields: Collection[str] | None = None
    #: Images that belong together in every batch, one after another: what a sampler draws from one group.
    group_size: int = 1
    #: What photographs are looked at with before they are reconstructed, where the model needs a certain one.
    detector: ClassVar[Detector | str | None] = "auto"
    #: What the model is judged by besides depth and images; see :meth:`scorer`.
    scores: ClassVar[MetricSet | None] = None
    #: Steps that :meth:`warm_start_loss` is minimised for before training starts, their learning rate, and their name.
    warm_start_steps: int = 0
    warm_start_rate: float = 1e-3
    warm_start_name: str = "warm start"

    # -- what a pipeline must have: asked of the class, with the options that the pipeline gives -------------------

    @classmethod
    def encoder_channels(cls, **options: Any) -> Mapping[str, tuple[int, int]]:
        """Channels in and out of the networks that it takes under ``encoders``, by role."""
        return {}

    @classmethod
    def optional_encoders(cls, **options: Any) -> Collection[str]:
        """Roles that a pipeline may leave out."""
        return ()

    @classmethod
    def image_pairs(cls, **options: Any) -> Collection[str] | None:
        """Names of the image pairs in its output, which a loss's ``of`` may say; None where only the output tells."""
        return None

    @classmethod
    def canonical_depths(
        cls, *, depth_min: float = 0.9, depth_max: float = 1.1, **_options: Any
    ) -> tuple[float, float]:
        """The range of canonical depths that the pipeline's renderer is given: the model's options of these names."""
        return depth_min, depth_max

    # -- training ----------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch) -> ModelOutput:
        """What the pipeline's losses compare."""
        raise NotImplementedError(f"{type(self).__name__} has no forward(batch)")

    def training_step(self, batch: Batch, step: Step) -> Iterator[tuple[str, Losses]]:
        """The losses of a step, each with the name of the optimiser that takes a step by it.

        When the trainer asks for the next loss, the optimiser of the last has taken its step. Only the gradients of
        that optimiser's parameters are computed and set; nothing needs freezing or zeroing here. Every shard of a
        batch yields the same names in the same order.
        """
        yield "main", step.losses(self(batch), batch)

    def optimizers(self) -> Mapping[str, Sequence[ParameterGroup]]:
        """The optimisers by name, each with its groups; by default one, ``main``, over everything that is trained.

        Each is the pipeline's ``optimizer``, with a state of its own that checkpoints keep.
        """
        return {"main": [ParameterGroup([p for p in self.parameters() if p.requires_grad])]}

    @property
    def unused_encoders(self) -> Collection[str]:
        """Roles whose networks no loss reaches with these options, so that the health report does not miss them."""
        return ()

    def health(self, output: ModelOutput, *, settled: bool) -> list[Finding]:
        """What is wrong with a training step's output: failures that the method is known for, and what to try.

        Args:
            output: the last one that :meth:`Step.losses` was given, without gradients needed.
            settled: training is past its start.
        """
        return []

    def warm_start_loss(self, batch: Batch) -> Tensor:
        """What is minimised for ``warm_start_steps`` steps before training starts."""
        raise NotImplementedError(f"{type(self).__name__} has no warm_start_loss(batch)")

    # -- results and scores: what is not defined is not asked for ----------------------------------------------------

    def reconstruct(self, images: Tensor) -> Reconstruction:
        """Everything that the model sees in images (B, 3, H, W) in [0, 1]; without it, it only trains."""
        raise NotImplementedError(f"{type(self).__name__} has no reconstruct(images)")

    def scored_pair(self, batch: Batch) -> ImagePair:
        """The prediction and the target that PSNR, SSIM and LPIPS are computed of, where the result is an image."""
        raise NotImplementedError(f"{type(self).__name__} has no scored_pair(batch)")

    def scorer(self, learned: PackedImages) -> Scorer:
        """What computes ``scores`` batch by batch, in evaluation mode and without gradients.

        Args:
            learned: what the model was trained on, for baselines that need it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no scorer(learned)")

    def sheet_columns(self, batch: Batch) -> Mapping[str, Tensor]:
        """Columns of a contact sheet, label → (B, C, H, W) in [0, 1]; without it, those of ``reconstruct``."""
        raise NotImplementedError(f"{type(self).__name__} has no sheet_columns(batch)")

    @classmethod
    def defines(cls, name: str) -> bool:
        """Whether the method ``name`` of this contract is the class's own rather than a default."""
        return inspect.getattr_static(cls, name) is not inspect.getattr_static(Model, name)
