"""Pipelines from files: joining, validating, resolving, and every mistake of the user's at once."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

from recon_toolkit import ConfigError, load_pipeline
from recon_toolkit.config.pipeline import ResolvedPipeline
from recon_toolkit.config.sources import builtin_config_dir, list_pipelines
from recon_toolkit.plugins import PluginHost, load_plugins

TOY = Path(__file__).parent / "toy_plugin.py"

TOY_PIPELINE = """\
description: a toy
model: {name: toy-model}
encoders:
  depth: {name: toy-encoder, width: 4}
  light: {name: toy-encoder}
renderer: {name: toy-renderer}
losses:
  colour: {name: toy-colour, likelihood: laplace}
  flipped: {name: toy-colour, of: flipped, weight: 0.5, scale: 2}
dataset: {name: toy-data, root: images}
training: {epochs: 2}
"""


@pytest.fixture
def host() -> PluginHost:
    return load_plugins([TOY], entry_points=[])


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(TOY_PIPELINE)


def load(text: str, host: PluginHost, *overrides: str, name: str = "mine.yaml") -> ResolvedPipeline:
    Path(name).write_text(text)
    return load_pipeline(name, overrides, host)


def problems(text: str, host: PluginHost, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, host, *overrides)
    return [str(problem) for problem in caught.value.problems]


def test_a_pipeline_is_resolved_with_all_defaults(host: PluginHost, tmp_path: Path) -> None:
    resolved = load_pipeline("toy.yaml", [], host)
    pipeline = resolved.pipeline
    assert (resolved.name, resolved.source) == ("toy", tmp_path / "toy.yaml")
    assert pipeline.training.epochs == 2.0
    assert pipeline.training.learning_rate == 1e-4
    assert pipeline.encoders["light"].options == {"width": 8, "norm": True}
    assert pipeline.losses["flipped"].weight == 0.5
    assert pipeline.losses["flipped"].options == {"scale": 2.0}
    assert resolved.components["dataset",].options["root"] == tmp_path / "images"
    assert resolved.encoder_shapes == {"depth": (3, 1), "light": (3, 4)}
    assert set(resolved.section("losses")) == {"colour", "flipped"}
    assert pipeline.plugins == [TOY]


def test_the_written_form_needs_nothing_else_and_says_the_same(host: PluginHost) -> None:
    words = "description: 'on: 1e-4 ☃'\nextends: toy.yaml\ndataset: {names: ['1', 'null', 'true', '1e-4', ~x]}"
    first = load(words + "\nrenderer: null", host, "dataset.share=1e-5", "seed=7")
    Path("elsewhere").mkdir()
    second = load(first.to_yaml(), load_plugins(entry_points=[]), name="elsewhere/pipeline.yaml")
    assert second.pipeline == first.pipeline
    assert second.to_yaml() == first.to_yaml()
    assert second.fingerprint == first.fingerprint
    assert second.pipeline.dataset.options["names"] == ["1", "null", "true", "1e-4", "~x"]


def test_numbers_that_are_not_finite_survive_the_written_form(host: PluginHost) -> None:
    first = load("extends: toy.yaml\ndataset: {options: {low: -.inf, high: .inf}}", host)
    assert first.components["dataset",].options["options"] == {"low": -math.inf, "high": math.inf}
    second = load(first.to_yaml(), host)
    assert second.components["dataset",].options["options"] == {"low": -math.inf, "high": math.inf}


def test_extends_works_by_relative_path_and_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "plug" / "pipelines"
    folder.mkdir(parents=True)
    shutil.copy(TOY, tmp_path / "plug" / "toys.py")
    (tmp_path / "plug" / "toys.py").write_text(
        TOY.read_text() + "\nfrom recon_toolkit import hookimpl\n"
        "@hookimpl\ndef recon_pipelines(): yield Path(__file__).parent / 'pipelines'\n"
    )
    (folder / "base.yaml").write_text(TOY_PIPELINE)
    (folder / "middle.yaml").write_text("extends: base.yaml\nseed: 3\ndataset: {root: near}")
    host = load_plugins([tmp_path / "plug" / "toys.py"], entry_points=[])
    resolved = load("extends: middle\nimage_size: 32", host)
    assert (resolved.pipeline.seed, resolved.pipeline.image_size) == (3, 32)
    assert resolved.pipeline.description == ""  # the parent's describes the parent
    assert resolved.components["dataset",].options["root"] == folder / "near"
    assert load_pipeline("toys.py:middle", [], host).name == "middle"


def test_extends_problems_name_the_line(host: PluginHost) -> None:
    Path("a.yaml").write_text("seed: 1\nextends: b.yaml")
    Path("b.yaml").write_text("extends: ./a.yaml")
    assert problems("extends: a.yaml", host) == [
        "b.yaml:1: 'extends' goes in a circle: mine.yaml -> a.yaml -> b.yaml -> a.yaml"
    ]
    assert problems("\nextends: toi.yaml", host)[0].startswith("mine.yaml:2: there is no file 'toi.yaml'")
    assert problems("extends: unsup3d-quik", host)[0].startswith(
        "mine.yaml:1: there is no pipeline 'unsup3d-quik' (near"
    )
    assert problems("extends: [a]", host)[0] == "mine.yaml:1: 'extends' is the name or the path of one pipeline"


EVERY_MISTAKE = """\
extends: toy.yaml
modle: {name: x}
image_size: big
encoders:
  depth: {wdith: 4}
  light: {width: "8"}
  lihgt: {name: toy-encoder}
