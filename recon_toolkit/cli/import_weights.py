"""``recon import``: checkpoints of other programs into weights of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recon_toolkit.cli.common import (
    AsJson,
    DisabledPlugins,
    PluginFiles,
    plugin_host,
    print_json,
    settings_of,
)


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("import", short_help="Turn a published checkpoint into weights.")(import_weights)


def import_weights(
    context: typer.Context,
    format_name: Annotated[str, typer.Argument(metavar="FORMAT", help="Whose checkpoint it is, e.g. unsup3d.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The checkpoint, a file of torch.save.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The weights file; beside the checkpoint by default."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", metavar="NAME", help="What it was trained on, e.g. celeba or cat.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="The settings file that it was trained with.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting (repeatable).", show_default=False),
    ] = None,
    as_json: AsJson = False,
    plugins: PluginFiles = None,
    disabled: DisabledPlugins = None,
) -> None:
    """Turn a published checkpoint into a weights file of ours, which knows its pipeline.

    The file is read without executing anything in it. What was taken, what was left out and which settings were
    assumed is printed. `recon plugins` lists the formats, as components of the kind importer.

    \b
    Examples:
      recon import unsup3d checkpoint030.pth
      recon import unsup3d checkpoint200.pth --preset cat --out cats.safetensors
      recon import lemul checkpoint010.pth --set model.rotation_range=60
    """
    from recon_toolkit.importing import import_file

    given = {"preset": preset, "config": None if config is None else str(config)}
    report = import_file(
        format_name,
        file,
        out=out,
        options={name: value for name, value in given.items() if value is not None},
        overrides=overrides or (),
        host=plugin_host(context, plugins, disabled),
    )
    if as_json:
        print_json(report)
        return
    print(f"{report.out}: {report.parameters / 1e6:.2f} M weights for pictures of {report.image_size} pixels")
    if not settings_of(context).quiet:
        for note in report.notes:
            print(f"  {note}")
