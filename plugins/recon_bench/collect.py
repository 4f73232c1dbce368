"""From finished run folders to the report of a table: paired differences that count images and trainings."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recon_bench.layout import number
from recon_bench.report import (
    Difference,
    RowReport,
    Score,
    SeedResult,
    Status,
    TableReport,
)
from recon_bench.store import Manifest, ManifestRow, Store, now
from recon_toolkit.engine.environment import Environment
from recon_toolkit.metrics import Metric

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval."""

    mean: float
    low: float
    high: float
    seeds: int
    images: int


def paired_interval(differences: NDArray[np.float64], confidence: float = CONFIDENCE) -> Interval | None:
    """Mean difference of two settings with its confidence interval; None where there are too few values.

    The differences d (S, N) of S trainings, paired by seed, on the same N images are taken as a mean plus an effect
    of the training, one of the image, and a rest: d[s, i] = μ + a[s] + b[i] + e[s, i], all but μ random (a crossed
    two-way layout with one value a cell). The variance of the mean is (MS_a + MS_b − MS_e) / (S·N) in terms of the
    mean squares, its degrees of freedom are Satterthwaite's (Searle, Casella and McCulloch, *Variance Components*,
    1992, sections 4.3 and 4.7), and the interval is Student's. With S = 1 this is the usual paired t interval over
    images, which knows nothing of what another training would give.

    Args:
        differences: (S, N); images (columns) with a value that is not finite are left out.
        confidence: of the interval.
    """
    from scipy.stats import t

    values = differences[:, np.isfinite(differences).all(0)]
    seeds, images = values.shape
    if seeds == 0 or images < 2:
        return None
    mean = float(values.mean())
    by_seed, by_image = values.mean(1), values.mean(0)
    image_square = seeds * float(by_image.var(ddof=1))
    if seeds == 1:
        variance, freedom = image_square / images, images - 1.0
    else:
        seed_square = images * float(by_seed.var(ddof=1))
        rest = values - by_seed[:, None] - by_image[None] + mean
        rest_square = float(np.square(rest).sum()) / ((seeds - 1) * (images - 1))
        # The estimate may come out too small, or negative, by chance; each of the two alone is a lower bound.
        square = max(seed_square + image_square - rest_square, seed_square, image_square)
        parts = ((seed_square, seeds - 1), (image_square, images - 1), (rest_square, (seeds - 1) * (images - 1)))
        weight = sum(part**2 / degrees for part, degrees in parts)
        variance, freedom = square / (seeds * images), square**2 / weight if weight > 0 else math.inf
    half = float(t.ppf(0.5 + confidence / 2, freedom)) * math.sqrt(variance)
    return Interval(mean, mean - half, mean + half, seeds, images)


@dataclass
class _Run:
    """A training's result with its scores by image and what it was made with."""

    result: SeedResult
    images: pd.DataFrame | None = None
    environment: Environment | None = None


@dataclass
class _Surroundings:
    """What the finished trainings were made with, each kind once."""

    versions: dict[str, set[str]] = field(default_factory=dict)
    devices: set[str] = field(default_factory=set)
    processors: set[str] = field(default_factory=set)
    data: set[str] = field(default_factory=set)

    def add(self, found: Environment) -> None:
        for package, version in found.versions.items():
            self.versions.setdefault(package, set()).add(version)
        self.versions.setdefault("python", set()).add(found.python)
        if found.git:
            self.versions.setdefault("source revision", set()).add(found.git)
        self.devices.add(f"{found.device}, {found.precision}, {found.threads} threads")
        self.processors.add(found.processor)
        self.data.update(f"{split} {digest[:16]}" for split, digest in found.data.items())


def collect(manifest: Manifest, store: Store, folder: Path) -> TableReport:
    """The report of a table, with whatever of it is done.

    Args:
        manifest: rows and digests.
        store: the run folders.
        folder: of the results, which run folders are named relative to.

    Raises:
        DataError: a finished run's files are damaged or of another version.
    """
    surroundings = _Surroundings()
    known = manifest.known
    runs = {
        row.name: [_run(seed, where, store, folder, known) for seed, where in row.trainings] for row in manifest.rows
    }
    for name, row_runs in runs.items():
        for run in row_runs:
            if run.environment is not None:
                surroundings.add(run.environment)
        for _, digest in next(row.trainings for row in manifest.rows if row.name == name):
            for later in store.resumed(digest):
                surroundings.add(later)
    rows = [_row(row, runs, manifest) for row in manifest.rows]
    _judge(rows, known, manifest.smallest_difference)
    rows += _baselines(manifest, runs[manifest.base])
    _mark_best(rows, _comparable(runs, manifest.base), [known[name] for name in manifest.metrics])
    base = next(row for row in manifest.rows if row.name == manifest.base)
    return TableReport(
        name=manifest.name,
        description=manifest.description,
        pipeline=manifest.pipeline,
        metrics=manifest.metrics,
        definitions={name: known[name] for name in manifest.metrics},
        labels=manifest.labels,
        rows=rows,
        seeds=[seed for seed, _ in base.trainings],
        budget=manifest.budget,
        published_source=manifest.source,
        smallest_difference=manifest.smallest_difference,
        versions={name: sorted(found) for name, found in sorted(surroundings.versions.items())},
        devices=sorted(surroundings.devices),
        processors=sorted(surroundings.processors),
        data=[*manifest.data, f"fingerprints {', '.join(sorted(surroundings.data))}"],
        made=now(),
        notes=_notes(rows, runs),
    )


