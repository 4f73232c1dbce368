"""The table while it is made: a live one on a terminal, lines now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from recon_bench.report import METRICS, RunState, Status
from recon_toolkit.metrics import Metric
from recon_toolkit.progress import LOG_INTERVAL, Progress, clock

if TYPE_CHECKING:
    import rich.console
    import rich.live

_Key = tuple[str, int]
_COLOURS: dict[Status, str] = {"running": "cyan", "done": "green", "failed": "red", "elsewhere": "magenta"}
#: Lines of the terminal that are not trainings: the headings, the total and its surroundings.
_SURROUNDINGS = 7


class Live:
    """Shows where the trainings of a table stand, while its ``with`` block runs.

    On a terminal this is a table that is drawn anew; elsewhere a line where a training starts or ends, and every
    :data:`~recon_toolkit.progress.LOG_INTERVAL` seconds one for each that runs. Failures are warnings, which appear
    even when quiet.

    Args:
        progress: where to write, and whether.
        metrics: what scores are, by name.
        now: a clock in seconds.
    """

    def __init__(
        self,
        progress: Progress,
        metrics: Mapping[str, Metric] = METRICS,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.progress, self.metrics = progress, metrics
        self._now = now
        self._logged = now()
        self._statuses: dict[_Key, Status] = {}
        self._estimate = Estimate()
        self._live: rich.live.Live | None = None

    def __enter__(self) -> Self:
        if not self.progress.quiet and self.progress.stream.isatty():
            import rich.console
            import rich.live

            console = rich.console.Console(file=self.progress.stream)
            self._live = rich.live.Live(console=console, auto_refresh=False, vertical_overflow="crop")
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self, states: Sequence[RunState]) -> None:
        """Show the trainings as they stand; to be called about once a second."""
        self._estimate.observe(states)
        first = not self._statuses
        for state in states:
            before = self._statuses.get((state.row, state.seed), "pending")
            self._statuses[state.row, state.seed] = state.status
            if state.status != before:
                self._changed(state)
        if self._live is not None:
            self._live.update(self._table(states, self._live.console), refresh=True)
        elif first or self._now() - self._logged >= LOG_INTERVAL:
            self._logged = self._now()
            for state in states:
                if state.status == "running" and not first:
                    self.progress.say(self._line(state))
            self.progress.say(self._total(states))

    def _changed(self, state: RunState) -> None:
        name = training_name(state)
        if state.status == "failed":
            self._warn(f"{name}: failed: {state.cause or 'no cause was given'}")
        elif self._live is None and state.status == "running":
            self.progress.say(f"{name}: started")
        elif self._live is None and state.status == "elsewhere":
            self.progress.say(f"{name}: another process or machine is at it")
        elif self._live is None and state.status == "done" and state.seconds > 0:  # 0: it was done before
            self.progress.say(", ".join([f"{name}: done in {clock(state.seconds)}", *self._scores(state)]))

    def _warn(self, message: str) -> None:
        if self._live is None:
            self.progress.warn(message)
        else:  # above the table, which a plain print would tear
            self._live.console.print(f"warning: {message}", markup=False, highlight=False, soft_wrap=True)

    def _line(self, state: RunState) -> str:
        parts = [f"{training_name(state)}: {_steps(state) or 'starting'}"]
        left = self._estimate.left(state)
        if left is not None and state.step:
            parts.append(f"{clock(left)} left")
        return ", ".join([*parts, *self._scores(state)])

    def _total(self, states: Sequence[RunState]) -> str:
        counts = {
            status: sum(state.status == status for state in states)
            for status in ("done", "running", "elsewhere", "pending", "failed")
        }
        parts = [f"{counts.pop('done')} of {len(states)} trainings done"]
        parts += [f"{count} {status}" for status, count in counts.items() if count]
        left = self._estimate.total(states)
        return ", ".join(parts + ([f"about {clock(left)} left"] if left else []))

    def _table(self, states: Sequence[RunState], console: rich.console.Console) -> rich.console.RenderableType:
        import rich.console
        import rich.table
        import rich.text
        from rich.progress_bar import ProgressBar

        names = sorted({name for state in states for name in self._shown(state)}, key=list(self.metrics).index)
        table = rich.table.Table(box=None, pad_edge=False, header_style="bold")
        for heading, right in (("row", 0), ("seed", 1), ("status", 0), ("steps", 1), ("", 0), ("left", 1)):
            table.add_column(heading, justify="right" if right else "left", no_wrap=heading != "row")
        for name in names:
            table.add_column(self.metrics[name].label, justify="right", no_wrap=True)
        shown = _fitting(states, console.size.height - _SURROUNDINGS)
        for state in shown:
            left = self._estimate.left(state) if state.status == "running" and state.step else None
            table.add_row(
                rich.text.Text(state.row),  # plain text: a name may look like markup
                str(state.seed),
                rich.text.Text(state.status, style=_COLOURS.get(state.status, "dim")),
                f"{state.step}/{state.steps}" if state.steps else "",
                ProgressBar(total=state.steps, completed=state.step, width=16) if state.steps else "",
                clock(left) if left is not None else clock(state.seconds) if state.status == "done" else "",
                *(self._score(state, name) for name in names),
            )
        hidden = len(states) - len(shown)
        more = [rich.text.Text(f"{hidden} more", style="dim")] if hidden else []
        return rich.console.Group(table, *more, rich.text.Text(self._total(states), style="bold"))

    def _shown(self, state: RunState) -> dict[str, float]:
        """The newest scores worth a column: of depth if there are any, else of pictures, else the model's own."""
        own = [name for name, metric in self.metrics.items() if metric.needs == "own"][:2]
        for names in (("mad", "side"), ("psnr", "ssim"), own):
            found = {name: value for name in names if (value := state.latest.get(name)) is not None}
            if found:
                return found
        return {}

    def _score(self, state: RunState, name: str) -> str:
        value = self._shown(state).get(name)
        return "" if value is None else f"{value:.{self.metrics[name].digits}f}"

    def _scores(self, state: RunState) -> list[str]:
        return [f"{self.metrics[name].label} {self._score(state, name)}" for name in self._shown(state)]


