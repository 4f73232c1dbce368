"""When a table calls something better: not where nothing was learned, it is too little, or it reads the same."""

import pytest
from recon_bench.collect import _judge, _mark_best
from recon_bench.layout import verdict
from recon_bench.report import METRICS, Difference, RowReport, Score, TableReport
from recon_bench.schema import TableConfig
from recon_bench.tables import frame, markdown

MAD = METRICS["mad"]


def row(name, mean, ratio, gap=None):
    """A row with a MAD of so many degrees, so many times that of constant depth, and a certain difference to `full`."""
    difference = None
    if gap is not None:
        difference = Difference(against="full", mean=gap, low=gap - 1e-3, high=gap + 1e-3, seeds=2, images=64)
    return RowReport(name=name, scores={"mad": Score(mean=mean, std=1, ratio=ratio, difference=difference)})


def judged(*rows, smallest=0.01):
    _judge(rows, METRICS, smallest)
    _mark_best(rows, {row.name for row in rows}, [MAD])
    return TableReport(
        name="t", pipeline="p", metrics=["mad"], rows=list(rows), seeds=[0], budget="9 steps",
        smallest_difference=smallest,
    )  # fmt: skip


def test_rows_that_are_worse_than_constant_depth_are_untrained_and_get_no_verdict():
    table = judged(row("full", 50, 1.2), row("other", 45, 1.1, -5.0))
    assert [each.untrained for each in table.rows] == [True, True]
    text = markdown(table)
    assert "other (untrained)" in text and "| untrained |" in text.replace("  ", " ")
    assert "better" not in text.partition("untrained:")[0] and "**45" not in text
    assert frame(table)["mad_difference_untrained"].tolist()[1] is True


def test_a_trained_row_beside_an_untrained_one_keeps_its_verdict():
    table = judged(row("full", 50, 1.2), row("good", 20, 0.5, -30.0), row("bad", 60, 1.5, 10.0))
    assert [verdict(MAD, each.scores["mad"].difference) for each in table.rows[1:]] == ["better", "untrained"]
    assert [each.scores["mad"].best for each in table.rows] == [False, True, False]


@pytest.mark.parametrize(("smallest", "word"), [(0.01, "small"), (0.001, "better")])
def test_the_smallest_difference_that_counts_is_an_option_and_is_printed(smallest, word):
    table = judged(row("full", 20, 0.5), row("other", 19.9, 0.49, -0.1), smallest=smallest)
    assert verdict(MAD, table.rows[1].scores["mad"].difference) == word
    assert f"Smallest difference that counts: {100 * smallest:g} %" in markdown(table)
    assert TableConfig(pipeline="p", rows={"full": None}).smallest_difference == 0.01


def test_rows_that_read_the_same_share_the_bold():
    table = judged(row("full", 20.001, 0.5), row("other", 19.999, 0.5), row("third", 20.01, 0.5))
    text = markdown(table)
    assert text.count("**20.00") == 2 and "**20.01" not in text
