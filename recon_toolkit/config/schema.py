"""What a pipeline may say, apart from the options of its components."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Precision = Literal["fp32", "bf16"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class TrainingConfig(_Section):
    """How a model is trained. Exactly one of ``steps``, ``epochs`` and ``minutes`` is given."""

    steps: Count | None = None
    epochs: Positive | None = None
    minutes: Positive | None = None  # as many steps as a trial of a few says; they depend on the machine
    batch_size: Count = 64
    start_from: Path | None = None  # a run or a weights file of the same model, whose weights training begins with
    learning_rate: Positive = 1e-4
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    weight_decay: NotNegative = 5e-4
    schedule: Literal["constant", "cosine", "trapezoid"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    part_warmup_steps: dict[str, Annotated[int, Field(ge=0)]] = {}  # a longer warm-up of some networks, by role
    clip_gradient: Positive | None = None  # largest norm of the gradient
    precision: Precision | Literal["auto"] = "fp32"  # auto: bf16 where the device has instructions for it
    augment_flip: bool = True
    validate_every: Count | None = None  # steps; at the end only if None
    checkpoint_every: Count | None = None  # steps; at validations and at the end if None
    validation_images: Count = 256
    log_every: Count = 50  # steps
    workers: Count = 1  # threads that share a batch on the CPU; the result depends on their number
    accelerator: str = "auto"
    devices: Count = 1
    tensorboard: bool = False
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None  # decay of an averaged copy of the weights
    keep_on_device: bool = True  # hold the packed data in the device's memory if it fits

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if sum(value is not None for value in (self.steps, self.epochs, self.minutes)) != 1:
            raise ValueError("exactly one of 'steps', 'epochs' and 'minutes' must be given")
        return self


class EvaluationConfig(_Section):
    """Which images a finished model is scored on; all of the split if ``images`` is None."""

    split: str = "test"
    images: Count | None = None
    batch_size: Count = 64


class CameraConfig(_Section):
    """The pinhole camera: horizontal field of view in degrees."""

    fov: Annotated[float, Field(gt=0, lt=180)] = 10.0


class ComponentConfig(BaseModel):
    """A component by name; every other key is an option of it, validated against its own signature."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The component's own options, as they stand in YAML."""
        return dict(self.model_extra or {})


class LossTermConfig(ComponentConfig):
    """A loss component and what the core does with its residual.

    Args:
        weight: factor of the term in the total.
        likelihood: how the model's spread σ of the pair enters (``none`` ignores it).
        of: the image pair that the loss compares.
        mask: average over the pair's mask only.
        start_weight: factor during the first ``start_epochs`` epochs; None means ``weight``.
    """

    weight: NotNegative = 1.0
    likelihood: Literal["none", "laplace", "gaussian"] = "none"
    of: str = "plain"
    mask: bool = True
    start_weight: NotNegative | None = None
    start_epochs: NotNegative = 0


class Pipeline(_Section):
    """A whole pipeline, resolved: nothing inherited, every option present."""

    name: str = ""  # by default the file's name; a run records the pipeline's here
    description: str = ""
    model: ComponentConfig
    encoders: dict[str, ComponentConfig] = {}
    renderer: ComponentConfig | None = None
    optimizer: ComponentConfig | None = None  # Adam with the settings under ``training`` if None
    sampler: ComponentConfig | None = None  # every image once an epoch, in random order, if None
    losses: dict[str, LossTermConfig]
    metrics: dict[str, ComponentConfig] = {}  # besides those of the toolkit and of the model, by what tables call them
    callbacks: dict[str, ComponentConfig] = {}  # what watches the training
    dataset: ComponentConfig
    image_size: Annotated[int, Field(ge=8, le=4096)] = 64
    camera: CameraConfig = CameraConfig()
    training: TrainingConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    plugins: list[Path] = []  # plugin files; in YAML relative to the file that names them

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if not self.losses:
            raise ValueError("'losses' is empty: there is nothing to train with")
        return self
