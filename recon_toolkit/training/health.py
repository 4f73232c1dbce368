"""Collects what goes wrong in a training, and says each thing once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from recon_toolkit.models import Finding

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