def _run(seed: int, digest: str, store: Store, folder: Path, known: Collection[str]) -> _Run:
    run = store.run(digest)
    shown = Path(os.path.relpath(run, folder)).as_posix()
    if not store.finished(digest):
        record = store.record(digest)
        status: Status = "pending"
        if store.busy(digest):
            status = "running"
        elif record is not None and record.status == "failed":
            status = "failed"
        cause = record.cause if record is not None and status == "failed" else None
        return _Run(SeedResult(seed=seed, status=status, run=shown, cause=cause))
    summary = store.summary(digest)
    images = store.scores(digest)
    columns = [] if images is None else [name for name in known if name in images]
    scores = {name: float(images[name].mean()) for name in columns} if images is not None else {}
    result = SeedResult(
        seed=seed,
        status="done",
        run=shown,
        device=summary.device,
        steps=summary.steps,
        seconds=summary.seconds,
        images_per_second=summary.images_per_second,
        peak_memory_mb=summary.peak_memory_mb,
        images=summary.images,
        unscored=summary.excluded,
        findings=summary.findings,
        scores={name: value for name, value in scores.items() if np.isfinite(value)},
    )
    return _Run(result, images, store.environment(digest))


def _row(row: ManifestRow, runs: Mapping[str, Sequence[_Run]], manifest: Manifest) -> RowReport:
    own, known = runs[row.name], manifest.known
    done = [run.result for run in own if run.result.status == "done"]
    report = RowReport(
        name=row.name,
        note=row.note,
        base=row.name == manifest.base,
        pipeline=row.pipeline,
        changes=row.changes,
        seeds=[run.result for run in own],
        published=row.published,
    )
    if not done:
        return report
    against = row.against or manifest.base
    for metric in manifest.metrics:
        tables = [run.images for run in own if run.images is not None and metric in run.images]
        score = _score(tables, known[metric])
        if score is None:
            continue
        if against != row.name:
            score.difference = _difference(own, runs[against], metric, against)
        report.scores[metric] = score
    report.seconds = float(np.mean([seed.seconds for seed in done]))
    report.images_per_second = float(np.mean([seed.images_per_second for seed in done]))
    report.peak_memory_mb = float(np.mean([seed.peak_memory_mb for seed in done]))
    return report


def _score(tables: Sequence[pd.DataFrame], metric: Metric) -> Score | None:
    columns = [values for values in (_finite(table[metric.name]) for table in tables) if len(values)]
    if not columns:
        return None
    means = [float(values.mean()) for values in columns]
    base = f"{metric.ratio_to}_{metric.name}"
    constants = [_finite(table[base]) for table in tables if base in table]
    ratio = None
    if len(constants) == len(means) and all(c.mean() > 0 for c in constants):
        ratio = float(np.mean([mean / c.mean() for mean, c in zip(means, constants, strict=True)]))
    return Score(
        mean=float(np.mean(means)),
        std=float(np.mean([values.std() for values in columns])),
        seed_std=float(np.std(means, ddof=1)) if len(means) > 1 else None,
        ratio=ratio,
    )


def _finite(column: pd.Series[float]) -> NDArray[np.float64]:
    values = column.to_numpy(dtype=np.float64)
    return np.asarray(values[np.isfinite(values)], dtype=np.float64)


def _difference(own: Sequence[_Run], others: Sequence[_Run], metric: str, against: str) -> Difference | None:
    """The paired difference over common seeds, where both were scored on the same images."""
    by_seed = {run.result.seed: run for run in others}
    pairs = [(run, by_seed[run.result.seed]) for run in own if run.result.seed in by_seed]
    columns = [
        run.images[metric].to_numpy(dtype=np.float64) - other.images[metric].to_numpy(dtype=np.float64)
        for run, other in pairs
        if _same_images(run, other)
        and run.images is not None
        and other.images is not None
        and metric in run.images
        and metric in other.images
    ]
    columns = [column for column in columns if np.isfinite(column).any()]  # a seed without scores says nothing
    found = paired_interval(np.stack(columns)) if columns else None
    if found is None:
        return None
    return Difference(
        against=against, mean=found.mean, low=found.low, high=found.high, seeds=found.seeds, images=found.images
    )


