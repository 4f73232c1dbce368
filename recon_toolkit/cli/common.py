"""What the commands share: global settings, the plugin options, progress, JSON; and commands of plugins."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from recon_toolkit.files import json_text
from recon_toolkit.progress import Progress

if TYPE_CHECKING:
    from recon_toolkit.components import Registered
    from recon_toolkit.plugins import PluginHost


#: Entry points of this group are commands of ``recon``, e.g. ``bench = "recon_bench.command:bench"``.
COMMANDS = "recon_toolkit.commands"

PluginFiles = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE", help="Load a plugin from a Python file (repeatable).", show_default=False),
]
DisabledPlugins = Annotated[
    list[str] | None,
    typer.Option(
        "--disable-plugin",
        metavar="NAME",
        help="Leave a plugin out (repeatable); RECON_DISABLE_PLUGINS=a,b does the same.",
        show_default=False,
    ),
]
ModelRun = Annotated[
    Path | None, typer.Option("--run", metavar="RUN", help="Use the model of this run folder.", show_default=False)
]
ModelWeights = Annotated[
    Path | None,
    typer.Option("--weights", metavar="FILE", help="Use the model of this weights file.", show_default=False),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Run the plugin files and read the files that somebody else's run or weights file names."
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="NAME", help="Use this bundled model; the only one by default.", show_default=False
    ),
]
DetectorName = Annotated[str, typer.Option("--detector", metavar="NAME", help="What finds objects.")]
DetectorSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--detector-set",
        metavar="KEY=VALUE",
        help="Set an option of it, e.g. kinds=cat (repeatable).",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


@dataclass(frozen=True)
class Settings:
    """The global options; every command finds them in its context."""

    debug: bool = False
    quiet: bool = False


def settings_of(context: typer.Context) -> Settings:
    """The global options that the command was called with."""
    return context.find_object(Settings) or Settings()


def progress_of(context: typer.Context) -> Progress:
    """Progress on standard error that honours ``--quiet``; use it in a ``with`` block."""
    return Progress(quiet=settings_of(context).quiet)


def plugin_host(context: typer.Context, files: list[Path] | None, disabled: list[str] | None) -> PluginHost:
    """Load the plugins for a command; a broken one is a warning here, and an error only where it is needed."""
    from recon_toolkit.plugins import load_plugins

    host = load_plugins(files or (), disabled or ())
    progress = progress_of(context)
    for failure in host.failures:
        progress.warn(f"plugin '{failure.name}' ({failure.source}) is not used: {failure.cause}")
    return host


def torch_device(name: str) -> str:
    """The device that ``--device`` names, ``auto`` resolved; raises ReconError if torch cannot use it here."""
    import torch

    from recon_toolkit.errors import ReconError

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        reason = str(error).partition("\n")[0]
        raise ReconError(f"cannot be used: {reason}", where=f"--device {name}", remedy="try --device auto") from None
    return name


def print_json(value: Any) -> None:
    """Print a dataclass, a pydantic model or plain data as JSON; a number that is not finite becomes null."""
    unicode = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
    print(json_text(_plain(value), indent=2, ascii_only=not unicode))


def print_table(rows: Sequence[Sequence[str]], indent: str = "") -> None:
    """Print rows in aligned columns; the last column runs free."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)] if rows else []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print((indent + "  ".join([*cells, row[-1]])).rstrip())


def fail(message: str) -> None:
    """Print ``error: message`` on standard error."""
    print(f"error: {message}", file=sys.stderr)


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump(mode="json"))
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return _plain(value.item()) if hasattr(value, "item") else str(value)


class GroupWithPlugins(TyperGroup):
    """A group of commands, with those of installed plugins.

    Below ``recon`` itself they are entry points of the group :data:`COMMANDS`, listed from the metadata of their
    distributions without being imported. Others are components of the kind ``command``, looked at only where nothing
    else has the name, or where a group below ``recon`` is listed: ``data/render-views`` is ``recon data render-views``.
    The target of either is a function with typer's annotations.
    """

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The core's command of that name, or a plugin's."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        if ctx.parent is None and cmd_name in (installed := _installed()):
            return InstalledCommand(installed[cmd_name])
        component = _components(ctx).get(cmd_name)
        if component is None:
            return None
        return _command_of(cmd_name, component.component.load, f"of plugin '{component.provider}'")

    def list_commands(self, ctx: Any) -> list[str]:
        """The core's commands and the installed ones; in a group below ``recon`` also components."""
        own = super().list_commands(ctx)
        more: Iterable[str] = _installed() if ctx.parent is None else _components(ctx)
        return [*own, *sorted(name for name in more if name not in own)]


class InstalledCommand(TyperCommand):
    """A command that a distribution's metadata names; its module is imported when it is used."""

    def __init__(self, entry: EntryPoint) -> None:
        super().__init__(entry.name, short_help=_first_line(entry))
        self.entry = entry

    def get_params(self, ctx: Any) -> Any:
        """Of the real command: what shell completion asks for."""
        return self._loaded().get_params(ctx)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """A context of the real command."""
        return self._loaded().make_context(info_name, args, parent, **extra)

    def _loaded(self) -> Any:
        return _command_of(self.entry.name, self.entry.load, f"of {_owner(self.entry)} ({self.entry.value})")


def _command_of(name: str, load: Callable[[], Callable[..., Any]], whose: str) -> Any:
    from recon_toolkit.components import blamed

    with blamed(f"the command '{name}' {whose}"):
        function = load()
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(name, context_settings={"help_option_names": ["-h", "--help"]})(function)
    return typer.main.get_command(app)


@cache
def _installed() -> dict[str, EntryPoint]:
    """Commands by name; where several distributions have one name, the toolkit's own."""
    entries = sorted(entry_points(group=COMMANDS), key=lambda entry: _owner(entry) == "recon-toolkit")
    return {entry.name: entry for entry in entries}


def _owner(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "?"


def _first_line(entry: EntryPoint) -> str:
    """The first line of a function's docstring, read from its file: importing it might take seconds."""
    package, *inner = entry.module.split(".")
    try:
        spec = find_spec(package)
        source = Path(spec.origin) if spec and spec.origin else None
        if source and inner:
            source = source.parent.joinpath(*inner).with_suffix(".py")
        tree = ast.parse(source.read_text(encoding="utf-8")) if source else ast.Module([], [])
    except (OSError, SyntaxError, ValueError, ImportError):
        return ""
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == entry.attr)
    return next((ast.get_docstring(node) or "" for node in functions), "").partition("\n")[0]


def _components(ctx: Any) -> dict[str, Registered]:
    from recon_toolkit.plugins import load_plugins

    place = "".join(f"{word}/" for word in ctx.command_path.split()[1:])
    return {
        entry.name.removeprefix(place): entry
        for entry in load_plugins().registry.all()
        if entry.kind == "command" and entry.name.startswith(place) and "/" not in entry.name.removeprefix(place)
    }
