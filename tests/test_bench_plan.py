"""Tables before anything trains: what a row resolves to, what names its run folder, and what is refused."""

import re

import pytest
from recon_bench.plan import load_plan, table_name
from recon_bench.store import Store, begun, check_versions

from recon_toolkit.cli.app import execute
from recon_toolkit.errors import ConfigError, DataError, ReconError
from recon_toolkit.plugins import load_plugins

HEAD = """\
description: toy rows
pipeline: {tiny}
seeds: [0, 1]
rows:
"""
ROWS = """\
  full: {}
  no light: {model: {shading: false}, seeds: [0]}
"""


@pytest.fixture
def table(tmp_path, tiny):
    """Writes a table of these rows and gives its path."""

    def write(rows=ROWS, head=HEAD):
        path = tmp_path / "toy.yaml"
        path.write_text(head.replace("{tiny}", str(tiny)) + rows)
        return path

    return write


def plan(path, tmp_path, **options):
    return load_plan(str(path), load_plugins(), runs=tmp_path / "runs", **options)


def test_rows_are_the_base_pipeline_with_their_changes(table, tmp_path):
    found = plan(
        table(head=HEAD.replace("rows:", "set: {training: {batch_size: 4}}\nbudget: {steps: 3}\nrows:")), tmp_path
    )
    full, dark = found.rows
    assert (
        found.base == "full" and [t.seed for t in full.trainings] == [0, 1] and [t.seed for t in dark.trainings] == [0]
    )
    for training in (*full.trainings, *dark.trainings):
        settings = training.resolved.pipeline.training
        assert (settings.steps, settings.batch_size) == (3, 4)
        assert training.resolved.pipeline.seed == training.seed
    options = [row.trainings[0].resolved.components["model",].options["shading"] for row in found.rows]
    assert options == [True, False] and dark.changes == ("model.shading=false",)
    # An early look shows every row: first seeds come first.
    assert [(t.row, t.seed) for t in found.trainings()] == [("full", 0), ("no light", 0), ("full", 1)]


def test_settings_of_the_command_come_last(table, tmp_path):
    found = plan(table(), tmp_path, overrides=["training.steps=2", "model.shading=false"], seeds=[5])
    assert {t.resolved.pipeline.training.steps for t in found.trainings()} == {2}
    assert {t.seed for t in found.trainings()} == {5}
    first, second = found.trainings()
    assert first.digest == second.digest  # now both rows say the same, and are trained once


def test_an_address_changes_with_contents_and_with_nothing_else(table, tmp_path):
    before = [t.digest for t in plan(table(), tmp_path).trainings()]
    assert len(set(before)) == 3
    renamed = table(ROWS.replace("no light", "dark").replace("full: {}", "whole: {note: the base}"))
    assert [t.digest for t in plan(renamed, tmp_path).trainings()] == before
    changed = table(ROWS.replace("shading: false", "shading: false, flip_depth: false"))
    after = [t.digest for t in plan(changed, tmp_path).trainings()]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    scored = [t.digest for t in plan(table(), tmp_path, overrides=["evaluation.images=4"]).trainings()]
    assert not set(scored) & set(before)


def test_a_changed_plugin_file_changes_the_rows_that_use_it(table, tmp_path):
    source = "from recon_toolkit import loss\n\n@loss('mine')\ndef mine(a, b):\n    return (a - b).abs()\n"
    (tmp_path / "mine.py").write_text(source)
    path = table(
        "  full: {}\n  mine: {losses: {mine: {name: mine}}}\n", HEAD.replace("rows:", "plugins: [mine.py]\nrows:")
    )
    before = {t.row: t.digest for t in plan(path, tmp_path, seeds=[0]).trainings()}
    (tmp_path / "mine.py").write_text(source.replace(".abs()", ".square()"))
    after = {t.row: t.digest for t in plan(path, tmp_path, seeds=[0]).trainings()}
    assert before["full"] == after["full"] and before["mine"] != after["mine"]


def test_weights_count_by_their_contents(table, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"one")
    path = table("  full: {renderer: {name: learned, weights: " + str(tmp_path / "a.safetensors") + "}}\n")
    before = plan(path, tmp_path).trainings()[0].digest
    assert plan(path, tmp_path).trainings()[0].digest == before
    (tmp_path / "a.safetensors").write_bytes(b"two")
    assert plan(path, tmp_path).trainings()[0].digest != before


