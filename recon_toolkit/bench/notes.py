"""The sentences under a table: what it was made with, and how to read it."""

from __future__ import annotations

from recon_toolkit.bench.report import TableReport, short_label


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
