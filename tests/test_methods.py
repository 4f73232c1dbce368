"""Methods that a third party writes in one file: a discriminator, several images of one object; samplers for them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recon_samplers.balanced import Balanced
from recon_synthetic_faces.dataset import SyntheticFaces

from recon_toolkit import (
    Batch,
    ConfigError,
    Losses,
    ParameterGroup,
    PluginError,
    ReconError,
    Step,
    load_pipeline,
    load_plugins,
)
from recon_toolkit.assembly import adam, build_losses, build_model
from recon_toolkit.config.schema import TrainingConfig
from recon_toolkit.data.packed import PackedImages
from recon_toolkit.data.packing import DataContext
from recon_toolkit.data.sampling import Grouped
from recon_toolkit.engine import checkpoint as files
from recon_toolkit.engine.loop import Trainer
from recon_toolkit.engine.page import RunSummary
from recon_toolkit.engine.run import run_pipeline
from recon_toolkit.engine.step import Gradienter, begin_step, make_optimizers
from recon_toolkit.metrics.pipeline import metric_terms
from recon_toolkit.threads import Interrupted

HERE = Path(__file__).parent
PIPELINE = """
model: {{name: {model}}}
dataset: {{name: synthetic-faces, count: 24, validation: 8, test: 8, images_per_identity: 3}}
losses: {{photometric: {{name: photometric}}}}
image_size: 32
training: {{steps: 6, batch_size: 6, learning_rate: 1e-3, checkpoint_every: 2, log_every: 1}}
"""


def resolve(tmp_path: Path, name: str, *settings: str) -> Any:
    path = tmp_path / f"{name}.yaml"
    path.write_text(PIPELINE.format(model=name))
    host = load_plugins([HERE / "plugin_gan.py", HERE / "plugin_several_images.py"])
    return load_pipeline(path, settings, host)


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return files.load_checkpoint(run / files.WEIGHTS).part("model")


def interrupted_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Let training be stopped, as by Ctrl-C, after so many steps."""
    step = Trainer.train_step

    def stopping(self: Trainer, number: int) -> Any:
        if number == steps:
            self.save()
            raise Interrupted(2, number)
        return step(self, number)

    monkeypatch.setattr(Trainer, "train_step", stopping)


