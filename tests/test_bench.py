"""Tables trained: outputs, failed rows, continuing, several commands at one folder."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from recon_bench.report import read_report
from recon_bench.runner import Runner, make_table, plan_table, write_outputs
from recon_bench.store import Store
from scipy import stats

from recon_toolkit.cli.app import execute
from recon_toolkit.engine.log import LogTail, MetricsLog
from recon_toolkit.errors import DataError
from recon_toolkit.plugins import load_plugins

pytestmark = pytest.mark.slow

TABLE = """\
pipeline: {tiny}
rows:
  full: {{}}
  one-sided:
    model: {{flip_depth: false, flip_albedo: false}}
    losses: {{flipped: null}}
    published: {{mad: {{mean: 9}}}}
  no weights: {{losses: {{more: {{name: perceptual}}}}}}
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory, tiny):
    path = tmp_path_factory.mktemp("tables") / "toy.yaml"
    path.write_text(TABLE.format(tiny=tiny))
    return path


def planned(table, out, **options):
    return plan_table(str(table), load_plugins(), out=out, **options)


@pytest.fixture(scope="module")
def made(table, tmp_path_factory, cache):
    """A table of two rows that train and one that cannot."""
    out = tmp_path_factory.mktemp("bench")
    return out, make_table(planned(table, out), out=out, in_process=True)


def test_rows_are_trained_scored_and_compared(made):
    _, found = made
    full, one_sided, broken, constant, average = found.report.rows
    assert (full.status, one_sided.status, broken.status) == ("done", "done", "failed")
    assert "VGG16" in (broken.seeds[0].cause or "") and found.complete
    assert full.base and constant.baseline and average.baseline and constant.scores["mad"].ratio == 1
    # Against scipy, from the scores by image that each run left.
    tables = [pd.read_csv(found.folder / row.seeds[0].run / "scores.csv") for row in (full, one_sided)]
    for metric in ("side", "mad"):
        first, second = (t[metric].to_numpy() for t in tables)
        score = one_sided.scores[metric]
        assert score.mean == pytest.approx(second.mean()) and score.std == pytest.approx(second.std())
        assert score.ratio == pytest.approx(second.mean() / tables[1][f"constant_{metric}"].mean())
        interval = stats.ttest_rel(second, first).confidence_interval(0.95)
        assert score.difference is not None
        assert (score.difference.low, score.difference.high) == pytest.approx((interval.low, interval.high))
    best = [row.name for row in found.report.rows if not row.baseline and row.scores and row.scores["mad"].best]
    assert best == [min((full, one_sided), key=lambda row: row.scores["mad"].mean).name]


def test_the_scores_by_image_are_those_of_the_summary(made):
    _, found = made
    run = found.folder / found.report.rows[0].seeds[0].run
    scores, summary = pd.read_csv(run / "scores.csv"), json.loads((run / "summary.json").read_text())
    assert len(scores) == summary["images"] == 8
    for name in ("side", "mad", "mae", "mse", "slope", "correlation"):
        assert scores[name].mean() == pytest.approx(summary[name], rel=1e-12)  # the same numbers, printed exactly
        if name in ("side", "mad"):
            assert scores[f"constant_{name}"].mean() == pytest.approx(summary["baselines"]["constant"][name], rel=1e-12)
            assert scores[f"average_{name}"].mean() == pytest.approx(summary["baselines"]["average"][name], rel=1e-12)


def test_every_output_is_there_and_can_be_made_again(made):
    _, found = made
    names = ("table.md", "table.tex", "table.csv", "results.json", "index.html")
    before = {name: (found.folder / name).read_text() for name in names}
    for name in names:
        (found.folder / name).unlink()
    again = write_outputs(found.folder)
    assert again.model_copy(update={"made": ""}) == found.report.model_copy(update={"made": ""})
    assert read_report(found.folder / "results.json") == again
    assert all((found.folder / name).stat().st_size for name in names)
    for name in ("table.csv", "table.tex"):
        assert (found.folder / name).read_text().replace(again.made, "") == before[name].replace(found.report.made, "")


def test_what_is_done_is_not_trained_again(made, table):
    out, _ = made
    times = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/summary.json")}
    assert len(times) == 2
    again = make_table(planned(table, out), out=out, devices=["cpu"], rows=["full", "one-sided"])
    assert {path: path.stat().st_mtime_ns for path in out.glob("runs/*/summary.json")} == times
    assert again.report.rows[2].status == "failed"  # as it was, since it was left out


