"""What the commands share: global settings, the plugin options, progress and JSON on standard output."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recon_toolkit.files import json_text
from recon_toolkit.progress import Progress

if TYPE_CHECKING:
    from recon_toolkit.plugins import PluginHost

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
