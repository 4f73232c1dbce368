"""What a table is written as: numbers that read back, marks where they belong, names that cannot break a format."""

import io
import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from PIL import Image
from recon_bench.curves import mean_curve, write_bars, write_curves
from recon_bench.layout import number
from recon_bench.live import Live
from recon_bench.page import write_page
from recon_bench.report import (
    BASELINES,
    Difference,
    Published,
    RowReport,
    RunState,
    Score,
    SeedResult,
    TableReport,
    read_report,
)
from recon_bench.tables import latex, latex_escape, markdown, write_tables

from recon_toolkit.progress import LOG_INTERVAL, Progress

NASTY = "100% <b>&_x|y_ {a}$#~^\\"
CAUSE = "loss is not a number | at <step> 12_3"


def training(seed, run, status="done", **changed):
    done = {"device": "cpu", "steps": 200, "seconds": 61.5, "images_per_second": 52.1, "images": 64}
    return SeedResult(seed=seed, status=status, run=f"runs/{run}", **(done if status == "done" else {}) | changed)


def difference(mean, half, seeds):
    return Difference(against="full", mean=mean, low=mean - half, high=mean + half, seeds=seeds, images=64)


def score(mean, std, **others):
    return Score(mean=mean, std=std, **others)


def report():
    """Every kind of row: base with two seeds, one seed, a row with a broken name, failed, pending, baseline."""
    third = 1 / 3  # a number that no short decimal gives
    rows = [
        RowReport(
            name="full", base=True, note="the base", seeds=[training(0, "full-0"), training(1, "full-1")],
            scores={"side": score(1 + third, 0.2, seed_std=0.03, ratio=0.5), "mad": score(20.0, 2, seed_std=third)},
            published={"mad": Published(mean=16.51, std=1.56)}, seconds=61.5, images_per_second=52.1,
        ),
        RowReport(
            name=NASTY, changes=["losses.edges={weight: 0.1}"], seeds=[training(0, "nasty-0")],
            scores={
                "side": score(1.1, 0.2, ratio=0.4, difference=difference(-0.2333, 0.1, 1), best=True),
                "mad": score(20.4, 2, difference=difference(0.4, 0.5, 1)),
            },
            seconds=123.0, images_per_second=26.0,
        ),
        RowReport(
            name="worse", seeds=[training(0, "worse-0"), training(1, "worse-1", "failed", cause="killed")],
            scores={
                "side": score(1.4, 0.2, ratio=0.6, difference=difference(0.0667, 0.1, 2)),
                "mad": score(19.0, 2, difference=difference(-1.0, 0.5, 2), best=True),
            },
            seconds=60.0,
        ),
        RowReport(name="broken", seeds=[training(s, f"broken-{s}", "failed", cause=CAUSE) for s in (0, 1)]),
        RowReport(name="later", seeds=[training(0, "later-0", "pending")]),
        RowReport(name="constant", baseline=True, scores={"side": score(2.5, 0.4, ratio=1), "mad": score(40.0, 3)}),
    ]  # fmt: skip
    return TableReport(
        name="a_table", description="Parts & pieces", pipeline="unsup3d-quick", metrics=["side", "mad"], rows=rows,
        seeds=[0, 1], budget="200 steps", published_source="Wu et al. 2020", versions={"torch": ["2.8", "2.9"]},
        devices=["cpu"], data=["faces_64"], notes=["#1 note"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder of results with everything in it: logs and contact sheets of two rows."""
    folder, table = tmp_path_factory.mktemp("bench"), report()
    for place, seed in enumerate(seed for row in table.rows for seed in row.seeds if seed.status == "done"):
        run = folder / seed.run
        run.mkdir(parents=True)
        entries = [
            {"kind": "validation", "step": step, "side_ratio": 1 - step / 400 * place, "mad_ratio": mad}
            for step, mad in ((50, 0.9), (100, 0.7), (150, 0.5), (200, None))
        ]
        (run / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries) + '{"kind": "val')
        if place < 3:
            Image.new("RGB", (1800, 900), (90 * place, 40, 40)).save(run / "contact_sheet.png")
    paths = write_tables(table, folder)
    return folder, table, paths, write_page(table, folder)


def markdown_tables(text):
    return [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]


def cells(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def markdown_row(table, start):
    return next(cells(line) for line in table if cells(line)[0].startswith(start))


def test_csv_numbers_read_back_exactly(written):
    folder, table, _, _ = written
    # Read as text and then by Python: older pandas' own parser may be off by a unit in the last place.
    found = pd.read_csv(folder / "table.csv", dtype=str, keep_default_na=False).set_index("row")
    assert list(found.index) == [row.name for row in table.rows]
    for row in table.rows:
        for name in table.metrics:
            expected = row.scores.get(name)
            values = found.loc[row.name]
            for key in ("mean", "std", "seed_std", "ratio"):
                truth = getattr(expected, key, None)
                value = values[name if key == "mean" else f"{name}_{key}"]
                assert value == "" if truth is None else float(value) == truth
            gap = expected.difference if expected else None
            for key in ("low", "high", "seeds"):
                value = values[f"{name}_difference_{key}"]
                assert value == "" if gap is None else float(value) == getattr(gap, key)
    assert found.loc["full", "mad_published_std"] == "1.56"
    assert found.loc["broken", "status"] == "failed" and found.loc["broken", "cause"] == CAUSE
    assert found.loc["worse", ["seeds", "failed"]].tolist() == ["1", "1"]


def test_json_gives_the_report_back(written):
    folder, table, paths, _ = written
    assert read_report(folder / "results.json") == table
    assert [path.name for path in paths] == ["table.md", "table.tex", "table.csv", "results.json"]
    assert not [path for path in folder.iterdir() if "partial" in path.name]


def test_markdown_lines_have_as_many_cells_as_their_headings():
    tables = markdown_tables(markdown(report()))
    assert len(tables) == 4
    for table in tables:
        assert {len(cells(line)) for line in table} == {len(cells(table[0]))}


def test_markdown_marks():
    text = markdown(report())
    scores, differences, *_ = markdown_tables(text)
    nasty = markdown_row(scores, "100%")
    assert nasty[0] == r"100% \<b\>&\_x\|y\_ {a}\$#\~^" + "\\\\"
    assert "**1.100 ± 0.200**" in nasty and "20.40 ± 2.00" in nasty
    assert text.count("**1.100") == text.count("**19.00") == 1
    assert markdown_row(scores, "full (base)")[1:3] == ["1.333 ± 0.200", "± 0.030"]
    assert markdown_row(scores, "worse")[0] == "worse (1 of 2 seeds) [1]"
    assert markdown_row(scores, "broken")[1] == "failed [2]"
    assert markdown_row(scores, "later")[1] == "pending"
    assert markdown_row(scores, "*constant*")[1] == "*2.500 ± 0.400*"
    assert r"[2] broken, seeds 0, 1, failed: loss is not a number \| at \<step\> 12_3" in text
    # Verdicts: zero inside the interval or not, which side of it, and one seed or two.
    assert markdown_row(differences, "100%")[2::2] == ["better †", "n.s. †"]
    assert markdown_row(differences, "worse")[2::2] == ["n.s.", "better"]
    assert markdown_row(differences, "worse")[1] == "+0.067 [−0.033, +0.167]"


def test_markdown_says_what_a_reader_must_know():
    text = markdown(report())
    for said in (
        "unsup3d-quick", "200 steps", "seeds 0, 1", "faces_64", "64 held-out images", "torch 2.8 and 2.9",
        "not alike in: torch", "Wu et al. 2020", "only ratios compare", r"\#1 note",
    ):  # fmt: skip
        assert said in text, said
    lonely = report()
    for row in lonely.rows:
        row.published = {}
    assert "paper" not in markdown(lonely)


def test_a_difference_of_a_metric_that_should_be_one_is_neither_better_nor_worse():
    table = report()
    table.metrics = ["slope"]
    table.rows[1].scores = {"slope": score(1.2, 0.1, difference=difference(0.4, 0.1, 2))}
    assert markdown_row(markdown_tables(markdown(table))[1], "100%")[2] == "differs"


def test_higher_is_better_where_it_is():
    table = report()
    table.metrics = ["psnr"]
    table.rows[1].scores = {"psnr": score(30, 1, difference=difference(2.0, 0.5, 2))}
    assert markdown_row(markdown_tables(markdown(table))[1], "100%")[2] == "better"


def test_numbers_have_a_true_minus_and_no_negative_zero():
    assert [number(-0.04, 1), number(-0.06, 1), number(0.04, 1, sign=True)] == ["0.0", "−0.1", "0.0"]
    assert number(float("nan"), 2) == "not finite"


def test_latex_is_balanced_and_escaped():
    text = latex(report())
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == text.count(r"\label{") == 4
    for rule in ("toprule", "bottomrule"):
        assert text.count(f"\\{rule}") == 4
    assert r"100\% \textless{}b\textgreater{}\&\_x\textbar{}y\_ \{a\}\$\#" in text
    assert r"\textbf{1.100 $\pm$ 0.200}" in text and r"\textit{constant}" in text
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert body.isascii()
    plain = re.sub(r"\\[\\{}%&_$#]", "", body)  # what is escaped, and ends of lines
    assert plain.count("{") == plain.count("}") and plain.count("$") % 2 == 0
    # Outside mathematics nothing is left that LaTeX reads as a command of its own.
    assert not re.search(r"[#~^_%]", re.sub(r"\$[^$]*\$|\\label\{.*?\}", "", plain).replace("{!}{%", ""))
    for part in re.findall(r"\\begin{tabular}{([^\n]*)}\n(.*?)\\end{tabular}", body, flags=re.S):
        columns = len(re.sub(r"p{[^}]*}", "l", part[0]))
        for line in part[1].splitlines():
            if line.endswith(r"\\"):
                spans = [int(width) for width in re.findall(r"\\multicolumn{(\d)}", line)]
                found = len(re.findall(r"(?<!\\)&", line)) + 1 + sum(spans) - len(spans)
                assert found == columns, line


def test_latex_escapes_every_character_that_it_may_lack():
    assert latex_escape("a_b ±×° 10⁻²") == r"a\_b $\pm$$\times$$^{\circ}$ 10$^{-2}$"
    assert latex_escape("λ é 面") == r"$\lambda$ é U+9762"


class Page(HTMLParser):
    """Collects what a page shows, and checks that its tags are balanced."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.links, self.alts, self.tags, self.text = [], [], [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "img":
            self.sources.append(found["src"])
            self.alts.append(found["alt"])
        if tag == "a":
            self.links.append(found["href"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_whole(written):
    folder, table, _, path = written
    page = Page(path.read_text(encoding="utf-8"))
    assert {"curves.png", "bars.png", "sheets/full.jpg"} <= set(page.sources)
    assert all((folder / source).is_file() for source in page.sources) and all(page.alts)
    assert {"runs/full-0/index.html", "runs/nasty-0/index.html", "table.csv", "results.json"} <= set(page.links)
    text = "".join(page.text)
    for row in table.rows:
        assert row.name in text  # as text, so that no part of a name became a tag
    assert "b" not in {tag for tag, _ in page.tags}
    assert CAUSE in text and "better †" in text
    assert sum(tag == "caption" for tag, _ in page.tags) == 4
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")
    with Image.open(folder / "sheets/full.jpg") as sheet:
        assert sheet.size == (1200, 600)


def test_a_page_without_runs_has_no_pictures(tmp_path):
    table = report()
    table.rows = [row for row in table.rows if row.name == "later"]
    assert Page(write_page(table, tmp_path).read_text(encoding="utf-8")).sources == []


def test_rows_whose_names_differ_in_signs_only_have_sheets_of_their_own(tmp_path):
    table = report()
    table.rows = [RowReport(name=name, seeds=[training(0, run)]) for name, run in (("a+", "1"), ("a*", "2"))]
    for run in "12":
        (tmp_path / "runs" / run).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "runs" / run / "contact_sheet.png")
    assert Page(write_page(table, tmp_path).read_text()).sources == ["sheets/a.jpg", "sheets/a-2.jpg"]


def test_curves_are_means_over_the_steps_that_all_seeds_have():
    assert mean_curve([{10: 1.0, 20: 3.0, 30: 5.0}, {10: 2.0, 20: 5.0}]) == {10: 1.5, 20: 4.0}
    assert mean_curve([]) == {}


def test_curves_of_pictures_where_there_is_no_depth(tmp_path):
    table = report()
    assert not write_curves(table, tmp_path, tmp_path / "curves.png")
    run = tmp_path / "runs/full-0"
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text('{"kind": "validation", "step": 5, "psnr": 21.0}\n')
    assert write_curves(table, tmp_path, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as one:
        assert one.size[0] > 700  # a single panel with its legend
    table.rows = [row for row in table.rows if row.baseline]
    assert not write_bars(table, tmp_path / "bars.png") and not (tmp_path / "bars.png").exists()


def states():
    return [RunState("full", 0), RunState("full", 1), RunState("[b]", 0), RunState("old", 0, "done", 100, 100)]


def watch(stream, quiet=False):
    """A bench of four trainings, as the live view sees it."""
    now, table = [0.0], states()
    with Live(Progress(stream=stream, quiet=quiet), now=lambda: now[0]) as live:
        live.update(table)
        table[0].status, table[0].steps = "running", 1000
        table[1].status = "elsewhere"
        live.update(table)
        for step in (100, 300):
            now[0] += LOG_INTERVAL
            table[0].step, table[0].seconds = step, now[0]
            table[0].latest = {"mad": 20.123, "side": 1.5}
            live.update(table)
        table[0].status = "done"
        table[2].status, table[2].cause = "failed", "no [/b] such key"
        live.update(table)
    return stream.getvalue()


def test_lines_where_there_is_no_terminal():
    assert watch(io.StringIO()).splitlines() == [
        "1 of 4 trainings done, 3 pending",
        "full, seed 0: started",
        "full, seed 1: another process or machine is at it",
        "full, seed 0: 100/1000 steps (10 %), MAD ° 20.12, SIDE ×10⁻² 1.500",
        "1 of 4 trainings done, 1 running, 1 elsewhere, 1 pending",
        # 200 steps took 20 s: 700 are left of this training; the pending one has 550, the mean of the known lengths.
        "full, seed 0: 300/1000 steps (30 %), 1:10 left, MAD ° 20.12, SIDE ×10⁻² 1.500",
        "1 of 4 trainings done, 1 running, 1 elsewhere, 1 pending, about 2:05 left",
        "full, seed 0: done in 0:40, MAD ° 20.12, SIDE ×10⁻² 1.500",
        "warning: [b], seed 0: failed: no [/b] such key",
    ]


def test_quiet_says_failures_only():
    assert watch(io.StringIO(), quiet=True) == "warning: [b], seed 0: failed: no [/b] such key\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_has_a_table(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", watch(Terminal()))
    assert "300/1000" in text and "about 2:05 left" in text and "[b]" in text
    assert "warning: [b], seed 0: failed: no [/b] such key" in text
    assert "started" not in text


def test_a_paper_is_quoted_with_its_ratio_to_its_own_constant_depth():
    table = report()
    assert "paper ×" not in markdown(table)  # its constant depth is not known
    constant = table.rows[-1]
    constant.name, constant.published = BASELINES["constant"], {"mad": Published(mean=43.34)}
    text = markdown(table)
    lines = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"]
    heads = lines[0]
    place = next(n for n, head in enumerate(heads) if head == "paper ×")
    assert lines[2][place] == f"{16.51 / 43.34:.2f}" and lines[7][place] == "1.00" and lines[3][place] == ""
    assert "their ratio to the paper’s own constant depth" in text
