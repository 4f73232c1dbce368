"""Whose fault a problem is: an override's, that of a plugin with a name twice, or of one that leaves the program."""

import os
import signal
import subprocess
import sys
import time

import pytest

from recon_toolkit import ConfigError, PluginError, build_model, load_pipeline
from recon_toolkit.components import blamed
from recon_toolkit.plugins import load_plugins

CLASH = (
    "from recon_toolkit import loss\n@loss('photometric')\ndef mine(prediction, target):\n    raise KeyError('mine')"
)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("image_size=100", "--set image_size=100: encoder"),
        ("encoders.depth.width=7", "--set encoders.depth.width=7: encoder"),
        ("model.depth_min=2", "--set model.depth_min=2: renderer"),
        ("renderer=null", "--set renderer=null: model"),
        ("encoders.depth=null", "--set encoders.depth=null: model 'unsup3d' needs an encoder for 'depth'"),
        ("training.steps=null", "--set training.steps=null: 'training': exactly one"),
        ("model=null", "--set model=null: 'model' is missing"),
        ("losses={a: null}", "--set losses: there is no 'losses.a'"),
    ],
)
def test_an_error_that_an_override_causes_names_it_and_no_shipped_file(override, message):
    with pytest.raises((ConfigError, PluginError)) as caught:
        build_model(load_pipeline("unsup3d-quick-photometric", ["seed=3", override]))
    assert message in str(caught.value)
    assert "seed" not in str(caught.value) and "configs" not in str(caught.value)


def test_a_line_of_the_users_own_file_is_named_where_a_shipped_one_only_names_the_component(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: unsup3d-quick-photometric\nimage_size: 100\n")
    with pytest.raises(PluginError, match=r"mine.yaml:2 \(image_size: 100\): encoder"):
        build_model(load_pipeline(tmp_path / "mine.yaml"))


def test_a_shipped_pipeline_keeps_its_component_where_a_plugin_has_the_name(tmp_path):
    (tmp_path / "mine.py").write_text(CLASH)
    alone = load_pipeline("unsup3d-quick-photometric")
    both = load_pipeline("unsup3d-quick-photometric", host=load_plugins([tmp_path / "mine.py"]))
    assert both.components["losses", "photometric"].entry.provider == "unsup3d"
    assert both.fingerprint == alone.fingerprint
    assert alone.pipeline.losses["photometric"].name == "photometric"
    assert both.pipeline.losses["photometric"].name == "unsup3d:photometric"
    # What is stored means the same, with the plugin and without; so does what was stored before it was there.
    for stored, host in ((both, load_plugins()), (both, both.host), (alone, both.host)):
        folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / "model.safetensors").touch()
        (folder / "pipeline.yaml").write_text(stored.to_yaml().replace(str(tmp_path / "mine.py"), ""))
        text = (folder / "pipeline.yaml").read_text()
        (folder / "pipeline.yaml").write_text("\n".join(x for x in text.splitlines() if not x.startswith("plugins:")))
        again = load_pipeline(folder / "pipeline.yaml", host=host)
        assert again.components["losses", "photometric"].entry.provider == "unsup3d"
        assert again.fingerprint == alone.fingerprint


def test_a_plugins_own_pipeline_means_its_own_component(tmp_path):
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "theirs.yaml").write_text(
        "extends: unsup3d-quick-photometric\nlosses: {other: {name: photometric}, edges: {name: edges}}\n"
    )
    folder = "\nfrom pathlib import Path\nfrom recon_toolkit import hookimpl\n@hookimpl\ndef recon_pipelines():\n"
    (tmp_path / "mine.py").write_text(CLASH + folder + "    yield Path(__file__).parent / 'pipelines'\n")
    (tmp_path / "more.py").write_text(CLASH.replace("photometric", "edges"))
    found = load_pipeline("theirs", host=load_plugins([tmp_path / "mine.py", tmp_path / "more.py"]))
    providers = {name: part.entry.provider for name, part in found.section("losses").items()}
    assert providers == {"photometric": "unsup3d", "flipped": "unsup3d", "other": "mine.py", "edges": "losses"}


def test_a_users_own_pipeline_must_say_which_and_can(tmp_path):
    (tmp_path / "mine.py").write_text(CLASH)
    host = load_plugins([tmp_path / "mine.py"])
    path = tmp_path / "mine.yaml"
    path.write_text("extends: unsup3d-quick-photometric\nlosses: {other: {name: photometric}}\n")
    with pytest.raises(ConfigError, match=r"mine.yaml:2: .*'mine.py:photometric' or 'unsup3d:photometric'"):
        load_pipeline(path, host=host)
    for provider in ("mine.py", "unsup3d"):
        path.write_text(f"extends: unsup3d-quick-photometric\nlosses: {{other: {{name: '{provider}:photometric'}}}}\n")
        assert load_pipeline(path, host=host).components["losses", "other"].entry.provider == provider


@pytest.mark.parametrize(
    "lines",
    [
        "".join(f"key{i}: 1\n" for i in range(4000)),
        "losses:\n" + "".join(f"  t{i}: {{weight: 1}}\n" for i in range(4000)),
        "losses:\n" + "".join(f"  t{i}: {{name: t{i}}}\n" for i in range(2000)),
        "losses:\n" + "".join(f"  t{i}: null\n" for i in range(4000)),
        "encoders:\n" + "".join(f"  t{i}: {{name: conv-regressor}}\n" for i in range(2000)),
        "seed: 1\n" * 4000,
    ],
)
def test_of_thousands_of_mistakes_the_first_are_told_and_the_rest_counted(tmp_path, lines):
    path = tmp_path / "many.yaml"
    path.write_text("extends: unsup3d-quick-photometric\n" + lines)
    started = time.process_time()
    with pytest.raises(ConfigError) as caught:
        load_pipeline(path)
    assert time.process_time() - started < 10
    assert len(caught.value.problems) < 60
    assert any(problem.message.startswith("and ") for problem in caught.value.problems)


@pytest.mark.parametrize(
    "leaves", ["import sys; sys.exit(0)", "raise KeyboardInterrupt", "raise GeneratorExit from None"]
)
def test_a_plugin_that_leaves_the_program_while_it_is_loaded_is_named(tmp_path, leaves, recon):
    (tmp_path / "leaves.py").write_text(leaves.replace("GeneratorExit", "type('Stop', (BaseException,), {})"))
    code, out, _ = recon("plugins", "--plugin", tmp_path / "leaves.py")
    assert "not working: leaves.py" in out and code == 0
    code, _, err = recon("run", "--pipeline", "unsup3d-quick", "--plugin", tmp_path / "leaves.py")
    assert code == 2 and "leaves.py" in err


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt()])
def test_a_component_that_leaves_the_program_is_named(error):
    with (
        pytest.raises(PluginError, match=rf"the loss of losses.a raised {type(error).__name__}"),
        blamed("the loss of losses.a"),
    ):
        raise error


@pytest.mark.parametrize("cleans_up", [False, True])
def test_ctrl_c_in_a_component_still_interrupts(cleans_up):
    with pytest.raises(KeyboardInterrupt), blamed("the loss of losses.a"):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt as error:
            if cleans_up:
                raise KeyboardInterrupt("cleaned up") from error
            raise


def test_ctrl_c_while_a_plugin_is_loaded_ends_the_command(tmp_path):
    (tmp_path / "slow.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(60)\n")
    command = [sys.executable, "-m", "recon_toolkit", "plugins", "--plugin", str(tmp_path / "slow.py")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "slow.py" not in err
