"""``recon plugins`` and ``recon pipelines``: what is installed, what it provides, and what is broken."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recon_toolkit.cli.common import AsJson, DisabledPlugins, PluginFiles, plugin_host, print_json, print_table

if TYPE_CHECKING:
    from recon_toolkit.components import PluginFailure
    from recon_toolkit.plugins import Plugin, PluginHost


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
    from recon_toolkit.components import PluginFailure
    from recon_toolkit.config.signatures import check_contract
    from recon_toolkit.errors import ReconError

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
