"""The ``recon`` application: its global options, its commands, and how errors become exit codes."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from itertools import islice
from typing import Annotated

import typer
import typer.main

from recon_toolkit import threads
from recon_toolkit.cli import data
from recon_toolkit.cli.common import GroupWithPlugins, Settings, fail
from recon_toolkit.cli.convert import convert
from recon_toolkit.cli.plugins import list_plugins, show_pipelines
from recon_toolkit.cli.reconstruct import reconstruct
from recon_toolkit.cli.run import import_weights, run, score, weights
from recon_toolkit.errors import ConfigError, ReconError
from recon_toolkit.files import NO_SPACE, settle_matplotlib

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


app.command("run", short_help="Train and score a pipeline.")(run)
app.command("score")(score)
app.command("reconstruct")(reconstruct)
app.command("convert", short_help="Convert clouds, meshes and voxels, also for 3D printing.")(convert)
app.add_typer(data.commands, name="data")
app.command("import", short_help="Turn a published checkpoint into weights.")(import_weights)
app.command("weights", short_help="Write a run's model as one small file.")(weights)
app.command("pipelines", short_help="List pipelines, or show one resolved.")(show_pipelines)
app.command("plugins", short_help="List plugins and what they provide.")(list_plugins)


def main() -> None:
    """Entry point of the ``recon`` script."""
    _settle_streams()
    threads.take()
    settle_matplotlib()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C: cleans up and says so
    sys.exit(execute(sys.argv[1:]))


def _settle_streams() -> None:
    """Where a stream cannot take a character, a question mark stands in its place; where it is closed, nothing."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before we started
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  it stays open to the end
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


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
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            fail("no space left on the disk that the output goes to")
            return _reader_left(2)
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            fail(f"{str(error.filename)[:80]}…: the name is too long")
            return _flushed(2)
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
            flags += islice(words, 1) if word in GLOBAL_OPTIONS else ()
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
    except OSError as error:  # the disk that it goes to is full
        fail(f"the output could not be written: {error.strerror}")
        return _reader_left(code or 2)
    except ValueError:  # closed by somebody meanwhile
        return code
    return code


def _reader_left(code: int = 0) -> int:
    """``recon ... | head`` closed the pipe: not our error; keep the interpreter from trying to write at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code
