"""The command line: start-up, exit codes, messages, and the listings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recon_toolkit.cli.app import execute

TOY = Path(__file__).parent / "toy_plugin.py"
QUICK = ["pipelines", "unsup3d-quick"]


def in_new_process(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, **options)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["plugins"], ["pipelines"]])
def test_start_up_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom recon_toolkit.cli.app import execute\n"
        f"code = execute({arguments!r})\n"
        "heavy = {'torch', 'numpy', 'pandas', 'numba', 'matplotlib', 'PIL', 'rich'} & sys.modules.keys()\n"
        "print(code, sorted(heavy), file=sys.stderr)"
    )
    assert in_new_process(code).stderr == "0 []\n"


def test_the_package_offers_decorators_without_torch() -> None:
    code = (
        "import sys\nfrom recon_toolkit import loss, renderer, encoder, dataset, model\n"
        "from recon_toolkit import Component, hookimpl, ReconError\n"
        "print('torch' in sys.modules)\nfrom recon_toolkit import Batch\nprint('torch' in sys.modules)"
    )
    assert in_new_process(code).stdout.split() == ["False", "True"]


def test_every_exported_name_exists() -> None:
    import recon_toolkit

    assert all(getattr(recon_toolkit, name) is not None for name in recon_toolkit.__all__)
    assert set(recon_toolkit.__all__) <= set(dir(recon_toolkit))
    with pytest.raises(AttributeError, match="no attribute 'los'"):
        _ = recon_toolkit.los  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "command",
    [
        line.split()
        for line in (
            "",
            "run",
            "score",
            "reconstruct",
            "convert",
            "import",
            "weights",
            "view",
            "demo",
            "data pack",
            "pipelines",
            "plugins",
        )
    ],
)
def test_every_help_has_examples_and_the_first_one_the_exit_codes(command: list[str], capsys: Any) -> None:
    assert execute([*command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"recon {' '.join(command)}".rstrip() in text
    assert "Examples:\n    recon " in text
    if not command:
        assert "2 error in what was asked for" in " ".join(text.split())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["plugns"], 2, "Did you mean 'plugins'?"),
        (["run"], 2, "Missing option '--pipeline'"),
        (["run", "--pipeline", "unsup3d-quik"], 2, "there is no pipeline 'unsup3d-quik' (nearest is 'unsup3d-quick'"),
        (["run", "--pipeline", "unsup3d-quick", "--data", "nowhere"], 2, "error: --data: there is no folder nowhere"),
        (["run", "--pipeline", "unsup3d-quick", "--seed", "-1"], 2, "error: --set seed: 'seed' should be greater"),
        (["plugins", "--disable-plugin", "unsup"], 2, "error: there is no plugin 'unsup' to leave out (nearest is"),
        ([*QUICK, "--set", "trainig.steps=1"], 2, "there is no key 'trainig' (nearest is 'training')"),
        ([*QUICK, "--plugin", "none.py"], 2, "error: --plugin none.py: the plugin"),
    ],
)
def test_a_users_error_is_one_message_and_code_2(arguments: list[str], code: int, message: str, capsys: Any) -> None:
    assert execute(arguments) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_several_problems_are_a_line_each(capsys: Any) -> None:
    assert execute([*QUICK, "--set", "a=1", "--set", "b=1"]) == 2
    assert [line[:20] for line in capsys.readouterr().err.splitlines()] == [
        "error: --set a: ther",
        "error: --set b: ther",
    ]


@pytest.mark.parametrize("position", [0, 2])
def test_debug_shows_the_traceback_wherever_it_stands(position: int, capsys: Any) -> None:
    arguments = ["run", "--pipeline", "nothing"]
    arguments.insert(0 if position == 0 else len(arguments), "--debug")
    assert execute(arguments) == 2
    captured = capsys.readouterr()
    assert "Traceback (most recent call last)" in captured.err
    assert captured.err.rstrip().rpartition("\n")[2].startswith("error: there is no pipeline 'nothing'")


def test_version(capsys: Any) -> None:
    assert execute(["--version"]) == 0
    assert capsys.readouterr().out == "recon-toolkit 0.1.0\n"


def test_plugins_lists_ours_and_a_file(capsys: Any) -> None:
    assert execute(["plugins", "--plugin", str(TOY)]) == 0
    text = capsys.readouterr().out
    assert "unsup3d 0.1.0  (recon-toolkit 0.1.0)" in text
    assert f"toy_plugin.py  ({TOY})" in text
    assert "toy-colour" in text


def test_plugins_as_json_with_a_broken_one_and_a_conflict(tmp_path: Path, capsys: Any) -> None:
    broken, twin = tmp_path / "broken.py", tmp_path / "twin.py"
    broken.write_text("raise ImportError('no cv2 here')")
    twin.write_text("from recon_toolkit import loss\n@loss('photometric')\ndef f(prediction, target): ...")
    arguments = ["plugins", "--json", "--plugin", str(broken), "--plugin", str(twin), "--disable-plugin", "datasets"]
    assert execute(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    names = [plugin["name"] for plugin in found["plugins"]]
    assert {"synthetic-faces", "unsup3d"} < set(names) and names[-1] == "twin.py" and "datasets" not in names
    assert [(failure["name"], failure["cause"]) for failure in found["failures"]] == [
        ("broken.py", "ImportError: no cv2 here")
    ]
    assert [(conflict["name"], conflict["providers"]) for conflict in found["conflicts"]] == [
        ("photometric", ["twin.py", "unsup3d"])
    ]
    assert found["disabled"] == ["datasets"]


def test_plugins_check_finds_a_component_that_cannot_be_imported(tmp_path: Path, capsys: Any) -> None:
    lazy = tmp_path / "lazy.py"
    lazy.write_text(
        "from recon_toolkit import Component, hookimpl\n@hookimpl\ndef recon_components():\n"
        "    yield Component('loss', 'lazy', 'nowhere_at_all:f')"
    )
    assert execute(["plugins", "--plugin", str(lazy)]) == 0
    assert "not working" not in capsys.readouterr().out
    assert execute(["plugins", "--check", "--plugin", str(lazy)]) == 2
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("not working")]
    assert "lazy.py" in line
    assert "No module named 'nowhere_at_all'" in line


def test_pipelines_are_listed_with_their_description(capsys: Any) -> None:
    assert execute(["pipelines", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["pipelines"]
    quick = next(pipeline for pipeline in found if pipeline["name"] == "unsup3d-quick")
    assert quick["provider"] == "recon-toolkit"
    assert quick["description"]


def test_a_pipeline_is_shown_resolved_and_can_be_read_again(tmp_path: Path, capsys: Any) -> None:
    assert execute([*QUICK, "--set", "training.steps=7"]) == 0
    text = capsys.readouterr().out
    assert "extends" not in text
    (tmp_path / "mine.yaml").write_text(text)
    assert execute(["pipelines", str(tmp_path / "mine.yaml")]) == 0
    assert capsys.readouterr().out == text


def test_a_broken_plugin_is_a_warning_where_it_is_not_needed(tmp_path: Path) -> None:
    site = tmp_path / "broken_dist-1.0.dist-info"
    site.mkdir()
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-dist\nVersion: 1.0\n")
    (site / "entry_points.txt").write_text("[recon_toolkit]\nbroken = broken_module\n")
    (tmp_path / "broken_module.py").write_text("1 / 0")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    code = "import sys; from recon_toolkit.cli.app import execute; sys.exit(execute(['pipelines', 'unsup3d-quick']))"
    result = in_new_process(code, env=environment)
    assert result.returncode == 0
    assert "warning: plugin 'broken' (broken-dist 1.0) is not used: ZeroDivisionError" in result.stderr


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = "from recon_toolkit.cli import main; import sys; sys.argv = ['recon', 'plugins']; main()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 0


def test_a_fault_of_our_own_is_code_1(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import recon_toolkit.plugins

    def fails(*_: object) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(recon_toolkit.plugins, "load_plugins", fails)
    assert execute(["plugins"]) == 1
    assert "error: RuntimeError: unforeseen; this is a fault of" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1"])
@pytest.mark.parametrize("arguments", [["plugins"], ["plugins", "--json"], ["pipelines"]])
def test_a_terminal_without_our_characters_gets_other_ones(encoding: str, arguments: list[str]) -> None:
    environment = os.environ | {"PYTHONIOENCODING": encoding, "LC_ALL": "C"}
    code = f"import sys\nfrom recon_toolkit.cli import main\nsys.argv = {['recon', *arguments]!r}\nmain()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, env=environment)
    assert (result.returncode, result.stderr) == (0, b"")
    text = result.stdout.decode(encoding)
    assert "unsup3d" in text
    if "--json" in arguments:
        assert json.loads(text)


@pytest.mark.skipif(os.name == "nt", reason="streams are closed by a POSIX shell here")
@pytest.mark.parametrize(("redirection", "code"), [(">&-", 0), (">&- 2>&-", 0), ("> /dev/full", 2), ("| head -0", 0)])
def test_a_closed_or_full_output_is_no_fault(redirection: str, code: int) -> None:
    command = f"{sys.executable} -m recon_toolkit plugins {redirection}; exit $?"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert result.returncode == code and "Traceback" not in result.stderr and "fault" not in result.stderr
