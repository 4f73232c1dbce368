"""How many steps a run takes: as given, by epochs, or as many as a trial says fit into some minutes."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from recon_toolkit.config.schema import TrainingConfig
from recon_toolkit.errors import CheckpointError
from recon_toolkit.files import write_text

FILE = "budget.json"
#: Steps timed after one that is not, since the first compiles and allocates.
TRIAL_STEPS = 10


class Budget(BaseModel):
    """What a trial said; a run keeps it, so that it continues to the same last step."""

    minutes: float
    step_seconds: float
    steps: int = Field(ge=1, lt=2**63)


def steps_given(config: TrainingConfig, images: int) -> int | None:
    """Steps of a run on ``images`` training images, None if a trial has to tell."""
    if config.steps is not None:
        return config.steps
    if config.epochs is not None:
        return max(1, math.ceil(config.epochs * images / config.batch_size))
    return None


def recorded_steps(run: Path) -> int | None:
    """What an earlier session's trial said, if there was one. Raises CheckpointError if the file is damaged."""
    path = run / FILE
    if not path.is_file():
        return None
    try:
        return Budget.model_validate_json(path.read_bytes()).steps
    except ValidationError as error:
        raise CheckpointError("is damaged", where=str(path), remedy="start the run anew elsewhere") from error


def try_steps(step: Callable[[], object], minutes: float, run: Path | None) -> int:
    """Time ``step``, which must leave no trace in the training, and say how many fit into ``minutes``.

    Args:
        step: one training step without its update.
        minutes: of training alone, without validation and scoring.
        run: where the result is kept; nowhere if None.
    """
    times = []
    for _ in range(1 + TRIAL_STEPS):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[1:])
    budget = Budget(minutes=minutes, step_seconds=seconds, steps=max(1, int(minutes * 60 / seconds)))
    if run is not None:
        write_text(run / FILE, budget.model_dump_json(indent=1) + "\n", durable=True)
    return budget.steps