@pytest.mark.parametrize("name", ["toy-gan", "toy-several-images"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_method_resumes_to_equal_tensors(
    tmp_path: Path, name: str, workers: int, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    resolved = resolve(tmp_path, name, f"training.workers={workers}", "training.ema=0.9")
    whole = run_pipeline(resolved, out=tmp_path / "whole", device="cpu")
    assert whole.steps == 6
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupted_after(patch, 3)
        run_pipeline(resolved, out=tmp_path / "parts", device="cpu")
    run_pipeline(resolved, out=tmp_path / "parts", device="cpu", resume=True)
    first, second = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    start = build_model(resolved).state_dict()
    moved = {key.split(".")[0] for key in first if not torch.equal(first[key], start[key])}
    assert moved == {name for name, _ in build_model(resolved).named_children()}


def test_two_optimisers_do_what_their_steps_by_hand_do(tmp_path: Path, cache: Path) -> None:
    """Alternating updates against the same written out with torch alone."""
    resolved = resolve(tmp_path, "toy-gan", "training.steps=2", "training.augment_flip=false")
    run_pipeline(resolved, out=tmp_path / "run", device="cpu")
    found = weights_of(tmp_path / "run")

    model: Any = build_model(resolved)
    data = SyntheticFaces(count=24, validation=8, test=8, images_per_identity=3).open("train", 32, context(cache))
    critic = torch.optim.Adam(model.discriminator.parameters(), weight_decay=0.0)
    maker = torch.optim.Adam(model.generator.parameters(), weight_decay=5e-4)
    (term,) = build_losses(resolved)
    order = np.random.default_rng([0, 0, 0]).permutation(24)
    for step in range(2):
        image = data.batch(order[step * 6 : step * 6 + 6]).image
        for group in critic.param_groups:
            group["lr"] = 0.5e-3
        for group in maker.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 2)
        for _ in range(2):
            critic.zero_grad()
            made = model.generator(image).detach()
            real, false = model.discriminator(image), model.discriminator(made)
            (torch.nn.functional.softplus(-real).mean() + torch.nn.functional.softplus(false).mean()).backward()
            critic.step()
        maker.zero_grad()
        made = model.generator(image)
        fooled = torch.nn.functional.softplus(-model.discriminator(made)).mean()
        (term.component(made, image).mean() + 0.1 * fooled).backward()
        maker.step()
    for name, value in model.state_dict().items():
        # Adam divides by roots of tiny gradients: another order of sums shows in the sixth digit.
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


def test_looking_at_a_model_changes_nothing(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that counts its calls has been called once a step, whatever was estimated or tried before."""
    seen: list[int] = []
    fit = Trainer.fit

    def counted(self: Trainer, validate: Any) -> None:
        seen.append(self.model.looked)  # type: ignore[arg-type]
        fit(self, validate)
        seen.append(self.model.looked)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "fit", counted)
    resolved = resolve(tmp_path, "toy-gan", "training.minutes=0.0001", "training.validate_every=1000")
    summary = run_pipeline(resolved, out=tmp_path / "run", device="cpu")
    assert seen == [0, summary.steps]


def test_both_losses_are_logged_and_the_optimiser_is_a_component(tmp_path: Path, cache: Path) -> None:
    import json

    resolved = resolve(tmp_path, "toy-gan", "optimizer={name: plain-sgd, momentum: 0.5}")
    run_pipeline(resolved, out=tmp_path / "run", device="cpu")
    entries = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [entry for entry in entries if entry["kind"] == "train"]
    assert len(steps) == 6 and {"loss.critic", "loss.fooled", "loss.generator"} <= steps[0].keys()
    saved = files.latest_checkpoint(tmp_path / "run")
    assert saved is not None and any(key.endswith("momentum_buffer") for key in saved.part("optimizer:discriminator"))


def test_wrong_optimisers_are_named(tmp_path: Path, cache: Path) -> None:
    resolved = resolve(tmp_path, "toy-gan")
    model = build_model(resolved)
    begin = begin_step(model, 0, 0.0, lambda _output, _batch: Losses(torch.zeros(())))
    batch = Batch(image=torch.rand(2, 3, 32, 32), index=torch.arange(2))
    with pytest.raises(PluginError, match=r"'discriminator', which it does not have.*it has generator"):
        list(Gradienter()(begin, batch, {"generator": list(model.parameters())}))
    config = TrainingConfig(steps=1)
    whole, none = ParameterGroup(list(model.parameters())), ParameterGroup([])
    for groups, message in (
        ({}, "names no optimiser"),
        ({"main": [whole], "other": [whole]}, "a parameter in two groups"),
        ({"main": [whole], "other": [none]}, "the optimiser 'other' of ToyGan has no parameters"),
    ):
        model.optimizers = lambda groups=groups: groups  # type: ignore[method-assign, misc]
        with pytest.raises(PluginError, match=message):
            make_optimizers(model, config, adam(config))
    with pytest.raises(ConfigError, match="there is no optimizer 'adamm'"):
        resolve(tmp_path, "toy-gan", "optimizer={name: adamm}")


def context(cache: Path) -> DataContext:
    return DataContext(cache=cache / "recon-toolkit" / "data")


@pytest.fixture(scope="module")
def people(cache: Path) -> PackedImages:
    return SyntheticFaces(count=25, validation=1, test=1, images_per_identity=4).open("train", 32, context(cache))


def test_grouped_batches_hold_whole_groups_and_an_epoch_every_image_once(people: PackedImages) -> None:
    labels = people.labels("group")
    assert labels.tolist() == [n // 4 for n in range(25)]
    assert torch.equal(people.batch([0, 5, 24]).group, torch.tensor([0, 1, 6]))  # type: ignore[arg-type]
    sampler = Grouped(people, 8, 2, seed=1)
    batches = [sampler.indices(step) for step in range(3)]
    pairs = np.concatenate(batches).reshape(-1, 2)
    assert (labels[pairs[:, 0]] == labels[pairs[:, 1]]).all() and (pairs[:, 0] != pairs[:, 1]).all()
    assert sorted(pairs.flatten().tolist()) == list(range(24))  # the 25th image has nobody beside it
    assert (sampler.indices(1) == batches[1]).all() and sampler.epoch(3) == 1.0
    assert {tuple(sorted(pair)) for pair in sampler.indices(3).reshape(-1, 2)} != {tuple(sorted(p)) for p in pairs[:4]}
    with pytest.raises(ReconError, match="no group has 5 images"):
        Grouped(people, 10, 5, seed=0)
    with pytest.raises(ReconError, match="a multiple of 3"):
        Grouped(people, 8, 3, seed=0)


def test_balanced_draws_keep_their_shares_and_go_round(people: PackedImages) -> None:
    labels = people.labels("group")
    sampler = Balanced(people, 10, 0, shares={"0": 0.5, "1": 0.3, "6": 0.2})
    drawn = [sampler.indices(step) for step in range(40)]
    assert all(len(batch) == 10 for batch in drawn)
    counts = Counter(labels[np.concatenate(drawn)].tolist())
    assert counts == {0: 200, 1: 120, 6: 80}
    each = Counter(np.concatenate(drawn).tolist())
    assert {each[n] for n in range(4)} == {50} and {each[n] for n in range(4, 8)} == {30} and each[24] == 80
    assert (Balanced(people, 10, 0, shares={"0": 0.5, "1": 0.3, "6": 0.2}).indices(7) == drawn[7]).all()
    with pytest.raises(ReconError, match="no image has the group '9'"):
        Balanced(people, 10, 0, shares={"9": 1.0})
    with pytest.raises(ReconError, match="does not say the kind"):
        Balanced(people, 10, 0, by="kind")


def test_a_step_knows_its_number_and_epoch() -> None:
    step = Step(3, 0.5, lambda _output, _batch: Losses(torch.ones(())))
    assert (step.number, step.epoch, step.output) == (3, 0.5, None)


METRICS = """
extends: unsup3d-quick
dataset: {name: synthetic-faces, count: 16, validation: 8, test: 6}
image_size: 32
model: {convex_start_steps: 0}
losses: {perceptual: null, flipped-perceptual: null}
metrics:
  relative: {name: abs-rel, power: 2.0}
  colours: {name: mean-error}
  turn: {name: turn}
training: {steps: 2, batch_size: 4, log_every: 1, precision: fp32, workers: 1, ema: null}
"""


def test_a_metric_is_one_function_and_shows_everywhere(tmp_path: Path, cache: Path, recon: Any) -> None:
    import json

    import pandas as pd

    from recon_toolkit import Reconstructor

    path, plugin = tmp_path / "scored.yaml", HERE / "plugin_metrics.py"
    path.write_text(METRICS)
    code, text, err = recon("run", "--pipeline", path, "--plugin", plugin, "--out", tmp_path / "run", "--json")
    assert code == 0, err
    scores = json.loads(text)["scores"]
    assert [entry["label"] for entry in scores["metrics"]][-3:] == ["AbsRel", "mean error", "turn °"]
    assert "AbsRel" in err and "AbsRel" in (tmp_path / "run" / "index.html").read_text()

    # By hand, on the same images.
    table = pd.read_csv(tmp_path / "run" / "scores.csv")
    assert {"relative", "constant_relative", "colours", "turn", "mad"} <= set(table.columns) and len(table) == 6
    data = SyntheticFaces(count=16, validation=8, test=6).open("test", 32, context(cache)).batch(range(6))
    found = Reconstructor.load(run=tmp_path / "run", host=load_plugins([plugin]), trust=True).reconstruct_batch(
        data.image
    )
    assert found.depth is not None and found.mask is not None and data.depth is not None and data.mask is not None
    for n in range(6):
        mask = data.mask[n] & found.mask[n]
        true, seen = data.depth[n][mask].double(), found.depth[n][mask].double()
        expected = float((((seen - true).abs() / true) ** 2).mean())
        assert table["relative"][n] == pytest.approx(expected, rel=1e-4)  # depth is float32, differences are small
        plane = float((((true.mean() - true).abs() / true) ** 2).mean())
        assert table["constant_relative"][n] == pytest.approx(plane, rel=1e-4)


def test_a_table_shows_a_metric_of_a_pipeline(tmp_path: Path, cache: Path, recon: Any) -> None:
    (tmp_path / "scored.yaml").write_text(METRICS)
    (tmp_path / "table.yaml").write_text(
        "pipeline: scored.yaml\nmetrics: [relative, mad]\nseeds: [0]\nrows: {all: {}}\nbaselines: [constant]\n"
    )
    code, text, err = recon(
        "bench",
        tmp_path / "table.yaml",
        "--plugin",
        HERE / "plugin_metrics.py",
        "--out",
        tmp_path / "out",
        "--in-process",
    )
    assert code == 0, err
    assert "AbsRel" in text + err


def test_a_metric_that_fails_loses_no_step_and_one_of_a_taken_name_is_refused(
    tmp_path: Path, cache: Path, recon: Any
) -> None:
    (tmp_path / "wrong.py").write_text(
        "from recon_toolkit import metric\n@metric('wrong')\ndef wrong(prediction, truth, mask):\n    1 / 0\n"
    )
    path = tmp_path / "scored.yaml"
    path.write_text(METRICS.replace("relative: {name: abs-rel, power: 2.0}", "relative: {name: wrong}"))
    words = ("run", "--pipeline", path, "--plugin", tmp_path / "wrong.py", "--plugin", HERE / "plugin_metrics.py")
    code, _, err = recon(*words, "--out", tmp_path / "run")
    assert code == 2 and "metrics.relative raised ZeroDivisionError" in err
    assert list((tmp_path / "run" / "checkpoints").glob("*.safetensors"))
    code, _, err = recon(*words, "--out", tmp_path / "run", "--resume", "--set", "metrics.relative=null")
    assert code == 0, err
    for name in ("side", "steps", "mad_ratio", "constant_error"):
        path.write_text(METRICS.replace("relative:", f"{name}:"))
        code, _, err = recon(
            "run", "--pipeline", path, "--plugin", HERE / "plugin_metrics.py", "--out", tmp_path / "no"
        )
        assert code == 2 and f"a metric cannot be called '{name}'" in err
        assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("name", list(RunSummary.model_fields))
def test_no_metric_takes_the_name_of_a_field_of_the_summary(name: str, tmp_path: Path) -> None:
    path = tmp_path / "scored.yaml"
    path.write_text(METRICS.replace("relative:", f"{name}:"))
    resolved = load_pipeline(path, [], load_plugins([HERE / "plugin_metrics.py"]))
    with pytest.raises(PluginError, match=f"a metric cannot be called '{name}'"):
        metric_terms(resolved)


def test_a_metric_that_gives_no_number_an_image_is_named(tmp_path: Path, cache: Path, recon: Any) -> None:
    plugin = tmp_path / "wrong.py"
    plugin.write_text(
        "from recon_toolkit import metric\n@metric('wrong')\ndef wrong(prediction, truth, mask):\n"
        "    return prediction.mean()\n"
    )
    path = tmp_path / "scored.yaml"
    path.write_text(METRICS.replace("relative: {name: abs-rel, power: 2.0}", "relative: {name: wrong}"))
    code, _, err = recon("run", "--pipeline", path, "--plugin", plugin, "--plugin", HERE / "plugin_metrics.py",
                         "--out", tmp_path / "run")  # fmt: skip
    assert code == 2 and "metrics.relative returned (); one number an image (8,) was expected" in err
