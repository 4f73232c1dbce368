"""What stands in each cell of a table and in the sentences under it; formats only differ in how they mark it up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from recon_bench.report import Difference, RowReport, Score, TableReport, short_label
from recon_toolkit.metrics import Metric


def notes(report: TableReport) -> list[str]:
    """What a reader must know to judge the numbers, one paragraph an entry, plain text."""
    return [text for text in (_made_with(report), _reading(report), _quoted(report), *report.notes) if text]


def _made_with(report: TableReport) -> str:
    seeds = ", ".join(map(str, report.seeds))
    sentences = [
        f"Base pipeline {report.pipeline}, {report.budget} a row, "
        f"{'seed' if len(report.seeds) == 1 else 'seeds'} {seeds} for the base row."
    ]
    if report.data:
        sentences.append(f"Data: {'; '.join(report.data)}.")
    images = sorted({seed.images for row in report.rows for seed in row.seeds if seed.images})
    if images:
        count = f"{images[0]}" if len(images) == 1 else f"between {images[0]} and {images[-1]}"
        sentences.append(f"Scored on {count} held-out images.")
    machines = [", ".join(part) for part in (report.devices, report.processors) if part]
    if machines:
        sentences.append(f"Trained on {'; '.join(machines)}.")
    if report.versions:
        versions = "; ".join(f"{name} {' and '.join(found)}" for name, found in report.versions.items())
        sentences.append(f"Versions: {versions}.")
    unlike = [name for name, found in report.versions.items() if len(found) > 1]
    unlike += [name for name, found in (("device", report.devices), ("processor", report.processors)) if len(found) > 1]
    if unlike:
        sentences.append(f"The rows are not alike in: {', '.join(unlike)}.")
    if report.made:
        sentences.append(f"Made {report.made}.")
    return " ".join(sentences)


def _reading(report: TableReport) -> str:
    scores = [score for row in report.rows for score in row.scores.values()]
    if not scores:
        return ""
    sentences = ["± after a score is the standard deviation over images."]
    if any(score.seed_std is not None for score in scores):
        sentences.append("“seeds ±” is the standard deviation of the mean score over trainings with other seeds.")
    found = {name for row in report.rows for name, score in row.scores.items() if score.ratio is not None}
    for base in dict.fromkeys(report.definitions[name].ratio_to for name in report.metrics if name in found):
        label = report.labels[base or ""]
        sentences.append(f"“× {short_label(label)}” is the score over that of {label} on the same images.")
    differences = [score.difference for score in scores if score.difference is not None]
    if any(score.untrained for score in scores):
        sentences.append("untrained: no better than the baseline that the score is quoted as a multiple of.")
    if differences:
        share = f"{100 * report.smallest_difference:g} %"
        sentences.append(f"Smallest difference that counts: {share} of the score compared with; below it, small.")
        sentences.append("n.s.: the 95 % interval of the paired difference holds zero.")
    if any(difference.seeds == 1 for difference in differences):
        sentences.append("†: one seed, so the interval counts images only; another training may well fall outside.")
    if any(s.best and not (s.untrained or row.untrained) for row in report.rows for s in row.scores.values()):
        sentences.append("Best in bold, with all that read the same.")
    return " ".join(sentences)


def _quoted(report: TableReport) -> str:
    if not any(row.published for row in report.rows):
        return ""
    source = f" ({report.published_source.rstrip('.')})" if report.published_source else ""
    ratio = any(row.published for row in report.rows if row.baseline)
    own = ", and “paper ×” their ratio to the paper’s own constant depth" if ratio else ""
    return f"“paper” quotes published figures{source}{own}. They were found on other data, so only ratios compare."


NOT_SIGNIFICANT, SMALL, UNTRAINED, ONE_SEED = "n.s.", "small", "untrained", "†"
_DIRECTION = {"lower": "↓", "higher": "↑", "one": "→ 1"}
_STATUS = {"elsewhere": "running elsewhere"}


@dataclass(frozen=True)
class Cell:
    """Text with its marks.

    Attributes:
        text: plain, not escaped for any format.
        bold: the best of its column.
        faint: says that something is absent or means little.
        footnotes: numbers of the footnotes that it refers to.
    """

    text: str = ""
    bold: bool = False
    faint: bool = False
    footnotes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Column:
    """A column: its heading under that of its group, and the two in one for formats without groups."""

    label: str
    group: str = ""
    flat: str = ""

    @property
    def heading(self) -> str:
        """The heading where there are no groups."""
        return self.flat or self.label


@dataclass(frozen=True)
class Line:
    """One row: the first cell is its name."""

    cells: tuple[Cell, ...]
    baseline: bool = False
    base: bool = False


@dataclass(frozen=True)
class Grid:
    """One table.

    Attributes:
        key: a word for labels and anchors.
        caption: a sentence above it.
        columns, lines: as many cells in every line as there are columns.
        prose: whether the columns hold words, to be set from the left.
    """

    key: str
    caption: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    prose: bool = False

    @property
    def groups(self) -> list[tuple[str, list[Column]]]:
        """Neighbouring columns of one group, with its heading."""
        return [(group, list(members)) for group, members in groupby(self.columns, key=lambda column: column.group)]

    @property
    def grouped(self) -> bool:
        """Whether there is a heading above those of columns."""
        return any(column.group for column in self.columns)

    @property
    def edges(self) -> list[bool]:
        """Whether a group of columns begins at each."""
        before = [self.columns[0].group, *(column.group for column in self.columns)]
        return [bool(c.group) and c.group != left for c, left in zip(self.columns, before, strict=False)]


def grids(report: TableReport) -> list[Grid]:
    """The tables of a report: scores, differences, cost, and what each row changes; empty ones are left out."""
    rows = [row for row in report.rows if not row.baseline] + [row for row in report.rows if row.baseline]
    numbers = _footnote_numbers(report)
    made = (
        _scores(report, rows, numbers),
        _differences(report, rows),
        _cost(rows),
        _settings(rows),
    )
    return [grid for grid in made if grid.lines and len(grid.columns) > 1]


def footnotes(report: TableReport) -> list[str]:
    """Why trainings failed and what the health check saw; the first is footnote 1."""
    return [text for _, text in _footnotes(report)]


def number(value: float, digits: int, *, sign: bool = False) -> str:
    """A number as tables show it, with a true minus."""
    if not math.isfinite(value):
        return "not finite"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    # A value that rounds to zero has no sign.
    return (text.lstrip("+-") if float(text) == 0 else text).replace("-", "−")


def spread(mean: float, std: float | None, digits: int) -> str:
    """``mean ± std``, or the mean alone."""
    return number(mean, digits) if std is None else f"{number(mean, digits)} ± {number(std, digits)}"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.2f} h"


def verdict(metric: Metric, difference: Difference) -> str:
    """What a difference means, in a word; with one seed it is marked, for it counts images only."""
    if difference.untrained:
        return UNTRAINED
    if not difference.significant:
        word = NOT_SIGNIFICANT
    elif difference.small:
        word = SMALL
    elif metric.better == "one":  # two values may differ and be as far from 1
        word = "differs"
    else:
        word = "better" if (difference.mean < 0) == (metric.better == "lower") else "worse"
    return f"{word} {ONE_SEED}" if difference.seeds == 1 else word


def _name(row: RowReport, references: tuple[int, ...] = ()) -> Cell:
    done = sum(seed.status == "done" for seed in row.seeds)
    suffix = (" (base)" if row.base else "") + (f" ({UNTRAINED})" if row.untrained else "")
    if row.scores and done < len(row.seeds):
        suffix += f" ({done} of {len(row.seeds)} seeds)"
    return Cell(row.name + suffix, footnotes=references)


def _line(row: RowReport, name: Cell, cells: Sequence[Cell]) -> Line:
    return Line((name, *cells), baseline=row.baseline, base=row.base)


def _scores(report: TableReport, rows: Sequence[RowReport], numbers: dict[str, tuple[int, ...]]) -> Grid:
    columns = [Column("row")]
    fields: list[tuple[str, str]] = []
    for name in report.metrics:
        metric = report.definitions[name]
        group = f"{metric.label} {_DIRECTION[metric.better]}"
        times = f"× {short_label(report.labels.get(metric.ratio_to or '', ''))}"
        columns.append(Column("mean ± std", group, group))
        fields.append((name, "mean"))
        optional = (
            ("seeds ±", any(name in row.scores and row.scores[name].seed_std is not None for row in rows)),
            (times, any(name in row.scores and row.scores[name].ratio is not None for row in rows)),
            ("paper", any(name in row.published for row in rows)),
            ("paper ×", _paper_constant(rows, metric, report) is not None),
        )
        for label, present in optional:
            if present:
                columns.append(Column(label, group))
                fields.append((name, label))
    lines = []
    for row in rows:
        references = numbers.get(row.name, ())
        cells = [
            _paper_ratio(row, name, _paper_constant(rows, report.definitions[name], report))
            if field == "paper ×"
            else _score(row, report.definitions[name], field)
            for name, field in fields
        ]
        if not row.scores and cells:  # the footnote belongs to the word that it explains
            cells[0] = Cell(_STATUS.get(row.status, row.status), faint=row.status != "failed", footnotes=references)
            references = ()
        lines.append(_line(row, _name(row, references), cells))
    return Grid("scores", "Scores on the same held-out images", tuple(columns), tuple(lines))


def _score(row: RowReport, metric: Metric, field: str) -> Cell:
    if field == "paper":
        quoted = row.published.get(metric.name)
        return Cell() if quoted is None else Cell(spread(quoted.mean, quoted.std, metric.digits))
    score = row.scores.get(metric.name)
    if score is None:
        return Cell()
    if field == "mean":
        return Cell(
            spread(score.mean, score.std, metric.digits),
            bold=(score.best or score.shared) and not (score.untrained or row.untrained),
        )
    return Cell(_per_seed(score, metric) if field == "seeds ±" else _ratio(score))


def _paper_constant(rows: Sequence[RowReport], metric: Metric, report: TableReport) -> float | None:
    """The paper's own figure for the metric's baseline, if the table quotes it together with others."""
    scored = any(metric.name in row.published for row in rows if not row.baseline)
    base = report.labels.get(metric.ratio_to or "")
    constant = next((row.published.get(metric.name) for row in rows if row.baseline and row.name == base), None)
    return constant.mean if constant is not None and scored else None


def _paper_ratio(row: RowReport, metric: str, constant: float | None) -> Cell:
    quoted = row.published.get(metric)
    return Cell() if quoted is None or constant is None else Cell(number(quoted.mean / constant, 2))


def _per_seed(score: Score, metric: Metric) -> str:
    return "" if score.seed_std is None else f"± {number(score.seed_std, metric.digits)}"


def _ratio(score: Score) -> str:
    return "" if score.ratio is None else number(score.ratio, 2)


def _differences(report: TableReport, rows: Sequence[RowReport]) -> Grid:
    found = {row.name: {n: s.difference for n, s in row.scores.items() if s.difference is not None} for row in rows}
    against = {d.against for by_metric in found.values() for d in by_metric.values()}
    shown = [name for name in report.metrics if any(name in by_metric for by_metric in found.values())]
    columns = [Column("row")] + ([Column("against")] if len(against) > 1 else [])
    for name in shown:
        group = report.definitions[name].label
        columns += [Column("Δ [95 % interval]", group, f"Δ {group} [95 % interval]"), Column("verdict", group)]
    lines = []
    for row in rows:
        by_metric = found[row.name]
        if not by_metric:
            continue
        cells = [Cell(next(iter(by_metric.values())).against)] if len(against) > 1 else []
        for name in shown:
            cells += _difference(report.definitions[name], by_metric.get(name))
        lines.append(_line(row, _name(row), cells))
    to = f"‘{next(iter(against))}’" if len(against) == 1 else "the row named"
    return Grid("differences", f"Differences to {to}, paired by image", tuple(columns), tuple(lines))


def _difference(metric: Metric, difference: Difference | None) -> list[Cell]:
    if difference is None:
        return [Cell(), Cell()]
    low, high = (number(value, metric.digits, sign=True) for value in (difference.low, difference.high))
    text = f"{number(difference.mean, metric.digits, sign=True)} [{low}, {high}]"
    return [Cell(text), Cell(verdict(metric, difference), faint=not difference.counts)]


def _cost(rows: Sequence[RowReport]) -> Grid:
    trained = [row for row in rows if row.seconds is not None]
    base = next((row.seconds for row in trained if row.base), None)
    columns = ["row", "steps", "training", *(["× base"] if base else []), "images/s", "peak memory"]
    devices = {row.name: sorted({seed.device for seed in row.seeds if seed.device}) for row in trained}
    several = len({device for found in devices.values() for device in found}) > 1
    lines = []
    for row in trained:
        assert row.seconds is not None
        steps = sorted({seed.steps for seed in row.seeds if seed.steps})
        cells = [Cell(" to ".join(dict.fromkeys(map(str, (steps[0], steps[-1])))) if steps else "")]
        cells += [Cell(duration(row.seconds))]
        cells += [Cell(number(row.seconds / base, 2))] if base else []
        rate = row.images_per_second
        cells += [Cell("" if rate is None else number(rate, 1 if rate < 100 else 0))]
        cells += [Cell("" if row.peak_memory_mb is None else f"{row.peak_memory_mb / 1024:.2f} GiB")]
        cells += [Cell(", ".join(devices[row.name]))] if several else []
        lines.append(_line(row, _name(row), cells))
    headings = tuple(Column(label) for label in (*columns, *(["device"] if several else [])))
    return Grid("cost", "Cost of one training, mean over seeds", headings, tuple(lines))


def _settings(rows: Sequence[RowReport]) -> Grid:
    columns = (Column("row"), Column("changes"), Column("note"))
    lines = tuple(
        _line(row, _name(row), [Cell(", ".join(row.changes)), Cell(row.note)])
        for row in rows
        if row.changes or row.note
    )
    return Grid("settings", "What each row changes", columns, lines, prose=True)


def _footnotes(report: TableReport) -> list[tuple[str, str]]:
    """(row, text) of every footnote; seeds that say the same share one."""
    found = []
    for row in report.rows:
        by_text: dict[str, list[int]] = {}
        for seed in row.seeds:
            if seed.status == "failed":
                by_text.setdefault(f"failed: {seed.cause or 'no cause was recorded'}", []).append(seed.seed)
            if seed.findings:
                said = f"the health check saw: {', '.join(seed.findings)}"
                by_text.setdefault(said, []).append(seed.seed)
        for text, seeds in by_text.items():
            which = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"
            found.append((row.name, " ".join(f"{row.name}, {which}, {text}".split())))
    return found


def _footnote_numbers(report: TableReport) -> dict[str, tuple[int, ...]]:
    numbers: dict[str, tuple[int, ...]] = {}
    for place, (row, _) in enumerate(_footnotes(report), start=1):
        numbers[row] = (*numbers.get(row, ()), place)
    return numbers
