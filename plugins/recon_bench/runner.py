"""A table from its file to its outputs: each training a `recon run` in a process of its own, several side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, Protocol

from filelock import FileLock

from recon_bench.collect import collect
from recon_bench.live import Live
from recon_bench.page import write_page
from recon_bench.plan import Plan, Training, load_plan, reads_folder
from recon_bench.report import RunState, TableReport
from recon_bench.store import Store, begun, check_versions, manifest_of, now, read_manifest
from recon_bench.tables import write_tables
from recon_toolkit.engine.environment import recorded_steps
from recon_toolkit.engine.log import LogTail
from recon_toolkit.errors import ReconError
from recon_toolkit.files import write_text
from recon_toolkit.plugins import PluginHost
from recon_toolkit.progress import QUIET, Progress
from recon_toolkit.threads import given, interruptible

_RECON = (sys.executable, "-m", "recon_toolkit")
#: Seconds between two looks at the trainings.
POLL = 0.5
#: Seconds that a stopped training is given to save a checkpoint.
GRACE = 120


class Process(Protocol):
    """What is asked of a training that was started; of :class:`subprocess.Popen`."""

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class _Here:
    """A training in this process: it is over when this is made."""

    def __init__(self, words: Sequence[str], output: IO[str]) -> None:
        from recon_toolkit.cli.app import execute

        with redirect_stderr(output), open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            self.code = execute(list(words))

    def poll(self) -> int:
        return self.code

    def wait(self, timeout: float | None = None) -> int:
        return self.code

    def terminate(self) -> None:
        return

    kill = terminate


#: The exit code of a run that was asked to stop.
INTERRUPTED = 130


@dataclass
class Job:
    """A training and where it stands."""

    training: Training
    state: RunState
    tail: LogTail
    process: Process | None = None
    lock: FileLock | None = None  # held while the process runs
    device: str = ""
    began: float = 0.0
    others: list[Job] = field(default_factory=list)  # of the same digest: rows may say the same


class Runner:
    """Trains everything in a plan that is not done yet.

    Args:
        plan: the table.
        store: where run folders lie.
        devices: one entry for each training that may run at the same time, as ``recon run --device`` takes them.
        plugins, disabled: plugin files and names, as given to this command.
        rows: names of the rows to train; all if None.
        show: called about twice a second with the states of all trainings.
        in_process: train here, one after another, as a debugger needs it, and tiny trainings like it.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        *,
        devices: Sequence[str],
        plugins: Sequence[Path] = (),
        disabled: Sequence[str] = (),
        rows: Sequence[str] | None = None,
        show: Callable[[Sequence[RunState]], None] = lambda states: None,
        in_process: bool = False,
    ) -> None:
        self.plan, self.store, self.show, self.in_process = plan, store, show, in_process
        self.devices, self.plugins, self.disabled = list(devices), list(plugins), list(disabled)
        self._began = now()
        wanted = [t for t in plan.trainings() if rows is None or t.row in rows]
        needed = {need for training in wanted for need in training.needs}
        self.jobs: list[Job] = []
        by_digest: dict[str, Job] = {}
        for training in plan.trainings():
            if training not in wanted and training.digest not in needed:
                continue
            job = Job(training, RunState(training.row, training.seed), LogTail(store.run(training.digest)))
            first = by_digest.setdefault(training.digest, job)
            if first is job:
                self.jobs.append(job)
            else:
                first.others.append(job)

    def states(self) -> list[RunState]:
        """Of all trainings; those of one digest move together."""
        return [job.state for first in self.jobs for job in (first, *first.others)]

    def run(self) -> bool:
        """Train until everything is done or has failed; True unless it was asked to stop."""
        with interruptible() as interrupted:
            try:
                while True:
                    for job in self.jobs:
                        self._guarded(self._look, job)
                    if not interrupted:
                        self._start_some()
                    if any(isinstance(job.process, _Here) and job.process.code == INTERRUPTED for job in self.jobs):
                        interrupted.append(signal.SIGINT)  # which the training here has taken
                    self.show(self._copied_states())
                    if not any(job.state.status in ("pending", "running", "elsewhere") for job in self.jobs):
                        return True
                    if interrupted:
                        self._stop()
                        self.show(self._copied_states())
                        return False
                    if not self.in_process or any(job.state.status == "elsewhere" for job in self.jobs):
                        time.sleep(POLL)
            except BaseException:
                self._stop()  # nothing is left running that nobody looks after
                raise

    def _guarded(self, action: Callable[[Job], None], job: Job) -> None:
        """What goes wrong with one training's files, e.g. on a full disk, is its failure; the others go on."""
        try:
            action(job)
        except (ReconError, OSError) as error:
            self._ask(job)
            self._wait(job, GRACE)
            self._release(job)
            job.state.status, job.state.cause = "failed", str(error)

    def _copied_states(self) -> list[RunState]:
        for job in self.jobs:
            for other in job.others:
                seed, row = other.state.seed, other.state.row
                vars(other.state).update({**vars(job.state), "seed": seed, "row": row})
        return self.states()

    # -- one look ------------------------------------------------------------------------------------------------

    def _look(self, job: Job) -> None:
        """Bring a job's state up to date with what lies in its folder."""
        state, digest = job.state, job.training.digest
        if state.status in ("done", "failed"):
            return
        if job.process is not None:
            code = job.process.poll()  # before the log, so that its last lines are read too
            self._read_log(job)
            state.seconds = time.monotonic() - job.began
            if code is not None:
                self._ended(job, code)
        elif self.store.finished(digest):
            self._read_log(job)
            state.status = "done"
        elif self.store.busy(digest):
            self._read_log(job)
            state.status = "elsewhere"
        else:
            record = self.store.record(digest)
            # An older failure is tried again; one while this command runs is another process's.
            failed = record is not None and record.status == "failed" and (record.ended or "") >= self._began
            state.status = "failed" if failed else "pending"
            state.cause = record.cause if record is not None and failed else None

    def _read_log(self, job: Job) -> None:
        state = job.state
        training = job.training.resolved.pipeline.training
        steps = training.steps or state.steps or recorded_steps(self.store.run(job.training.digest))
        state.steps = steps or 0
        for entry in job.tail.read():
            state.step = int(entry["step"])
            if entry["kind"] == "validation":
                state.latest = {k: v for k, v in entry.items() if isinstance(v, float)}

    def _ended(self, job: Job, code: int) -> None:
        job.process = None
        digest = job.training.digest
        if self.store.finished(digest):
            self._close(job, "done", None)
        else:
            self._close(job, "failed", self._cause(digest, code))

    def _close(self, job: Job, status: Literal["done", "failed"], cause: str | None) -> None:
        """A training is over: say so in its record, and let others have its folder."""
        digest = job.training.digest
        record = self.store.record(digest) or begun(job.training, self.plan.name, [])
        job.state.status, job.state.cause = status, cause
        self.store.write(digest, record.model_copy(update={"status": status, "cause": cause, "ended": now()}))
        self._release(job)

    @staticmethod
    def _release(job: Job) -> None:
        if job.lock is not None:
            job.lock.release()
            job.lock = None

    def _cause(self, digest: str, code: int) -> str:
        """The errors that the run printed, or how it ended."""
        path = self.store.output(digest)
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        if errors:
            return "; ".join(dict.fromkeys(errors))
        names = {int(number): number.name for number in signal.Signals}
        how = f"was ended by {names.get(-code, f'signal {-code}')}" if code < 0 else f"ended with exit code {code}"
        last = f": {lines[-1]}" if lines else ""
        hint = ", perhaps for lack of memory" if code == -signal.SIGKILL else ""
        return f"the process {how}{hint}{last}"

    # -- starting and stopping -----------------------------------------------------------------------------------

    def _start_some(self) -> None:
        free = list(self.devices)
        for job in self.jobs:
            if job.process is not None:
                free.remove(job.device)
        states = {job.training.digest: job.state for job in self.jobs}
        for job in self.jobs:
            if not free:
                return
            if job.state.status != "pending":
                continue
            needs = [states[need] for need in job.training.needs if need in states]
            failed = next((need for need in needs if need.status == "failed"), None)
            if failed is not None:
                cause = f"its preparation '{failed.row}' failed: {failed.cause}"
                self._guarded(lambda job, cause=cause: self._close(job, "failed", cause), job)  # type: ignore[misc]
            elif all(need.status == "done" for need in needs):
                job.device = free[0]
                self._guarded(self._start, job)
                if job.process is not None:
                    free.pop(0)

    def _start(self, job: Job) -> None:
        """Lock the training's folder and start its process; if somebody else has locked it, it is elsewhere."""
        training, device = job.training, job.device
        job.lock = self.store.lock(training.digest)
        if job.lock is None:
            job.state.status = "elsewhere"
            return
        write_text(self.store.pipeline(training.digest), training.resolved.to_yaml())
        words = self.command(training, device)
        self.store.write(training.digest, begun(training, self.plan.name, [_RECON[-1], *words]))
        job.began = time.monotonic()
        job.state.status = "running"
        if self.in_process:
            self.show(self._copied_states())
            with self.store.output(training.digest).open("w", encoding="utf-8") as text:
                job.process = _Here(words, text)
            return
        with self.store.output(training.digest).open("wb") as output:
            # In a session of its own, so that Ctrl-C reaches it through us, and once.
            job.process = subprocess.Popen(
                [*_RECON, *words],
                stdout=subprocess.DEVNULL,
                stderr=output,
                env=self._environment(device),
                start_new_session=True,
            )

    def command(self, training: Training, device: str) -> list[str]:
        """The words of `recon run` for a training."""
        run = self.store.run(training.digest)
        words = ["run", "--pipeline", str(self.store.pipeline(training.digest)), "--out", str(run), "--device", device]
        if self.store.started(training.digest):
            words.append("--resume")
        if self.plan.data is not None and reads_folder(training.resolved):
            words += ["--data", str(self.plan.data)]
        for file in self.plugins:
            words += ["--plugin", str(file)]
        for name in self.disabled:
            words += ["--disable-plugin", name]
        return words

    def _environment(self, device: str) -> dict[str, str]:
        """Trainings at the same time on the CPU share its cores."""
        cpu = sum(each in ("auto", "cpu") for each in self.devices)
        if device not in ("auto", "cpu") or cpu < 2:
            return dict(os.environ)
        return {**os.environ, "OMP_NUM_THREADS": str(max(1, given().count // cpu))}

    def _stop(self) -> None:
        """Ask what runs to save a checkpoint and end; wait for it."""
        running = [job for job in self.jobs if job.process is not None]
        for job in running:
            self._ask(job)
        until = time.monotonic() + GRACE
        for job in running:
            self._wait(job, max(0.0, until - time.monotonic()))
            job.state.status = "done" if self.store.finished(job.training.digest) else "pending"
            self._release(job)

    @staticmethod
    def _ask(job: Job) -> None:
        """Ask a training to end; once, for a second signal would end it without a checkpoint."""
        if job.process is not None:
            job.process.terminate()

    @staticmethod
    def _wait(job: Job, patience: float) -> None:
        """Wait for a training's process, and end it if that takes too long."""
        if job.process is None:
            return
        try:
            job.process.wait(patience)
        except subprocess.TimeoutExpired:
            job.process.kill()
            job.process.wait()
        job.process = None


#: Where run folders lie in the folder that is given, for all tables made there.
RUNS = "runs"


@dataclass(frozen=True)
class Made:
    """A table that was made, or as far as it was.

    Attributes:
        report: what was found.
        folder: of the outputs.
        complete: nothing was stopped or left out; some rows may have failed.
    """

    report: TableReport
    folder: Path
    complete: bool


def plan_table(
    table: str,
    host: PluginHost,
    *,
    out: Path,
    overrides: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    rows: Sequence[str] | None = None,
    data: Path | None = None,
    progress: Progress = QUIET,
) -> Plan:
    """Read a table and check everything that can be known before training.

    Args:
        table: an installed table, or a YAML file.
        host: the plugins.
        out: the folder of tables; see :func:`make_table`.
        overrides: ``KEY=VALUE`` for every row.
        seeds: instead of the table's.
        rows: names of the rows that are to be trained, to see that they are there.
        data: the user's data folder.
        progress: for the making of data.

    Raises:
        ReconError: anything is wrong with the table, its data, or what lies in ``out``.
    """
    if out.exists() and not out.is_dir():
        raise ReconError("is a file; the results need a folder", where=str(out), remedy="choose another --out")
    plan = load_plan(
        table, host, runs=out / RUNS, overrides=overrides, seeds=seeds, rows=rows, data=data, progress=progress
    )
    if plan.name == RUNS:
        raise ReconError(
            f"a table cannot be called '{RUNS}': run folders lie there",
            where=str(plan.source),
            remedy="rename the file",
        )
    check_versions(Store(out / RUNS), plan.trainings())
    return plan


def make_table(
    plan: Plan,
    *,
    out: Path,
    devices: Sequence[str] = ("auto",),
    rows: Sequence[str] | None = None,
    plugins: Sequence[Path] = (),
    disabled: Sequence[str] = (),
    progress: Progress = QUIET,
    smallest: float | None = None,
    in_process: bool = False,
) -> Made:
    """Train what is not done yet, and write the outputs.

    Args:
        plan: from :func:`plan_table`.
        out: run folders come into ``out/runs``, results into ``out/TABLE``.
        devices: one entry for each training at a time.
        rows: names of rows to train; all if None. The report shows the others as they are.
        plugins, disabled: what the host was loaded with, for the processes of the trainings.
        progress: where the live table goes.
        smallest: the smallest difference that counts, instead of the table's.
        in_process: train in this process, one row after another.

    Raises:
        DataError: results cannot be written or read.
    """
    store, folder = Store(out / RUNS), out / plan.name
    manifest = manifest_of(plan, Path(os.path.relpath(store.folder, folder)).as_posix())
    manifest.write(folder)
    with Live(progress, plan.metrics) as live:
        runner = Runner(
            plan,
            store,
            devices=devices[:1] if in_process else devices,
            plugins=plugins,
            disabled=disabled,
            rows=rows,
            show=live.update,
            in_process=in_process,
        )
        complete = runner.run()
    return Made(write_outputs(folder, smallest), folder, complete)


def write_outputs(folder: Path, smallest: float | None = None) -> TableReport:
    """Write every output of a table from what lies in its folder and its run folders; nothing is trained.

    ``smallest`` is the smallest difference that counts, instead of the table's.

    Raises:
        DataError: there is no table, or a file of it is damaged or of another version.
    """
    manifest = read_manifest(folder)
    if smallest is not None:
        manifest = manifest.model_copy(update={"smallest_difference": smallest})
    report = collect(manifest, Store(folder / manifest.runs), folder)
    write_tables(report, folder)
    write_page(report, folder)
    return report