losses:
  colour: {likelihood: laplac, likelihood: none}
  flip: {weight: 0}
  flipped: {of: fliped, scale: abc, weight: -1}
  edges: {name: my-edges}
  weighty: {name: weighty}
  perceptual: null
dataset: {name: toy-dta}
training:
  steps: 10
  betas: [0.9, 1.5]
  learning_rate: 1e-4x
  stpes: 3
  epochs: 2
camera: {fov: 200}
plugins: [missing.py]
"""


def test_every_mistake_is_told_at_once_with_its_line(host: PluginHost) -> None:
    assert problems(EVERY_MISTAKE, host, "training.log_every=0", "nonsense") == [
        "mine.yaml:2: there is no key 'modle' (nearest is 'model')",
        "mine.yaml:3: 'image_size' should be a whole number, not \"big\"",
        "mine.yaml:5: encoder 'toy-encoder' has no option 'wdith' (nearest is 'width')",
        "mine.yaml:6: 'encoders.light.width' should be a whole number, not \"8\"",
        "mine.yaml:7: model 'toy-model' has no use for an encoder 'lihgt' "
        "(nearest is 'light'; 'encoders.lihgt: null' takes it away)",
        "mine.yaml:9: 'likelihood' is given twice (first at mine.yaml:9)",
        "mine.yaml:9: 'losses.colour.likelihood' should be 'none', 'laplace' or 'gaussian', not \"laplac\"",
        "mine.yaml:10: 'losses.flip' names no component (nearest is 'flipped')",
        "mine.yaml:11: 'losses.flipped.weight' should be greater than or equal to 0, not -1",
        "mine.yaml:11: 'losses.flipped.scale' should be a number, not \"abc\"",
        "mine.yaml:11: model 'toy-model' makes no image pair 'fliped' with these options (nearest is 'flipped')",
        "mine.yaml:12: there is no loss 'my-edges' (known: anything, three-arguments, toy-colour, toy-features, "
        "toy-smooth, weighty; or it belongs to a plugin that is not working: 'missing.py' (there is no such file))",
        "mine.yaml:13: the option 'weight' of loss 'weighty' of plugin 'toy_plugin.py' has the name of a key that "
        "pipelines use themselves (rename the argument)",
        "mine.yaml:14: there is no 'losses.perceptual' to take away (known: colour, flipped)",
        "mine.yaml:15: there is no dataset 'toy-dta' (nearest is 'toy-data'; or it belongs to a plugin that is not "
        "working: 'missing.py' (there is no such file))",
        "mine.yaml:18: 'training.betas.1' should be less than 1, not 1.5",
        "mine.yaml:19: 'training.learning_rate' should be a number, not \"1e-4x\"",
        "mine.yaml:20: there is no key 'training.stpes' (nearest is 'steps')",
        "mine.yaml:22: 'camera.fov' should be less than 180, not 200",
        f"mine.yaml:23: the plugin '{Path.cwd()}/missing.py' cannot be used: there is no such file",
        "--set nonsense: an override is written a.b.c=value",
        "--set training.log_every: 'training.log_every' should be greater than or equal to 1, not 0",
    ]


def test_what_is_missing_is_told_too(host: PluginHost) -> None:
    assert problems("seed: 1", host) == [
        f"mine.yaml: '{key}' is missing" for key in ("model", "losses", "dataset", "training")
    ]
    assert problems("extends: toy.yaml\nencoders: {light: null}", host) == [
        "toy.yaml:3: model 'toy-model' needs an encoder for 'light' (add encoders.light)"
    ]
    for training in ("training: {epochs: null}", "training: {steps: 3, epochs: 2}"):
        assert problems(f"extends: toy.yaml\n{training}", host)[0].endswith(
            "'training': exactly one of 'steps', 'epochs' and 'minutes' must be given"
        )
    assert problems("extends: toy.yaml\nlosses: {colour: null, flipped: null}", host)[0].endswith(
        "'losses' is empty: there is nothing to train with"
    )


def test_a_models_options_decide_which_encoders_and_pairs_it_has(host: PluginHost) -> None:
    assert problems("extends: toy.yaml\nmodel: {light: false, flip: false}", host) == [
        "toy.yaml:5: model 'toy-model' has no use for an encoder 'light' "
        "(known: depth, extra; 'encoders.light: null' takes it away)",
        "toy.yaml:9: model 'toy-model' makes no image pair 'flipped' with these options (known: plain)",
    ]
    resolved = load(
        "extends: toy.yaml\nmodel: {light: false}\nencoders: {light: null, extra: {name: toy-encoder}}", host
    )
    assert resolved.encoder_shapes == {"depth": (3, 1), "extra": (3, 9)}


def test_overrides_come_last_and_follow_the_same_rules(host: PluginHost, tmp_path: Path) -> None:
    resolved = load_pipeline(
        "toy.yaml",
        [
            "losses.flipped.weight=0",
            "losses.colour=null",
            "training.steps=5",
            "encoders.depth.name=toy-encoder",
            "encoders.depth.norm=false",
            "dataset.root=here",
            "losses.smooth={name: toy-smooth, order: 2}",
            "losses.smooth.order=3",
        ],
        host,
    )
    pipeline = resolved.pipeline
    assert {name: (term.weight, term.options) for name, term in pipeline.losses.items()} == {
        "flipped": (0.0, {"scale": 2.0}),
        "smooth": (1.0, {"order": 3}),
    }
    assert (pipeline.training.steps, pipeline.training.epochs) == (5, None)
    assert pipeline.encoders["depth"].options == {"width": 4, "norm": False}
    assert resolved.components["dataset",].options["root"] == tmp_path / "here"
    assert problems("extends: toy.yaml", host, "losses.flip.weight=0", "extends=toy.yaml") == [
        "--set extends: 'extends' can only stand in a file",
        "--set losses.flip.weight: 'losses.flip' names no component (nearest is 'flipped')",
    ]


def test_a_pipeline_may_bring_its_plugins(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    shutil.copy(TOY, "base/toys.py")
    Path("base/base.yaml").write_text(TOY_PIPELINE + "plugins: [toys.py]")
    Path("more.py").write_text("from recon_toolkit import loss\n@loss('more')\ndef f(prediction, target): ...")
    text = "extends: base/base.yaml\nplugins: [more.py]\nlosses: {more: {name: more}}"
    resolved = load(text, load_plugins(entry_points=[]))
    assert resolved.components["losses", "more"].entry.provider == "more.py"
    assert set(resolved.pipeline.plugins) == {tmp_path / "more.py", tmp_path / "base/toys.py"}


def test_the_fingerprint_changes_with_what_trains_and_with_nothing_else(host: PluginHost, tmp_path: Path) -> None:
    base = load_pipeline("toy.yaml", [], host)
    same = [
        "description=x",
        "training.log_every=7",
        "evaluation.images=5",
        f"dataset.root={tmp_path / 'moved' / 'images'}",
    ]
    assert load_pipeline("toy.yaml", same, host).fingerprint == base.fingerprint
    others = [
        "seed=1",
        "losses.flipped.weight=0",
        "training.learning_rate=1e-3",
        "encoders.depth.width=6",
        "model.depth_min=0.7",
    ]
    prints = {load_pipeline("toy.yaml", [other], host).fingerprint for other in others}
    assert len(prints | {base.fingerprint}) == len(others) + 1
    weights = [
        load_pipeline("toy.yaml", [other], host).weights_fingerprint == base.weights_fingerprint for other in others
    ]
    assert weights == [True, True, True, False, False]


def test_names_and_paths_of_pipelines(host: PluginHost) -> None:
    for name, message in {
        "unsup3d-quik": "there is no pipeline 'unsup3d-quik' (nearest is 'unsup3d-quick'",
        "unsup3d-quick.yaml": "there is no file 'unsup3d-quick.yaml' (the installed one is called 'unsup3d-quick')",
        "none/x.yaml": "there is no file 'none/x.yaml' (looked in none)",
    }.items():
        with pytest.raises(ConfigError) as caught:
            load_pipeline(name, [], host)
        assert str(caught.value).startswith(message)


@pytest.mark.parametrize("source", list_pipelines(load_plugins(entry_points=[])), ids=lambda source: source.name)
def test_every_shipped_pipeline_is_valid_and_described(source: object) -> None:
    resolved = load_pipeline(source.name, [], load_plugins())  # type: ignore[attr-defined]
    assert resolved.pipeline.description
    assert resolved.source.parent == builtin_config_dir()
