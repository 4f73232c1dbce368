"""Commands that plugins bring along: components of the kind ``command``, found where no command of the core is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from recon_toolkit.registry import Registered


class GroupWithPlugins(TyperGroup):
    """A group of commands, with those of installed plugins. A component ``data/render-views`` is ``recon data
    render-views``, and its target a function with typer's annotations.

    Plugins are looked at only where the core has no such command, or where a group below ``recon`` is listed: that
    keeps ``recon --help`` quick.
    """

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The core's command of that name, or a plugin's."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        found = _of_plugins(ctx).get(cmd_name)
        if found is None:
            return None
        from recon_toolkit.registry import blamed

        with blamed(f"the command '{cmd_name}' of plugin '{found.provider}'"):
            function = found.component.load()
        app = typer.Typer(rich_markup_mode=None, add_completion=False)
        app.command(cmd_name, context_settings={"help_option_names": ["-h", "--help"]})(function)
        return typer.main.get_command(app)

    def list_commands(self, ctx: Any) -> list[str]:
        """The core's commands, and in a group below ``recon`` those of plugins."""
        own = super().list_commands(ctx)
        return [*own, *(name for name in _of_plugins(ctx) if name not in own)] if ctx.parent is not None else own


def _of_plugins(ctx: Any) -> dict[str, Registered]:
    from recon_toolkit.plugins import load_plugins

    place = "".join(f"{word}/" for word in ctx.command_path.split()[1:])
    return {
        entry.name.removeprefix(place): entry
        for entry in load_plugins().registry.all()
        if entry.kind == "command" and entry.name.startswith(place) and "/" not in entry.name.removeprefix(place)
    }
