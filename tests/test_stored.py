"""Pipelines that come with other people's weights: nothing that they name is executed or read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from recon_toolkit import ConfigError, build_losses
from recon_toolkit.cli.app import execute
from recon_toolkit.config.pipeline import load_pipeline
from recon_toolkit.config.sources import is_sealed, seal
from recon_toolkit.engine.checkpoint import WEIGHTS, Checkpoint, save_checkpoint
from recon_toolkit.inference.models import TrainedModel, load_model
from recon_toolkit.plugins import load_plugins


@pytest.fixture(scope="module")
def bundled() -> TrainedModel:
    return load_model()


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A plugin that leaves a trace when it runs."""
    path = tmp_path / "stranger.py"
    path.write_text(
        "from pathlib import Path\nfrom recon_toolkit import loss\n"
        f"Path({str(tmp_path / 'ran')!r}).touch()\n"
        "@loss('strange')\ndef strange(prediction, target):\n    return prediction - target\n",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def weights(tmp_path: Path, bundled: TrainedModel) -> Callable[[str], Path]:
    """Writes the bundled model with another pipeline in its metadata."""

    def write(pipeline: str, path: Path = tmp_path / "theirs.safetensors") -> Path:
        tensors = {f"model.{name}": value for name, value in bundled.network.state_dict().items()}
        save_checkpoint(path, Checkpoint(0, pipeline, bundled.resolved.fingerprint, tensors, {}))
        return path

    return write


def naming(bundled: TrainedModel, plugin: Path) -> str:
    text = bundled.resolved.to_yaml()
    assert "plugins: []" in text
    return text.replace("plugins: []", f"plugins: ['{plugin}']")


def test_a_weights_file_runs_a_plugin_only_if_it_is_let_in(
    tmp_path: Path, bundled: TrainedModel, plugin: Path, weights: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    file = weights(naming(bundled, plugin))
    with pytest.raises(ConfigError, match=r"theirs\.safetensors.*stranger\.py.*--plugin FILE.*--trust"):
        load_model(weights=file)
    assert not (tmp_path / "ran").exists()
    load_model(weights=file, host=load_plugins([plugin]))
    assert (tmp_path / "ran").exists() and "running" not in capsys.readouterr().err
    load_model(weights=file, trust=True)
    assert f"running {plugin}" in capsys.readouterr().err


def test_a_plugin_that_lies_elsewhere_here_is_taken_by_its_name(
    tmp_path: Path, bundled: TrainedModel, plugin: Path, weights: Callable[[str], Path]
) -> None:
    file = weights(naming(bundled, Path("/home/somebody") / plugin.name))
    load_model(weights=file, host=load_plugins([plugin]))
    assert (tmp_path / "ran").exists()


def test_a_run_is_its_makers_own_by_its_seal(
    tmp_path: Path, bundled: TrainedModel, plugin: Path, weights: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "me"))
    run = tmp_path / "run"
    run.mkdir()
    recorded = run / "pipeline.yaml"
    recorded.write_text(naming(bundled, plugin), encoding="utf-8")
    weights(naming(bundled, plugin), run / WEIGHTS)
    # Somebody else's: neither its model nor the run itself can be had, by whatever command.
    for command in (
        ["reconstruct", "--run", str(run), str(tmp_path)],
        ["run", "--pipeline", str(recorded), "--out", str(run), "--resume"],
    ):
        assert execute(command) == 2
    with pytest.raises(ConfigError):
        load_model(run=run)
    assert not (tmp_path / "ran").exists()
    seal(run)
    assert is_sealed(recorded)
    load_model(run=run)
    assert (tmp_path / "ran").exists()
    recorded.write_text(recorded.read_text(encoding="utf-8") + "# another line\n", encoding="utf-8")
    assert not is_sealed(recorded)  # what was changed since is not what was sealed
    seal(run)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "somebody"))
    assert not is_sealed(recorded)  # and nobody else's key seals it


def test_nothing_is_sealed_where_no_key_can_be_kept(
    tmp_path: Path, bundled: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    (tmp_path / "pipeline.yaml").write_text(bundled.resolved.to_yaml(), encoding="utf-8")
    seal(tmp_path)
    assert not is_sealed(tmp_path / "pipeline.yaml")


def test_a_stored_pipeline_extends_nothing(
    tmp_path: Path, bundled: TrainedModel, weights: Callable[[str], Path]
) -> None:
    secret = tmp_path / "secret.yaml"
    secret.write_text("password: 1234\n", encoding="utf-8")
    for trust in (False, True):
        with pytest.raises(ConfigError, match=r"theirs\.safetensors:1.*extends nothing") as caught:
            load_model(weights=weights(f"extends: {secret}\n{bundled.resolved.to_yaml()}"), trust=trust)
        assert "password" not in str(caught.value)
    (tmp_path / "environment.json").touch()  # the folder of a run
    (tmp_path / "pipeline.yaml").write_text("extends: unsup3d-quick\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="extends nothing"):
        load_pipeline(tmp_path / "pipeline.yaml")


def test_files_that_options_name_are_not_read(
    tmp_path: Path, bundled: TrainedModel, weights: Callable[[str], Path]
) -> None:
    text = bundled.resolved.to_yaml().replace("weights: bundled", f"weights: {tmp_path / 'theirs.bin'}")
    assert "theirs.bin" in text
    trained = load_model(weights=weights(text))  # the losses are not built yet
    assert not trained.resolved.trusted
    from recon_toolkit import Reconstructor

    (tmp_path / "environment.json").touch()  # the same in the folder of a run, whatever builds it
    (tmp_path / "pipeline.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"pipeline\.yaml.*were not read.*theirs\.bin"):
        build_losses(load_pipeline(tmp_path / "pipeline.yaml"))
    with pytest.raises(ConfigError, match=r"were not read.*theirs\.bin"):
        Reconstructor(trained, None).refine([trained.network.convex_depth().detach().clamp(0, 1).numpy()], 1)
