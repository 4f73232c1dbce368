"""A table from its file to its outputs: what ``recon bench`` does, for use from Python."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recon_toolkit.bench.collect import collect
from recon_toolkit.bench.live import Live
from recon_toolkit.bench.manifest import manifest_of, read_manifest
from recon_toolkit.bench.page import write_page
from recon_toolkit.bench.plan import Plan, load_plan
from recon_toolkit.bench.report import TableReport
from recon_toolkit.bench.runner import Runner
from recon_toolkit.bench.store import Store, check_versions
from recon_toolkit.bench.tables import write_tables
from recon_toolkit.errors import ReconError
from recon_toolkit.plugins import PluginHost
from recon_toolkit.progress import QUIET, Progress

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

    Raises:
        DataError: results cannot be written or read.
    """
    store, folder = Store(out / RUNS), out / plan.name
    manifest = manifest_of(plan, Path(os.path.relpath(store.folder, folder)).as_posix())
    manifest.write(folder)
    with Live(progress, plan.metrics) as live:
        runner = Runner(plan, store, devices=devices, plugins=plugins, disabled=disabled, rows=rows, show=live.update)
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
