"""What a conformance check says: verdicts, the numbers behind them, causes and remedies."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

Verdict = Literal["pass", "warn", "fail", "skipped"]


class CheckResult(BaseModel):
    """One check's verdict.

    Attributes:
        name: its short name.
        title: what was checked, in a few words.
        verdict: ``fail`` breaks the renderer protocol; ``warn`` is a limitation to know of; ``skipped`` says why in
            ``cause``.
        measured: the numbers, by name.
        limit: what they are held against.
        reason: why the limit is there.
        cause: what is wrong, in plain words; empty for a pass.
        remedy: what to do about it.
        ruins_training: a fail of this kind spoils or stops training, rather than only departing from the conventions.
    """

    name: str
    title: str
    verdict: Verdict = "pass"
    measured: dict[str, float | int | bool | str | None] = {}
    limit: str = ""
    reason: str = ""
    cause: str = ""
    remedy: str = ""
    ruins_training: bool = True


class ConformanceReport(BaseModel):
    """Every check of one renderer.

    Attributes:
        renderer: its name.
        options: what it was built with, defaults included.
        verdict: the worst of its checks.
        trainable: whether nothing was found that spoils training; without the ``training`` check, on paper only.
        summary: the verdict in a sentence.
        device: where it ran.
        seconds: how long the checks took.
        checks: in the order they ran.
    """

    renderer: str
    options: dict[str, Any]
    verdict: Verdict
    trainable: bool
    summary: str
    device: str
    seconds: float
    checks: list[CheckResult]

    def check(self, name: str) -> CheckResult:
        """The check of that name.

        Raises:
            KeyError: it was not run.
        """
        for found in self.checks:
            if found.name == name:
                return found
        raise KeyError(name)


def summarise(checks: list[CheckResult]) -> tuple[Verdict, bool, str]:
    """The worst verdict, whether the renderer can be trained through, and both in a sentence."""
    failed = [check for check in checks if check.verdict == "fail"]
    ruinous = [check for check in failed if check.ruins_training]
    warned = [check for check in checks if check.verdict == "warn"]
    if ruinous:
        return "fail", False, f"cannot be trained through: {_causes(ruinous)}"
    tried = any(check.name == "training" and check.verdict in ("pass", "warn") for check in checks)
    trainable = "can be trained through" + ("" if tried else ", as far as can be told without training")
    if failed:
        return "fail", True, f"{trainable}, but does not conform: {_causes(failed)}"
    if warned:
        return "warn", True, f"{trainable}; to know: {_causes(warned)}"
    return "pass", True, trainable


def _causes(checks: list[CheckResult]) -> str:
    return "; ".join(dict.fromkeys(check.cause.partition(":")[0] for check in checks))
