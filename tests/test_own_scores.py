"""Scores that a model brings along: means, ratios, groups and columns against numbers worked out by hand."""

import math

import pytest
import torch
from recon_bench.report import METRICS, known_baselines, known_metrics

from recon_toolkit.metrics.metric import Metric, MetricCollector, MetricScores, MetricSet, Scored

SHEET = MetricSet(
    (Metric("error", "error mm", 1, "lower", ratio_to="worst-guess"), Metric("share", "share", 2, "higher")),
    {"worst-guess": "worst guess", "unused": "never given"},
)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def collected():
    collector = MetricCollector(SHEET)
    guess = {"error": column(4.0, 8.0), "share": column(0.0, 0.5)}
    collector.add(
        Scored({"error": column(1.0, 3.0), "share": column(1.0, 0.5)}, {"worst-guess": guess}, ["cup", "pot"])
    )
    last = {"error": column(12.0), "share": column(0.25)}
    collector.add(Scored({"error": column(math.nan), "share": column(0.0)}, {"worst-guess": last}, ["cup"]))
    return collector


def test_means_ratios_and_groups_are_those_worked_out_by_hand(collected):
    found = collected.report()
    assert (found.images, found.empty) == (3, 1)
    assert found.values["error"].mean == 2.0 and found.values["error"].std == 1.0  # the NaN counts nowhere
    assert found.values["share"].mean == 0.5
    assert found.baselines["worst-guess"]["error"].mean == 8.0 and "unused" not in found.baselines
    assert found.ratio(found.metrics[0]) == 0.25 and found.ratio(found.metrics[1]) is None
    assert {name: group.images for name, group in found.groups.items()} == {"cup": 2, "pot": 1}
    assert found.groups["pot"].values["error"].mean == 3.0
    assert found.ratio(found.metrics[0], found.groups["pot"]) == 3 / 8
    assert found.text() == "error 2.0 mm (0.25 × worst guess), share 0.50"
    assert found.log() == {"error": 2.0, "share": 0.5, "error_ratio": 0.25}
    assert MetricScores.model_validate_json(found.model_dump_json()) == found


def test_columns_are_those_of_scores_csv(collected):
    columns = collected.columns()
    assert list(columns) == ["error", "share", "worst-guess_error", "worst-guess_share"]
    assert columns["worst-guess_error"] == [4.0, 8.0, 12.0] and collected.groups() == ["cup", "pot", "cup"]


def test_one_group_is_no_group():
    collector = MetricCollector(MetricSet(SHEET.metrics))
    collector.add(Scored({"error": column(1.0, 2.0), "share": column(1.0, 1.0)}, groups=["cup", "cup"]))
    found = collector.report()
    assert found.groups == {} and found.baselines == {} and found.ratio(found.metrics[0]) is None


def test_a_missing_metric_is_named():
    with pytest.raises(ValueError, match="lack share"):
        MetricCollector(SHEET).add(Scored({"error": column(1.0)}))


def test_tables_know_the_metrics_of_their_models():
    known = known_metrics([SHEET, MetricSet(())])
    assert known["error"].needs == "own" and known["mad"] is METRICS["mad"] and "error" not in METRICS
    assert known_baselines([SHEET])["worst-guess"] == "worst guess"