class Estimate:
    """The remaining time, from the pace of what was seen running."""

    def __init__(self) -> None:
        self._first: dict[_Key, tuple[int, float]] = {}
        self._pace: dict[_Key, float] = {}

    def observe(self, states: Sequence[RunState]) -> None:
        """Take the seconds a step of every training that this command has worked on.

        They count from the first sight of a training with steps done, since one that continues has steps of before.
        """
        for state in states:
            if state.status not in ("running", "done") or state.step <= 0 or state.seconds <= 0:
                continue
            key = (state.row, state.seed)
            step, seconds = self._first.setdefault(key, (state.step, state.seconds))
            if state.step > step and state.seconds > seconds:
                self._pace[key] = (state.seconds - seconds) / (state.step - step)

    def left(self, state: RunState) -> float | None:
        """Seconds until a training is over; None where nothing tells yet."""
        pace = self._pace.get((state.row, state.seed)) or self._mean_pace()
        if pace is None or not state.steps:
            return None
        return pace * (state.steps - state.step)

    def total(self, states: Sequence[RunState]) -> float | None:
        """Seconds until all of them are over that are not elsewhere, as many at once as run now."""
        running = [self.left(state) or 0.0 for state in states if state.status == "running"]
        pace = self._mean_pace()
        if pace is None or not running:
            return None
        known = [state.steps for state in states if state.steps]
        usual = sum(known) / max(len(known), 1)
        pending = sum(pace * ((s.steps or usual) - s.step) for s in states if s.status == "pending")
        return max(*running, (sum(running) + pending) / len(running))

    def _mean_pace(self) -> float | None:
        return sum(self._pace.values()) / len(self._pace) if self._pace else None


def training_name(state: RunState) -> str:
    """``row, seed n``."""
    return f"{state.row}, seed {state.seed}"


def _steps(state: RunState) -> str:
    if not state.steps:
        return ""
    return f"{state.step}/{state.steps} steps ({100 * state.step / state.steps:.0f} %)"


def _fitting(states: Sequence[RunState], lines: int) -> list[RunState]:
    """As many trainings as fit, in their order; those that run or failed come before the finished and the waiting."""
    urgency: dict[Status, int] = {"running": 0, "failed": 1, "elsewhere": 2, "done": 3, "pending": 4}
    ranked = sorted(range(len(states)), key=lambda place: (urgency[states[place].status], place))
    return [states[place] for place in sorted(ranked[: max(lines, 1)])]
