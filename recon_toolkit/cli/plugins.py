"""``recon plugins``: what is installed, what it provides, and what is broken."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recon_toolkit.cli.common import AsJson, DisabledPlugins, PluginFiles, print_json, print_table

if TYPE_CHECKING:
    from recon_toolkit.plugins import Plugin, PluginHost
    from recon_toolkit.registry import PluginFailure


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("plugins", short_help="List plugins and what they provide.")(list_plugins)


def list_plugins(
    context: typer.Context,
    plugin: PluginFiles = None,
    disable_plugin: DisabledPlugins = None,
    check: Annotated[bool, typer.Option("--check", help="Also import and check every component; slower.")] = False,
    json: AsJson = False,
) -> None:
    """List plugins, the components they provide, and those that do not work, with the cause.

    Yours come first. With --check, every component is held against what its kind asks for, and the exit code is 2
    where a plugin does not work or clashes with another.

    \b
    Examples:
      recon plugins
      recon plugins --plugin my_edges.py --check
      recon plugins --json
    """
    from recon_toolkit.cli.common import settings_of
    from recon_toolkit.plugins import load_plugins

    host = load_plugins(plugin or (), disable_plugin or ())
    failures = [*host.failures, *(_broken_components(host) if check else [])]
    if json:
        print_json(_as_data(host, failures))
    else:
        _print(host, failures, debug=settings_of(context).debug)
    if check and (failures or host.registry.conflicts):
        raise typer.Exit(2)


def _broken_components(host: PluginHost) -> list[PluginFailure]:
    from recon_toolkit.config.contracts import check_contract
    from recon_toolkit.errors import ReconError
    from recon_toolkit.registry import PluginFailure

    sources = {plugin.name: plugin.source for plugin in host.plugins}
    failures = []
    for entry in host.registry.all():
        try:
            check_contract(entry)
        except ReconError as error:
            failures.append(PluginFailure(entry.provider, sources[entry.provider], error.message))
    return failures


def _in_order(host: PluginHost) -> list[Plugin]:
    """The user's own plugins first, then those that come with the toolkit."""
    return sorted(host.plugins, key=lambda plugin: plugin.own)


def _as_data(host: PluginHost, failures: list[PluginFailure]) -> dict[str, Any]:
    return {
        "plugins": [
            {
                "name": plugin.name,
                "version": plugin.version,
                "source": plugin.source,
                "summary": plugin.summary,
                "components": [
                    {"kind": part.kind, "name": part.name, "summary": part.summary} for part in plugin.components
                ],
                "pipelines": [str(folder) for folder in plugin.pipelines],
                "models": [str(folder) for folder in plugin.models],
            }
            for plugin in host.plugins
        ],
        "failures": [asdict(failure) for failure in failures],
        "conflicts": [{**asdict(conflict), "remedy": conflict.remedy} for conflict in host.registry.conflicts],
        "disabled": sorted(host.disabled),
    }


def _print(host: PluginHost, failures: list[PluginFailure], *, debug: bool) -> None:
    from recon_toolkit.inference.bundled import BundledModel

    for plugin in _in_order(host):
        version = f" {plugin.version}" if plugin.version else ""
        print(f"{plugin.name}{version}  ({plugin.source})")
        if plugin.summary:
            print(f"  {plugin.summary}")
        print_table([(part.kind, part.name, part.summary) for part in plugin.components], indent="    ")
        for folder in plugin.pipelines:
            print(f"    pipelines in {folder}")
        for folder in plugin.models:
            print(f"    trained models in {folder}:")
            models = [BundledModel(path.stem, plugin.name, path) for path in sorted(folder.glob("*.safetensors"))]
            print_table([(model.name, model.summary) for model in models], indent="      ")
    if host.disabled:
        print(f"left out: {', '.join(sorted(host.disabled))}")
    for conflict in host.registry.conflicts:
        print(f"conflict: {conflict} ({conflict.remedy})")
    for failure in failures:
        print(f"not working: {failure.name} ({failure.source}): {failure.cause}")
        if debug:
            print(failure.traceback)
    if not host.plugins and not failures:
        print("no plugins are installed")
