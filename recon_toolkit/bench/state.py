"""Where a training of a table stands while the table is made: what the live view shows."""

from __future__ import annotations

from dataclasses import dataclass, field

from recon_toolkit.bench.report import Status


@dataclass
class RunState:
    """One training.

    Attributes:
        row, seed: which.
        status: ``elsewhere`` means that another process or machine is at it.
        step, steps: how far it is; ``steps`` is 0 where it is not known yet.
        seconds: spent on it by this command so far.
        latest: newest validation scores by metric, e.g. ``mad``.
        cause: why it failed.
    """

    row: str
    seed: int
    status: Status = "pending"
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    latest: dict[str, float] = field(default_factory=dict)
    cause: str | None = None
