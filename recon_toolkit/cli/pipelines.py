"""``recon pipelines``: which pipelines are installed, and what one says in full."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from recon_toolkit.cli.common import AsJson, DisabledPlugins, PluginFiles, plugin_host, print_json, print_table


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("pipelines", short_help="List pipelines, or show one resolved.")(show_pipelines)


def show_pipelines(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="A pipeline's name or YAML file: show it resolved.", show_default=False)
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting (repeatable).", show_default=False),
    ] = None,
    plugin: PluginFiles = None,
    disable_plugin: DisabledPlugins = None,
    json: AsJson = False,
) -> None:
    """List the installed pipelines, or show one with everything it inherits and every default.

    \b
    Examples:
      recon pipelines
      recon pipelines unsup3d-quick
      recon pipelines unsup3d-quick --set training.steps=100 > mine.yaml
    """
    host = plugin_host(context, plugin, disable_plugin)
    if name is not None:
        from recon_toolkit.config.pipeline import load_pipeline

        resolved = load_pipeline(name, overrides or (), host)
        if json:
            fingerprint = {"name": resolved.name, "source": resolved.source, "fingerprint": resolved.fingerprint}
            print_json({**fingerprint, "pipeline": resolved.pipeline})
        else:
            print(resolved.to_yaml(), end="")
        return
    from recon_toolkit.config.sources import list_pipelines

    sources = list_pipelines(host)
    if json:
        print_json({"pipelines": [{**asdict(source), "description": source.description} for source in sources]})
    elif sources:
        print_table([(source.name, source.provider, source.description) for source in sources])
    else:
        print("no pipelines are installed")