def test_a_preparation_is_trained_for_the_rows_that_name_it(table, tmp_path, tiny):
    head = HEAD.replace("rows:", f"prepare:\n  other: {{pipeline: {tiny}, training: {{steps: 4}}}}\nrows:")
    rows = "  full: {seeds: [0]}\n  with: {seeds: [0], renderer: {name: learned, weights: 'prepared:other'}}\n"
    found = plan(table(rows, head), tmp_path)
    prepared, full, using = found.trainings()
    assert prepared.row == "other" and prepared.resolved.pipeline.training.steps == 4
    assert using.needs == (prepared.digest,) and full.needs == ()
    weights = using.resolved.components["renderer",].options["weights"]
    assert weights == (tmp_path / "runs" / prepared.digest).resolve()


WRONG = {
    "  full: {modle: {shading: false}}\n": "toy.yaml:5: row 'full': there is no key 'modle' (nearest is 'model')",
    "  full: {model: {shadin: false}}\n": "row 'full': model 'unsup3d' has no option 'shadin'",
    "  full: {losses: {more: {name: edgy}}}\n": "row 'full': there is no loss 'edgy'",
    "  full: {pipeline: unsup3d-quik}\n": "row 'full': there is no pipeline 'unsup3d-quik'",
    "  full: {}\n  full: {}\n": "toy.yaml:6: 'full' is given twice",
    "  full: {seed: 3}\n": "row 'full': a row cannot set 'seed' (use 'seeds: [N]')",
    "  full: {seeds: 3}\n": "row 'full': 'seeds' should be a list",
    "  full: {}\n  other: {against: ful}\n": "row 'other': there is no row 'ful' to compare with",
    "  full: {published: {sid: {mean: 1}}}\n": "row 'full': there is no metric 'sid'",
    "  full: {renderer: {name: learned, weights: 'prepared:x'}}\n": "row 'full': the table prepares no 'x'",
    "  full: {}\nmetrics: [mad, sid]\n": "toy.yaml:6: there is no metric 'sid'",
    "  full: {}\nbase: ful\n": "there is no row 'ful'",
    "  full: {}\nbudget: {steps: 2, minutes: 1}\n": "give exactly one of 'steps', 'epochs' and 'minutes'",
    "  full: {}\nbudgets: {steps: 2}\n": "there is no key 'budgets' (nearest is 'budget')",
    "  full: {}\nseeds: []\n": "'seeds'",
    "  full: {}\nbaselines: [constnt]\n": "there is no baseline 'constnt' (nearest is 'constant')",
    "  full: {seeds: [0, 0]}\n": "row 'full': 'seeds': 0 is given twice",
    "  full: {}\nmetrics: [mad, mad]\n": "'metrics': mad is given twice",
    "  full: {}\npublished: {constnt: {}}\n": "there is no baseline 'constnt' (nearest is 'constant')",
    "  full: {}\nprepare: {full: {}}\n": "a row and a preparation are both called 'full'",
    "  full: {}\nprepare: {other: {seeds: [1]}}\n": "preparation 'other': 'seeds' is for rows",
    "  full: {}\nprepare: {other: {renderer: {name: learned, weights: 'prepared:x'}}}\n": "names a preparation",
}


@pytest.mark.parametrize("rows", WRONG, ids=lambda rows: rows.strip().replace("\n", " ")[:40])
def test_what_is_wrong_is_named_with_its_row_and_place(rows, table, tmp_path):
    head = HEAD.replace("seeds: [0, 1]\n", "") if "seeds: []" in rows else HEAD
    with pytest.raises(ReconError) as refused:
        plan(table(rows, head), tmp_path)
    assert WRONG[rows] in str(refused.value), str(refused.value)


def test_all_problems_come_at_once(table, tmp_path):
    with pytest.raises(ConfigError) as refused:
        plan(table("  one: {modle: 1}\n  two: {model: {shadin: 1}}\nmetrics: [nothing]\n"), tmp_path)
    assert len(refused.value.problems) == 3