def _same_images(first: _Run, second: _Run) -> bool:
    if first.environment is None or second.environment is None or first.images is None or second.images is None:
        return False
    same_data = first.environment.data.get("evaluation") == second.environment.data.get("evaluation")
    return same_data and first.images["image"].equals(second.images["image"])


def _judge(rows: Sequence[RowReport], known: Mapping[str, Metric], smallest: float) -> None:
    """Say which scores are no better than their baseline, and which differences are of such rows, or too small."""
    for row in rows:
        for name, score in row.scores.items():
            # As printed, so that a table never calls better what reads the same.
            shown = None if score.ratio is None else round(score.ratio, 2)
            score.untrained = shown is not None and (shown <= 1 if known[name].better == "higher" else shown >= 1)
    by_name = {row.name: row for row in rows}
    for row in rows:
        for name, score in row.scores.items():
            if score.difference is None:
                continue
            score.difference.untrained = score.untrained or row.untrained
            other = by_name[score.difference.against].scores.get(name)
            if other is not None:
                score.difference.small = abs(score.difference.mean) < smallest * abs(other.mean)


def _baselines(manifest: Manifest, base: Sequence[_Run]) -> list[RowReport]:
    """Baselines on the images and masks of the base row."""
    tables = [run.images for run in base if run.images is not None]
    rows = []
    for name in manifest.baselines:
        scores = {}
        for metric in manifest.metrics:
            column = f"{name}_{metric}"
            having = [table.rename(columns={column: "value"}) for table in tables if column in table]
            score = _baseline_score(having, manifest.known[metric])
            if score is not None:
                scores[metric] = score
        published = manifest.published.get(name, {})
        if scores or published:
            rows.append(RowReport(name=manifest.labels[name], baseline=True, scores=scores, published=published))
    return rows


def _baseline_score(tables: Sequence[pd.DataFrame], metric: Metric) -> Score | None:
    columns = [values for values in (_finite(table["value"]) for table in tables) if len(values)]
    if not columns:
        return None
    base = f"{metric.ratio_to}_{metric.name}"  # where it is this one, its column is called "value" here
    constants = [_finite(table[base if base in table else "value"]) for table in tables]
    mean = float(np.mean([values.mean() for values in columns]))
    return Score(
        mean=mean,
        std=float(np.mean([values.std() for values in columns])),
        ratio=mean / float(np.mean([values.mean() for values in constants])) if metric.ratio_to else None,
    )


def _comparable(runs: Mapping[str, Sequence[_Run]], base: str) -> set[str]:
    """Rows that are scored on the base row's images, on no fewer of them and with every seed."""
    first = next((run for run in runs[base] if run.images is not None), None)
    if first is None:
        return set()
    most = max(run.result.images for own in runs.values() for run in own)
    return {
        name
        for name, own in runs.items()
        if own and all(_same_images(run, first) and run.result.images >= 0.99 * most for run in own)
    }


def _mark_best(rows: Sequence[RowReport], comparable: Collection[str], metrics: Sequence[Metric]) -> None:
    """Mark the best of the comparable rows in each metric, and what reads the same, if there is a choice."""
    for metric in metrics:
        having = [row.scores[metric.name] for row in rows if row.name in comparable and metric.name in row.scores]
        trained = [
            row.scores[metric.name]
            for row in rows
            if row.name in comparable and metric.name in row.scores and not row.untrained
        ]
        trained = [score for score in trained if not score.untrained] or having  # tables print no bold where none is
        if len(having) > 1:
            best = min(trained, key=lambda score: metric.loss(score.mean))
            best.best = True
            for score in trained:
                score.shared = number(score.mean, metric.digits) == number(best.mean, metric.digits)


def _notes(rows: Sequence[RowReport], runs: Mapping[str, Sequence[_Run]]) -> list[str]:
    """What a reader must know to trust the table."""
    notes = []
    scored = [run for own in runs.values() for run in own if run.environment is not None]
    images, learned = (
        {run.environment.data.get(split) for run in scored if run.environment is not None}
        for split in ("evaluation", "train")
    )
    if len(images) > 1:
        notes.append(
            "Rows are scored on different images; no difference is given between rows that do not share theirs"
        )
    elif len(learned) > 1:
        notes.append("Rows are trained on different images")
    steps = {seed.steps for row in rows for seed in row.seeds if seed.status == "done"}
    if len(steps) > 1:
        notes.append(f"Rows were trained for different numbers of steps: {', '.join(map(str, sorted(steps)))}")
    for row in rows:
        for seed in row.seeds:
            if seed.status == "done" and seed.unscored:
                notes.append(
                    f"{row.name}, seed {seed.seed}: {seed.unscored} of {seed.unscored + seed.images} images "
                    "had nothing to score and count in no mean"
                )
    found = sorted({f"{row.name}: {finding}" for row in rows for seed in row.seeds for finding in seed.findings})
    if found:
        notes.append(f"The health check saw, while training: {'; '.join(found)}")
    return notes
