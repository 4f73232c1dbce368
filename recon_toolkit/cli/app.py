"""The ``recon`` application: its global options, its commands, and how errors become exit codes."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer
import typer.main

from recon_toolkit import threads
from recon_toolkit.cli import (
    bench,
    check_renderer,
    convert,
    data,
    demo,
    import_weights,
    pipelines,
    plugins,
    reconstruct,
    run,
    score,
    view,
    weights,
)
from recon_toolkit.cli.common import Settings, fail
from recon_toolkit.cli.plugin_commands import GroupWithPlugins
from recon_toolkit.errors import ConfigError, ReconError

EXIT_CODES = (
    "Exit codes: 0 done, 1 internal error, 2 error in what was asked for, 3 training failed, a renderer does not "
    "conform, or only some pictures could be used, 130 interrupted."
)
GLOBAL_FLAGS = ("--debug", "--quiet")
#: Global options with a value.
GLOBAL_OPTIONS = ("--threads",)

app = typer.Typer(
    name="recon",
    cls=GroupWithPlugins,
    help="Learn the 3D shape of a kind of object from single photographs.\n\n"
    "\b\nExamples:\n"
    "  recon run --pipeline unsup3d-quick --out runs/faces\n"
    "  recon reconstruct --run runs/faces photo.png\n"
    "  recon pipelines\n"
    "  recon plugins",
    epilog=f"{EXIT_CODES} --debug, --quiet and --threads may also stand after the command.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from recon_toolkit import __version__

        print(f"recon-toolkit {__version__}")
        raise typer.Exit()


@app.callback()
def _global_options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars; warnings still appear.")] = False,
    thread_count: Annotated[
        int | None,
        typer.Option(
            "--threads",
            min=1,
            metavar="N",
            help="CPU threads to use; by default those this process was given.",
            show_default=False,
        ),
    ] = None,
) -> None:
    if thread_count is not None:
        threads.take(thread_count)
    context.obj = Settings(debug=debug, quiet=quiet)


for command in (
    run, bench, score, reconstruct, convert, view, demo, check_renderer, data, import_weights, weights, pipelines,
    plugins,
):  # fmt: skip
    command.register(app)


def main() -> None:
    """Entry point of the ``recon`` script."""
    threads.take()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C: cleans up and says so
    sys.exit(execute(sys.argv[1:]))


def execute(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    flags, rest = _hoist_flags(arguments)
    try:
        typer.main.get_command(app).main(args=[*flags, *rest], prog_name="recon")
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):
            return _reader_left()
        if isinstance(getattr(stop.__context__, "__cause__", None), KeyboardInterrupt):  # typer made it an exit
            fail("interrupted")
        return _flushed(stop.code if isinstance(stop.code, int) else int(stop.code is not None))
    except KeyboardInterrupt:
        fail("interrupted")
        return 130
    except ReconError as error:
        problems = error.problems if isinstance(error, ConfigError) else [error]
        return _report(error, [str(problem) for problem in problems], error.exit_code, "--debug" in flags)
    except BrokenPipeError:
        return _reader_left()
    except Exception as error:
        message = f"{type(error).__name__}: {error}; this is a fault of recon-toolkit or of a plugin"
        return _report(error, [f"{message} (--debug shows where)"], 1, "--debug" in flags)
    return _flushed(0)


def _hoist_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Global options first, wherever they stood, so that ``recon run --debug`` works for every command."""
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    flags: list[str] = []
    rest: list[str] = []
    words = iter(arguments[:end])
    for word in words:
        if word in GLOBAL_FLAGS or word.partition("=")[0] in GLOBAL_OPTIONS:
            flags.append(word)
            flags += [value for value in (next(words, None),) if value is not None] if word in GLOBAL_OPTIONS else []
        else:
            rest.append(word)
    return flags, [*rest, *arguments[end:]]


def _report(error: BaseException, messages: Sequence[str], code: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    for message in messages:
        fail(message)
    return _flushed(code)


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_left()
    return code


def _reader_left() -> int:
    """``recon ... | head`` closed the pipe: not our error; keep the interpreter from trying to write at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