def test_a_metric_of_depth_needs_data_with_depth(table, tmp_path):
    from PIL import Image

    for split in ("train", "val", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        for n in range(9):
            Image.new("RGB", (40, 40), (20 * n, 90, 120)).save(tmp_path / "data" / split / f"{n}.png")
    rows = "  full: {dataset: {name: image-folder}}\n"
    with pytest.raises(DataError, match=r"row 'full': the metric 'side' needs true depth.*image-folder"):
        plan(table(rows), tmp_path, data=tmp_path / "data")
    # Without such a metric the same table is sound, and the folder's contents are part of the digest.
    pictures = table(rows + "metrics: [psnr]\n")
    before = plan(pictures, tmp_path, data=tmp_path / "data").trainings()[0].digest
    Image.new("RGB", (40, 40), (1, 2, 3)).save(tmp_path / "data" / "train" / "0.png")
    assert plan(pictures, tmp_path, data=tmp_path / "data").trainings()[0].digest != before


def test_trainings_of_another_version_are_refused(table, tmp_path):
    found, store = plan(table(), tmp_path), Store(tmp_path / "runs")
    training = found.trainings()[0]
    record = begun(training, "toy", ["run"])
    store.write(training.digest, record)
    check_versions(store, found.trainings())  # its own version
    store.write(training.digest, record.model_copy(update={"version": "0.0.1"}))
    with pytest.raises(DataError, match=r"made with recon-toolkit 0\.0\.1.*'full' \(seed 0\).*--out"):
        check_versions(store, found.trainings())


def test_a_record_that_was_cut_off_is_named(table, tmp_path):
    found, store = plan(table(), tmp_path), Store(tmp_path / "runs")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / f"{found.trainings()[0].digest}.json").write_text('{"format": "recon')
    with pytest.raises(DataError, match=r"no record of this version.*delete it"):
        check_versions(store, found.trainings())


def test_every_shipped_table_resolves(tmp_path, capsys):
    """Their rows' options are right; data of small size, so that nothing long is made."""
    small = ["dataset.count=16", "dataset.validation=4", "dataset.test=4", "image_size=32"]
    assert execute(["bench"]) == 0
    names = re.findall(r"^(\S+)  ", capsys.readouterr().out, re.MULTILINE)
    assert {
        "ablation-unsup3d",
        "asymmetry",
        "losses",
        "quick",
        "recipes",
        "renderers",
        "resolution",
        "point-cloud",
    } <= set(names)
    for name in names:
        narrow = [] if name == "point-cloud" else ["encoders.depth.width=8"]
        assert load_plan(name, load_plugins(), runs=tmp_path, overrides=[*small, *narrow]).rows


def test_two_plugins_of_the_same_file_name_both_count(table, tmp_path):
    source = "from recon_toolkit import loss\n\n@loss('{0}')\ndef {0}(a, b):\n    return (a - b).abs()\n"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(source.format(name))
    rows = "  full: {losses: {one: {name: one}, two: {name: two}}}\n"
    path = table(rows, HEAD.replace("rows:", "plugins: [one/mine.py, two/mine.py]\nrows:"))
    seen = {plan(path, tmp_path, seeds=[0]).trainings()[0].digest}
    for name in ("one", "two"):
        (tmp_path / name / "mine.py").write_text(source.format(name) + "# changed\n")
        seen.add(plan(path, tmp_path, seeds=[0]).trainings()[0].digest)
    assert len(seen) == 3


def test_photographs_behind_generated_faces_count_by_their_contents(table, tmp_path):
    from PIL import Image

    for folder, colour in (("a/photos", 40), ("b/photos", 200)):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("RGB", (64, 64), (colour, 90, 120)).save(tmp_path / folder / "0.png")
    digests = [
        plan(table(f"  full: {{dataset: {{background: {tmp_path / folder}}}}}\n"), tmp_path).trainings()[0].digest
        for folder in ("a/photos", "b/photos")
    ]
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": [1, 1]}, "--seed: a seed is given twice"),
        ({"rows": ["ful"]}, "--row: there is no row 'ful' (nearest is 'full')"),
        ({"overrides": ["renderer.weights=prepared:x"]}, "only the table's file can name a preparation"),
    ],
)
def test_what_is_wrong_with_the_command_is_found_before_data_are_made(options, message, table, tmp_path):
    with pytest.raises(ConfigError) as refused:
        plan(table(), tmp_path, **options)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("given", "name"),
    [("quick", "quick"), ("mine:v1.2", "v1.2"), ("a/my.table.yaml", "my.table"), ("b.yml", "b")],
)
def test_a_table_is_called_by_its_file(given, name):
    assert table_name(given) == name
