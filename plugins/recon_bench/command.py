"""``recon bench``: train and compare the rows of a table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recon_toolkit.cli.common import (
    AsJson,
    DisabledPlugins,
    PluginFiles,
    fail,
    plugin_host,
    print_json,
    print_table,
    progress_of,
)

if TYPE_CHECKING:
    from recon_bench.plan import Plan
    from recon_bench.runner import Made

#: Exit code where a row has failed; the others are done.
ROW_FAILED = 3


def bench(
    context: typer.Context,
    table: Annotated[
        str | None, typer.Argument(metavar="TABLE", help="An installed table, or a YAML file.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of run folders and results.")] = Path(
        "runs/bench"
    ),
    rows: Annotated[
        list[str] | None,
        typer.Option("--row", metavar="NAME", help="Train only this row (repeatable).", show_default=False),
    ] = None,
    seeds: Annotated[
        list[int] | None,
        typer.Option("--seed", metavar="N", help="Seeds instead of the table's (repeatable).", show_default=False),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of every row (repeatable).", show_default=False),
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Folder of your data.")] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            metavar="NAME",
            help="auto, cpu, cuda, cuda:1, …; with several (repeatable), rows train on all of them.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Trainings at a time on each device.")] = 1,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Train in this process, one row after another: for a debugger.")
    ] = False,
    plugin: PluginFiles = None,
    disable_plugin: DisabledPlugins = None,
    report: Annotated[bool, typer.Option("--report", help="Make the outputs again; train nothing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the table and list its trainings.")] = False,
    smallest: Annotated[
        float | None,
        typer.Option(
            "--smallest-difference",
            metavar="SHARE",
            min=0,
            max=1,
            help="The smallest difference that counts, as a share of the score compared with; the table's, 0.01.",
            show_default=False,
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Train and compare the rows of a table.

    It is written as Markdown, LaTeX, CSV, JSON and a page, with seeds and baselines.

    A stopped table continues with the same command; a changed row alone is trained again; rows that two tables, or
    two machines with one folder, have in common are trained once. Without TABLE, the installed tables are listed.

    \b
    Examples:
      recon bench
      recon bench quick
      recon bench mine.yaml --plugin my_edges.py --jobs 2
      recon bench ablation-unsup3d --row "w/o light" --seed 0 --seed 1
      recon bench quick --report
    """
    from recon_bench.plan import table_name
    from recon_bench.runner import make_table, plan_table, write_outputs

    if table is None:
        _list(context, plugin, disable_plugin)
        return
    if report:
        folder = out / table_name(table)
        found = write_outputs(folder, smallest)
        if json:
            print_json(found)
        else:
            _print(found, folder)
        return
    host = plugin_host(context, plugin, disable_plugin)
    devices = [_device(name) for name in device or ["auto"] for _ in range(jobs)]
    with progress_of(context) as progress:
        plan = plan_table(
            table, host, out=out, overrides=overrides or (), seeds=seeds, rows=rows, data=data, progress=progress
        )
        if dry_run:
            _print_plan(plan, out)
            return
        made = make_table(
            plan,
            out=out,
            devices=devices,
            rows=rows,
            plugins=plugin or (),
            disabled=disable_plugin or (),
            progress=progress,
            smallest=smallest,
            in_process=in_process,
        )
    if json:
        print_json(made.report)
    else:
        _print(made.report, made.folder)
    _exit(made)


def _device(name: str) -> str:
    """The device's name, checked here so that a wrong one is not every row's failure."""
    from recon_toolkit.cli.common import torch_device

    return torch_device(name)


def _exit(made: Made) -> None:
    if not made.complete:
        fail("interrupted; the same command goes on from here")
        raise typer.Exit(130)
    rows = [row for row in made.report.rows if not row.baseline]
    failed = [row.name for row in rows if any(seed.status == "failed" for seed in row.seeds)]
    if failed:
        fail(f"{len(failed)} of {len(rows)} rows failed: {', '.join(failed)}")
        raise typer.Exit(ROW_FAILED)


def _print(report: object, folder: Path) -> None:
    from recon_bench.report import TableReport
    from recon_bench.tables import markdown

    assert isinstance(report, TableReport)
    print(markdown(report))
    print(f"\nlook at {folder / 'index.html'}")


def _print_plan(plan: Plan, out: Path) -> None:
    from recon_bench.runner import RUNS
    from recon_bench.store import Store

    store = Store(out / RUNS)
    lines = [("row", "seed", "run folder", "state")]
    for training in plan.trainings():
        where = training.digest
        state = "done" if store.finished(where) else "running" if store.busy(where) else "to do"
        lines.append((training.row, str(training.seed), str(store.run(where)), state))
    print_table(lines)


def _list(context: typer.Context, plugin: list[Path] | None, disable_plugin: list[str] | None) -> None:
    from recon_toolkit.config.sources import list_tables

    found = list_tables(plugin_host(context, plugin, disable_plugin))
    print_table([(source.name, source.provider, source.description) for source in found])
    print("\nMake one with: recon bench NAME", file=sys.stdout)
