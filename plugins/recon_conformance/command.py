"""``recon check-renderer``: does a renderer do what the others and the training rely on?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recon_toolkit.cli.common import (
    AsJson,
    DisabledPlugins,
    PluginFiles,
    plugin_host,
    print_json,
    progress_of,
    torch_device,
)

if TYPE_CHECKING:
    from recon_conformance import ConformanceReport
    from recon_toolkit.config.pipeline import ResolvedPipeline

DOES_NOT_CONFORM = 3


def check_renderer(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The renderer.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An option of the renderer (repeatable).", show_default=False),
    ] = None,
    plugin: PluginFiles = None,
    disable_plugin: DisabledPlugins = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="CHECK", help="Run this check only (repeatable).", show_default=False),
    ] = None,
    training: Annotated[bool, typer.Option("--training/--no-training", help="Also train for a while.")] = True,
    minutes: Annotated[float, typer.Option("--minutes", min=0.01, help="Length of the training check.")] = 2.0,
    pipeline: Annotated[
        str, typer.Option("--pipeline", "-p", metavar="NAME", help="What the training check trains.")
    ] = "unsup3d-quick-photometric",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "cpu",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Also write the report there, as JSON.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Check a renderer, yours or another.

    It is held against closed forms, finite differences and the faults of known ports.

    Exit code 0 if it conforms (warnings included), 3 if it does not.

    \b
    Examples:
      recon check-renderer depth-mesh
      recon check-renderer depth-mesh --set supersampling=1 --no-training
      recon check-renderer fine-mesh --plugin my_renderer.py --minutes 5
    """
    from recon_conformance import check_renderer as check
    from recon_conformance.subject import CAMERA, DEPTH_RANGE
    from recon_toolkit.config.pipeline import load_pipeline, resolve_component
    from recon_toolkit.config.signatures import plain_value
    from recon_toolkit.errors import ReconError
    from recon_toolkit.files import write_text

    host = plugin_host(context, plugin, disable_plugin)
    part = resolve_component("renderer", name, overrides or (), host)
    device = torch_device(device)
    part.build(camera=CAMERA, depth_range=DEPTH_RANGE)  # an option that it refuses is no fault of the renderer

    def load(extra: tuple[str, ...]) -> ResolvedPipeline:
        settings = [f"renderer={{name: '{name}'}}", *(f"renderer.{text}" for text in overrides or ())]
        return load_pipeline(pipeline, [*settings, *extra], host)

    if training and (not only or "training" in only):
        load(())  # a pipeline that is not there is found before the other checks
    with progress_of(context) as progress:

        def train() -> Any:
            from recon_conformance.suite import smoke_test

            return smoke_test(load, minutes, device=device, progress=progress)

        try:
            report = check(
                part.build,
                name=name,
                options={key: plain_value(value) for key, value in part.options.items()},
                device=device,
                only=only or (),
                training=train if training else None,
                progress=progress,
            )
        except ValueError as error:
            raise ReconError(str(error), where="--only") from error
    if out is not None:
        write_text(out, report.model_dump_json(indent=1) + "\n")
    if json:
        print_json(report)
    else:
        _print(report)
    if report.verdict == "fail":
        raise typer.Exit(DOES_NOT_CONFORM)


def _print(report: ConformanceReport) -> None:
    import rich.box
    import rich.markup
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=False)
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("check", "verdict", "measured"):
        table.add_column(heading, overflow="fold")
    colours = {"pass": "green", "warn": "yellow", "fail": "red", "skipped": "dim"}
    for found in report.checks:
        measured = "; ".join(f"{key} {_short(value)}" for key, value in found.measured.items())
        table.add_row(found.name, f"[{colours[found.verdict]}]{found.verdict}[/]", rich.markup.escape(measured))
    console.print(table)
    for found in report.checks:
        if found.verdict != "pass":
            lines = [f"{found.verdict}: {found.name}: {found.title}", f"  cause: {found.cause}"]
            lines += [f"  remedy: {found.remedy}"] if found.remedy else []
            lines += [f"  limit: {found.limit} ({found.reason})"] if found.limit else []
            console.print("\n".join(lines), markup=False)
    console.print(f"{report.renderer}: {report.verdict}: {report.summary}", markup=False)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
