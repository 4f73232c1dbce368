"""Pictures of a table: error over the steps of training, and the scores with their spread."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import cycle, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon_bench.report import RowReport, TableReport
from recon_toolkit.engine.log import read_log
from recon_toolkit.files import writing
from recon_toolkit.metrics import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colours that people with any colour vision tell apart (Okabe and Ito, 2008), without black, which is the base's.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
LINES = ("-", "--", ":", "-.")
#: What is drawn over the steps, where a log has it: key, heading, and the largest value shown (None: all).
PANELS = (
    ("mad_ratio", "MAD × constant depth", 1.5),
    ("side_ratio", "SIDE × constant depth", 1.5),
    ("psnr", "PSNR dB", None),
)

Curve = dict[int, float]


def write_curves(report: TableReport, folder: Path, out: Path) -> bool:
    """Draw the validation scores of all rows over steps: a line a row, the mean over its seeds, and thin ones a seed.

    Args:
        report: the table.
        folder: of the results, in which the runs lie.
        out: the PNG to write.

    Returns:
        Whether there was anything to draw; without, nothing is written.

    Raises:
        DataError: the disk is full or cannot be written.
    """
    from matplotlib.figure import Figure

    rows = [row for row in report.rows if not row.baseline]
    panels = [*PANELS, *_own_panels(report)]
    logs = {row.name: [_validations(folder / seed.run) for seed in row.seeds] for row in rows}
    curves = {
        key: {name: [curve for log in found if (curve := _curve(log, key))] for name, found in logs.items()}
        for key, *_ in panels
    }
    shown = [panel for panel in panels if any(curves[panel[0]].values())]
    if any(key.endswith("_ratio") for key, *_ in shown):  # depth is what such a table is about
        shown = [panel for panel in shown if panel[0] != "psnr" or "psnr" in report.metrics]
    if not shown:
        return False
    figure = Figure(figsize=(5 * len(shown) + 2.5, 4), layout="constrained")
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    for axis, (key, heading, limit) in zip(axes, shown, strict=True):
        for row, style in zip(rows, _styles(rows), strict=True):
            _draw(axis, curves[key][row.name], style, row.name)
        axis.set(xlabel="step", title=heading)
        if limit is not None:
            axis.axhline(1, color="0.6", linewidth=0.8, zorder=0)
            _cut(axis, limit)
    _legend(figure, axes)
    _save(figure, out)
    return True


def _own_panels(report: TableReport) -> list[tuple[str, str, float]]:
    """Of the models' own metrics those that are quoted as multiples of a baseline."""
    own = [report.definitions[name] for name in report.metrics if report.definitions[name].needs == "own"]
    return [(f"{m.name}_ratio", f"{m.label} × {report.labels[m.ratio_to]}", 1.5) for m in own if m.ratio_to]


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean over seeds at the steps that all of them have."""
    common = set.intersection(*map(set, curves)) if curves else set()
    return {step: sum(curve[step] for curve in curves) / len(curves) for step in sorted(common)}


def write_bars(report: TableReport, out: Path) -> bool:
    """Draw the final scores: a dot a row with the standard deviation over seeds, baselines as vertical lines.

    Hollow dots do not differ significantly from the row that they are compared with. Returns whether there was
    anything to draw. Raises DataError if the disk is full or cannot be written.
    """
    from matplotlib.figure import Figure

    rows = [row for row in report.rows if not row.baseline and row.scores]
    names = [name for name in ("mad", "side") if name in report.metrics] or report.metrics[:2]
    names = [name for name in names if any(name in row.scores for row in rows)]
    if not rows or not names:
        return False
    height = 1.3 + 0.32 * len(rows)
    figure = Figure(figsize=(4.5 * len(names) + 1.5, height), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axis, name in zip(axes, names, strict=True):
        _dots(axis, rows, report.definitions[name])
        _baselines(axis, [row for row in report.rows if row.baseline], name)
        axis.set(title=report.definitions[name].label)
        axis.grid(axis="x", color="0.9", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.tick_params(left=axis is axes[0])
    axes[0].set_yticks(range(len(rows)), [_plain(row.name) for row in rows])
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    _save(figure, out)
    return True


def _validations(run: Path) -> list[dict[str, Any]]:
    return [entry for entry in read_log(run) if entry.get("kind") == "validation"]


def _curve(log: Sequence[dict[str, Any]], key: str) -> Curve:
    return {entry["step"]: entry[key] for entry in log if entry.get(key) is not None}


def _styles(rows: Sequence[RowReport]) -> list[dict[str, Any]]:
    """Distinct colours and dashes; the base is thick and black."""
    others = cycle(product(LINES, COLOURS))
    found: list[dict[str, Any]] = []
    for row in rows:
        if row.base:
            found.append({"color": "black", "linestyle": "-", "linewidth": 2.6, "zorder": 4})
        else:
            dash, colour = next(others)
            found.append({"color": colour, "linestyle": dash, "linewidth": 1.6, "zorder": 3})
    return found


def _draw(axis: Axes, curves: Sequence[Curve], style: dict[str, Any], name: str) -> None:
    if not curves:
        return
    if len(curves) > 1:
        for curve in curves:
            axis.plot(list(curve), list(curve.values()), **{**style, "linewidth": 0.6, "alpha": 0.5})
    mean = mean_curve(curves)
    marker = "o" if len(mean) == 1 else None  # a line through one point would not be seen
    axis.plot(list(mean), list(mean.values()), marker=marker, label=_plain(name), **style)


def _cut(axis: Axes, limit: float) -> None:
    """One diverged row must not flatten the others: what lies above the limit is left out, and that is said."""
    top = axis.get_ylim()[1]
    if top > limit:
        axis.set_ylim(top=limit)
        axis.set_title(f"{axis.get_title()} (cut at {limit:g})")


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    entries: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    figure.legend(list(entries.values()), list(entries), loc="outside right upper", frameon=False, handlelength=3)


def _dots(axis: Axes, rows: Sequence[RowReport], metric: Metric) -> None:
    name = metric.name
    base = next((row.scores[name].mean for row in rows if row.base and name in row.scores), None)
    if base is not None:
        axis.axvline(base, color="black", linewidth=0.8, zorder=1)
    for place, row in enumerate(rows):
        score = row.scores.get(name)
        if score is None:
            continue
        colour = "black" if row.base else COLOURS[0]
        hollow = score.difference is not None and not score.difference.counts
        axis.errorbar(
            score.mean,
            place,
            xerr=score.seed_std,
            fmt="o",
            color=colour,
            markerfacecolor="white" if hollow else colour,
            capsize=3,
            zorder=3,
        )
        text = f"{score.mean:.{metric.digits}f}"
        axis.annotate(text, (1.02, place), xycoords=("axes fraction", "data"), fontsize=8, va="center")


def _baselines(axis: Axes, rows: Sequence[RowReport], name: str) -> None:
    present = [row for row in rows if name in row.scores]
    for row, dash in zip(present, cycle(("--", ":", "-.")), strict=False):
        axis.axvline(row.scores[name].mean, color="0.45", linestyle=dash, linewidth=1.2, label=_plain(row.name))
    if present:
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False, fontsize=8)


def _plain(name: str) -> str:
    """matplotlib takes dollars as mathematics and leaves names with a leading underscore out of legends."""
    return f"\u200b{name}".replace("$", r"\$") if name.startswith("_") else name.replace("$", r"\$")


def _save(figure: Figure, out: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    with writing(out) as file:
        file.write(buffer.getvalue())
