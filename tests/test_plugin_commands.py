"""Commands that installed plugins bring along, run as a user runs them."""

import os
import subprocess
import sys

import pytest

PLUGIN = '''
"""A plugin with commands."""
from recon_toolkit import Component, hookimpl


@hookimpl
def recon_components():
    yield Component("command", "data/count", "counting.commands:count", "Count files.")
    yield Component("command", "hello", "counting.commands:hello", "Say hello.")
    yield Component("command", "broken", "counting.missing:hello", "Cannot be loaded.")
'''
COMMANDS = '''
from pathlib import Path
from typing import Annotated

import typer


def count(folder: Path, suffix: Annotated[str, typer.Option("--suffix", help="Which.")] = ".png") -> None:
    """Count the files of a folder."""
    print(len(list(folder.glob(f"*{suffix}"))))


def hello(context: typer.Context, name: str = "you") -> None:
    """Say hello."""
    print("hello", name, "quietly" if context.find_root().obj.quiet else "aloud")
'''


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    (folder / "counting").mkdir()
    (folder / "counting" / "__init__.py").write_text(PLUGIN)
    (folder / "counting" / "commands.py").write_text(COMMANDS)
    record = folder / "counting-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1.0\n")
    (record / "entry_points.txt").write_text("[recon_toolkit]\ncounting = counting\n")
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])

    def call(*arguments):
        command = [sys.executable, "-m", "recon_toolkit", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": path}, check=False
        )

    return call


def test_a_plugins_command_runs_in_its_group_with_its_options(run, tmp_path):
    (tmp_path / "a.txt").touch()
    found = run("data", "count", tmp_path, "--suffix", ".txt")
    assert (found.returncode, found.stdout) == (0, "1\n"), found.stderr
    assert "count" in run("data", "--help").stdout
    assert "Which." in run("data", "count", "--help").stdout


def test_it_sees_the_global_options(run):
    assert run("hello", "--name", "me").stdout == "hello me aloud\n"
    assert run("--quiet", "hello").stdout == "hello you quietly\n"


def test_one_that_cannot_be_loaded_is_named_with_its_plugin(run):
    found = run("broken")
    assert found.returncode == 2 and "the command 'broken' of plugin 'counting'" in found.stderr
    assert "Traceback" not in found.stderr


def test_a_command_that_nobody_has_is_refused(run):
    found = run("data", "cuont")
    assert found.returncode == 2 and "cuont" in found.stderr