def test_the_command_says_what_failed_and_exits_with_3(made, table, capsys):
    out, _ = made
    assert execute(["bench", str(table), "--out", str(out), "--in-process", "--quiet"]) == 3
    printed = capsys.readouterr()
    assert "| one-sided" in printed.out and "1 of 3 rows failed: no weights" in printed.err
    assert execute(["bench", str(table), "--out", str(out), "--row", "ful", "--device", "cpu"]) == 2
    assert "there is no row 'ful' (nearest is 'full')" in capsys.readouterr().err
    assert execute(["bench", str(table), "--out", str(out), "--report", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["name"] == "full"
    assert execute(["bench", str(table), "--out", str(out / "elsewhere"), "--report"]) == 2
    assert "nothing to report" in capsys.readouterr().err


def test_a_damaged_result_is_named_with_the_remedy(made):
    _, found = made
    path = found.folder / found.report.rows[0].seeds[0].run / "summary.json"
    whole = path.read_text()
    try:
        path.write_text(whole[:100])
        with pytest.raises(DataError, match=r"summary.json: cannot be used.*delete the run folder"):
            write_outputs(found.folder)
    finally:
        path.write_text(whole)


def command(table, out, *more):
    words = [sys.executable, "-m", "recon_toolkit", "bench", str(table), "--out", str(out), "--device", "cpu", *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_two_commands_at_one_folder_share_the_rows(table, tmp_path):
    both = [command(table, tmp_path, "--row", "full", "--row", "one-sided") for _ in range(2)]
    ended = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    runs = [path.parent for path in (tmp_path / "runs").glob("*/summary.json")]
    assert len(runs) == 2
    for run in runs:  # each trained once, in one go
        assert not list(run.glob("environment-resumed-*"))
        steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert steps == sorted(steps) and steps[-1] == 6
        record = json.loads(run.with_suffix(".json").read_text())
        assert record["status"] == "done" and "another process" not in run.with_suffix(".log").read_text()
    for out, _ in ended:
        assert "| one-sided" in out


def test_a_stopped_table_continues(table, tmp_path):
    long = ("--row", "full", "--set", "training.steps=4000", "--set", "training.checkpoint_every=1")
    process = command(table, tmp_path, *long)
    store, until = Store(tmp_path / "runs"), time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/checkpoints/*.safetensors")):
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and "the same command goes on from here" in errors
    (saved,) = (path.name for path in tmp_path.glob("runs/*") if path.is_dir())
    assert not store.busy(saved) and not store.finished(saved) and store.started(saved)
    assert read_report(tmp_path / "toy" / "results.json").rows[0].status == "pending"
    # The same again goes on: its training is the same process's work, so a second stop suffices to see it.
    process = command(table, tmp_path, *long)
    while not list((store.run(saved)).glob("environment-resumed-at-*.json")):
        assert process.poll() is None and time.monotonic() < until + 120, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 130


def test_a_row_whose_preparation_fails_is_failed_with_its_cause(tmp_path, tiny, capsys):
    path = tmp_path / "needy.yaml"
    path.write_text(
        f"pipeline: {tiny}\nprepare:\n  broken: {{losses: {{more: {{name: perceptual}}}}}}\n"
        "rows:\n  needy: {renderer: {name: learned, weights: 'prepared:broken'}}\n"
    )
    assert execute(["bench", str(path), "--out", str(tmp_path), "--in-process", "--quiet"]) == 3
    assert "its preparation 'broken' failed: the perceptual loss needs" in (tmp_path / "needy" / "table.md").read_text()
    assert "prepared:broken" in (tmp_path / "needy" / "results.json").read_text()
    assert not list((tmp_path / "runs").glob("*/summary.json"))


def test_a_failure_of_the_command_itself_leaves_nothing_running(table, tmp_path):
    plan = planned(table, tmp_path)
    seen = []

    def show(states):
        seen.append([state.status for state in states])
        if "running" in seen[-1]:
            raise RuntimeError("the view broke")

    store = Store(tmp_path / "runs")
    with pytest.raises(RuntimeError, match="the view broke"):
        Runner(plan, store, devices=["cpu"], rows=["full"], show=show).run()
    assert not any(store.busy(training.digest) for training in plan.trainings())


def test_a_locked_training_is_elsewhere_and_taken_up_when_it_is_free(table, tmp_path):
    plan, store = planned(table, tmp_path), Store(tmp_path / "runs")
    lock = store.lock(plan.rows[0].trainings[0].digest)
    assert lock is not None and store.lock(plan.rows[0].trainings[0].digest) is None
    seen = []

    def show(states):
        seen.append(states[0].status)
        if seen[-1] == "elsewhere" and len(seen) == 3:
            lock.release()

    assert Runner(plan, store, devices=["cpu"], rows=["full"], show=show, in_process=True).run()
    assert seen[:3] == ["elsewhere"] * 3 and seen[-1] == "done"


def test_a_budget_in_minutes_is_settled_once(table, tmp_path):
    # 0.01 minutes of a step that takes some 20 ms: a few dozen steps, at least one on any machine.
    settings = ["training.minutes=0.01"]
    plan = planned(table, tmp_path, overrides=settings)
    made = make_table(plan, out=tmp_path, rows=["full"], in_process=True)
    row = made.report.rows[0]
    assert row.status == "done", row.seeds[0].cause
    budget = json.loads((made.folder / row.seeds[0].run / "budget.json").read_text())
    assert budget["steps"] == row.seeds[0].steps == max(1, int(0.6 / budget["step_seconds"]))


def test_a_growing_log_is_read_line_by_line(tmp_path):
    tail, log = LogTail(tmp_path), MetricsLog(tmp_path)
    assert tail.read() == []
    log.write("train", 1, {"loss": 2.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    assert [entry["step"] for entry in tail.read()] == [1] and tail.read() == []
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('ep": 2}\n')
    assert [entry["step"] for entry in tail.read()] == [2]
    MetricsLog(tmp_path).write("train", 7, {})  # begun anew, and shorter
    assert [entry["step"] for entry in tail.read()] == [7]


def test_means_are_over_images_then_seeds(table, tmp_path):
    made = make_table(planned(table, tmp_path, seeds=[0, 1]), out=tmp_path, rows=["full"], in_process=True)
    score = made.report.rows[0].scores["mad"]
    means = [seed.scores["mad"] for seed in made.report.rows[0].seeds]
    assert score.mean == pytest.approx(np.mean(means)) and score.seed_std == pytest.approx(np.std(means, ddof=1))
