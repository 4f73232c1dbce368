"""Names in the file of a table, and in the command, that nothing has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from recon_toolkit.bench.metrics import known_baselines, known_metrics
from recon_toolkit.bench.schema import TableConfig
from recon_toolkit.config.document import Entry
from recon_toolkit.config.problems import Problem
from recon_toolkit.errors import ReconError
from recon_toolkit.evaluation.own_scores import ScoreSheet
from recon_toolkit.nearest import suggestion

#: How a row names the run folder of a preparation.
PREPARED = "prepared:"


def command_problems(
    config: TableConfig, rows: Sequence[str] | None, seeds: Sequence[int] | None, overrides: Sequence[str]
) -> Iterator[ReconError]:
    """Rows, seeds and settings of the command that cannot be."""
    for setting in overrides:
        if PREPARED in setting:
            yield ReconError("only the table's file can name a preparation", where=f"--set {setting}")
    for name in rows or ():
        if name not in config.rows:
            yield ReconError(f"there is no row '{name}'", where="--row", remedy=suggestion(name, config.rows))
    if seeds and len(set(seeds)) < len(seeds):
        yield ReconError("a seed is given twice", where="--seed", remedy="one training is no evidence for itself")


def name_problems(tree: Entry, config: TableConfig, base: str, sheets: Sequence[ScoreSheet]) -> Iterator[ReconError]:
    """Metrics, baselines and rows that are named but not there.

    Args:
        tree, config: the table.
        base: the row that others are compared with.
        sheets: what the rows are judged by besides the toolkit's metrics.
    """
    yield from _score_problems(tree, config, sheets)
    for name in config.prepare.keys() & config.rows.keys():
        text = f"a row and a preparation are both called '{name}'"
        yield Problem(text, tree, ("prepare", name), remedy="rename one")
    if base not in config.rows:
        yield Problem(f"there is no row '{base}'", tree, ("base",), remedy=suggestion(base, config.rows))
    for row, entry in tree.mapping["rows"].mapping.items():
        against = entry.mapping.get("against")
        if against is not None and against.value not in config.rows:
            text = f"row '{row}': there is no row '{against.value}' to compare with"
            remedy = suggestion(str(against.value), config.rows)
            yield Problem(text, tree, ("rows", row, "against"), remedy=remedy)


def _score_problems(tree: Entry, config: TableConfig, sheets: Sequence[ScoreSheet]) -> Iterator[ReconError]:
    metrics, baselines = known_metrics(sheets), known_baselines(sheets)
    for number, name in enumerate(config.metrics):
        if name not in metrics:
            yield Problem(f"there is no metric '{name}'", tree, ("metrics", number), remedy=suggestion(name, metrics))
    for number, name in enumerate(config.baselines):
        if name not in baselines:
            text, remedy = f"there is no baseline '{name}'", suggestion(name, baselines)
            yield Problem(text, tree, ("baselines", number), remedy=remedy)
    for baseline, figures in config.published.items():
        if baseline not in baselines:
            text, remedy = f"there is no baseline '{baseline}'", suggestion(baseline, baselines)
            yield Problem(text, tree, ("published", baseline), remedy=remedy)
        for name in figures.keys() - metrics.keys():
            text, remedy = f"there is no metric '{name}'", suggestion(name, metrics)
            yield Problem(text, tree, ("published", baseline, name), remedy=remedy)
    for row, entry in tree.mapping["rows"].mapping.items():
        published = entry.mapping.get("published")
        for name in (published.mapping.keys() if published is not None else set()) - metrics.keys():
            text, remedy = f"row '{row}': there is no metric '{name}'", suggestion(name, metrics)
            yield Problem(text, tree, ("rows", row, "published", name), remedy=remedy)
