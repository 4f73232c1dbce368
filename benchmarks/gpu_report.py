"""What the GPU suite measured, as one validated record: ``results/gpu-suite-DEVICE.json``."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from gpu_case import VGG, Case, Number
from pydantic import BaseModel, Field, model_validator
from recon_bench.report import TableReport
from record import Results

#: How far a way's first loss may be from that of fp32, as a share of it. The weights are the same, so what is left is
#: rounding: bfloat16 has steps of 0.4 to 0.8 %, and their mean over a batch is closer.
FIRST_LOSS = 0.02
#: How many times as much or as little as with fp32 the loss may fall in the checked steps.
DROP = 2.0

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Training(BaseModel):
    """The full schedule, or as much of it as was run."""

    status: Literal["partial", "finished", "failed"]
    cause: str | None = None
    pipeline: str
    settings: list[str]
    steps: Count  # planned
    steps_done: Count
    batch: Count
    training_seconds: Seconds  # in training steps alone, as summary.json counts them
    device_seconds: Seconds  # of all calls together: start, data, validation and checkpoints too
    images_per_second: Number | None = None
    peak_memory_mb: Number | None = None
    images: Count = 0  # scored
    side: Number | None = None
    side_std: Number | None = None
    side_ratio: Number | None = None
    mad: Number | None = None
    mad_std: Number | None = None
    mad_ratio: Number | None = None
    findings: list[str] = []

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.status == "finished" and self.steps_done != self.steps:
            raise ValueError("a finished schedule has all its steps")
        if self.status == "failed" and not self.cause:
            raise ValueError("a failed schedule says why")
        return self


class Ablation(BaseModel):
    """The ablation table, or as much of it as was run."""

    status: Literal["partial", "finished", "failed"]
    cause: str | None = None
    device_seconds: Seconds  # of all calls together
    table: TableReport | None = None  # None where it was stopped before its first results


class Suite(Results):
    """``results/gpu-suite-DEVICE.json``; ``left`` names what was not measured yet."""

    toy: bool
    partial: bool
    left: list[str]
    throughput: list[Case] = Field(default_factory=list)
    schedule: Training | None = None
    ablation: Ablation | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.partial != bool(self.left):
            raise ValueError("results are partial where something is left, and only there")
        names = [case.name for case in self.throughput]
        if len(names) != len(set(names)):
            raise ValueError("a case of the throughput stands there twice")
        if not (self.throughput or self.schedule or self.ablation):
            raise ValueError("nothing was measured")
        return self


def values_of(cases: list[Case], schedule: Training | None) -> dict[str, float]:
    """The figures to look at first."""
    rates = {case.name: case.images_per_second for case in cases if case.images_per_second is not None}
    values = {f"{name}: images per second": round(rate, 1) for name, rate in rates.items()}
    for name, rate in rates.items():
        base = "fp32" + "+vgg" * name.endswith("+vgg")
        if base in rates and base != name:
            values[f"{name} over {base}"] = round(rate / rates[base], 3)
    if schedule is not None:
        values["schedule: minutes in all"] = round(schedule.device_seconds / 60, 2)
        values["schedule: minutes of training"] = round(schedule.training_seconds / 60, 2)
        scores = {"SIDE": schedule.side, "MAD": schedule.mad}
        values |= {f"schedule: {name}": value for name, value in scores.items() if value is not None}
    return values


def notes_of(cases: list[Case]) -> list[str]:
    """What a reader of the figures should know."""
    notes = [f"{case.name} failed: {case.cause}" for case in cases if case.status == "failed"]
    for what, found in (
        ("devices", {case.environment.device for case in cases}),
        ("revisions", {str(case.environment.git) for case in cases}),
        ("versions of torch", {case.environment.versions.get("torch", "") for case in cases}),
    ):
        if len(found) > 1:
            notes.append(f"the cases were measured with several {what}: {', '.join(sorted(found))}")
    return notes + differences(cases)


def differences(cases: list[Case]) -> list[str]:
    """Ways that compute something else than fp32: their losses from the same weights on the same batch differ."""
    losses = {case.name: case.losses for case in cases if case.status == "measured"}
    notes = []
    for name, found in losses.items():
        reference = losses.get("fp32" + VGG if name.endswith(VGG) else "fp32")
        if reference is None or found is reference:
            continue
        if abs(found[0] - reference[0]) > FIRST_LOSS * abs(reference[0]):
            notes.append(
                f"{name} computes another loss than fp32: {found[0]:.4g}, not {reference[0]:.4g} "
                f"(more than {FIRST_LOSS:.0%} apart)"
            )
        drop, wanted = found[0] - found[-1], reference[0] - reference[-1]
        # Where fp32 does not move there is nothing to compare with.
        if wanted != 0 and not 1 / DROP <= drop / wanted <= DROP:
            notes.append(
                f"{name} trains otherwise than fp32: in {len(found)} steps the loss falls by {drop:.4g}, "
                f"not {wanted:.4g} (more than a factor of {DROP:g} apart)"
            )
    return notes
