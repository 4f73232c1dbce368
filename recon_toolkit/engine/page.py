"""What a finished run reports: its summary, and its pages of scores, pictures, curves and objects to turn."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel

from recon_toolkit.data.packed import PackedImages
from recon_toolkit.engine.log import read_log
from recon_toolkit.engine.validation import examples
from recon_toolkit.errors import DataError
from recon_toolkit.files import write_text, writing
from recon_toolkit.geometry import Camera
from recon_toolkit.metrics.metric import GroupScores, MetricScores
from recon_toolkit.metrics.report import Baselines, baseline_score
from recon_toolkit.models import Model
from recon_toolkit.pages import page
from recon_toolkit.progress import QUIET, Progress
from recon_toolkit.result import Result
from recon_toolkit.viewer import Scene, viewer_document


class RunSummary(BaseModel):
    """The result of a run: the object that ``recon run --json`` prints and ``summary.json`` holds.

    Attributes:
        run: the run folder.
        pipeline: its name.
        status: ``finished``, or ``failed`` where training could not go on: then there are no scores, and the last of
            the notes says why.
        steps, seconds: training steps done, and seconds spent in training (over all sessions).
        images_per_second: training throughput.
        images: evaluated images.
        side: scale-invariant depth error ×10⁻², mean over images; None without ground truth, or where the model has
            no depth.
        mad: mean angle deviation of normals in degrees.
        side_std, mad_std: standard deviations over images.
        mae, mse, slope, correlation: means over images.
        baselines: constant and average depth on the same images.
        side_ratio, mad_ratio: side and mad over the constant-depth baseline's.
        psnr, ssim: of the model's pictures, means over images, see
            :class:`~recon_toolkit.metrics.images.ImageMetrics`; None where it offers none to score.
        lpips: likewise; None also where AlexNet's weights are absent.
        psnr_std, ssim_std, lpips_std: standard deviations over images.
        held_out_loss: the training loss on held-out images, where there is no ground truth to score by; psnr and ssim
            are then those of the model's reconstruction of them.
        scores: all that the model is judged by, with baselines and by group; None where there is nothing.
        notes: what was left out of the scores, and why.
        findings: failures that the health check named while training.
        excluded: evaluated images without a usable mask.
    """

    run: Path
    pipeline: str
    status: Literal["finished", "failed"] = "finished"
    steps: int
    seconds: float
    images_per_second: float
    peak_memory_mb: float
    device: str
    seed: int
    images: int = 0
    excluded: int = 0
    side: float | None = None
    side_std: float | None = None
    mad: float | None = None
    mad_std: float | None = None
    mae: float | None = None
    mse: float | None = None
    slope: float | None = None
    correlation: float | None = None
    side_ratio: float | None = None
    mad_ratio: float | None = None
    baselines: Baselines | None = None
    psnr: float | None = None
    psnr_std: float | None = None
    ssim: float | None = None
    ssim_std: float | None = None
    lpips: float | None = None
    lpips_std: float | None = None
    held_out_loss: float | None = None
    scores: MetricScores | None = None
    notes: list[str] = []
    findings: list[str] = []


def summarised(scores: MetricScores) -> dict[str, Any]:
    """Scores as the fields of a summary: all of them, and those that have a field of their own."""
    values: dict[str, Any] = {"scores": scores, "images": scores.images - scores.empty, "excluded": scores.empty}
    for metric in scores.metrics:
        over_images, ratio = scores.values[metric.name], scores.ratio(metric)
        values |= {
            metric.name: over_images.mean, f"{metric.name}_std": over_images.std, f"{metric.name}_ratio": ratio,
        }  # fmt: skip
    baselines = {
        who: baseline_score(errors["side"], errors["mad"])
        for who, errors in scores.baselines.items()
        if {"side", "mad"} <= errors.keys()
    }
    if "constant" in baselines:
        values["baselines"] = Baselines(constant=baselines["constant"], average=baselines.get("average"))
    return {name: value for name, value in values.items() if name in RunSummary.model_fields}


OBJECTS = "objects.html"
COUNT = 8
#: Of shapes, which take a second or two each to close.
FEWER = 4


def write_objects(
    run: Path,
    name: str,
    model: Model,
    data: PackedImages,
    camera: Camera,
    *,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[object]],
    progress: Progress = QUIET,
) -> None:
    """Write ``objects.html`` for some images of a data set, if the model predicts depth or points."""
    if not model.defines("reconstruct"):
        return
    batch, found = examples(model, data, device=device, images=COUNT, autocast=autocast)
    if found.depth is None and found.canonical_depth is None and found.points is None:
        return
    scenes: list[Scene] = []
    shown = range(0, len(found), max(1, len(found) // FEWER)) if found.points is not None else range(len(found))
    with progress.task("the page of objects", len(shown), "object") as task:
        for index in shown:
            result = Result(found.at(index), camera, found.image[index], data.names[int(batch.index[index])])
            with suppress(DataError):  # an object that a model has lost is nothing to turn
                scenes.append(result.scene())
            task.advance()
    if scenes:
        write_text(run / OBJECTS, viewer_document(f"{name}: held-out images", scenes))


PAGE, CURVES = "index.html", "curves.png"
#: Files that the page links to, where they are.
FILES = ("pipeline.yaml", "environment.json", "metrics.jsonl", "summary.json", "scores.csv", "model.safetensors")


@dataclass(frozen=True)
class _Table:
    """Scores to show: a row of one cell is a heading over all columns."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def write_page(run: Path, summary: RunSummary) -> None:
    """Write ``index.html`` and ``curves.png`` from what lies in a run folder."""
    _write_curves(run, summary)
    found = {path.name for path in run.iterdir()}
    text = page(
        "recon_toolkit",
        "run.html",
        title=summary.pipeline,
        summary=summary,
        scores=_scores(summary),
        loss=_held_out_loss(summary),
        present=found,
        objects=OBJECTS,
        sheets=sorted(path.stem for path in (run / "sheets").glob("*.png")),
        files=[name for name in FILES if name in found],
    )
    write_text(run / PAGE, text)


def _around(mean: float, std: float, digits: int) -> str:
    return f"{mean:.{digits}f} ± {std:.{digits}f}"


def _held_out_loss(summary: RunSummary) -> str:
    if summary.held_out_loss is None:
        return ""
    return f"The loss on {summary.images} held-out images is {summary.held_out_loss:.3f}."


def _scores(summary: RunSummary) -> _Table | None:
    scores = summary.scores
    if scores is None:
        return None
    rows = _group_rows(f"all {scores.images} held-out images", scores, scores)
    for name, group in scores.groups.items():
        rows += _group_rows(f"{name}, {group.images} images", scores, group)
    return _Table(["", *(metric.label for metric in scores.headlines)], rows, _ratios(scores))


def _group_rows(name: str, scores: MetricScores, group: GroupScores) -> list[list[str]]:
    rows = [[name]]
    for label, values in (("this run", group.values), *((scores.labels[key], v) for key, v in group.baselines.items())):
        cells = (
            _around(values[m.name].mean, values[m.name].std, m.digits) if m.name in values else ""
            for m in scores.headlines
        )
        rows.append([label, *cells])
    return rows


def _ratios(scores: MetricScores) -> str:
    parts = [
        f"{metric.label.partition(' ')[0]} {ratio:.2f} × {scores.labels[metric.ratio_to or '']}"
        for metric in scores.headlines
        if (ratio := scores.ratio(metric)) is not None
    ]
    return f"As multiples: {', '.join(parts)}." if parts else ""


def _validated(scored: list[dict[str, Any]], summary: RunSummary) -> tuple[list[tuple[str, str]], str, str]:
    """What to draw of the validations: keys with their labels, the unit, and a title."""
    scores = summary.scores
    if scores is None:  # of a run that failed
        ratios = [key for key in scored[-1] if key.endswith("_ratio")][:2] if scored else []
        return [(key, key.removesuffix("_ratio").upper()) for key in ratios], "× baseline", "validation error"
    quoted = [metric for metric in scores.headlines if metric.ratio_to in scores.baselines][:2]
    if quoted:
        unit = f"× {scores.labels[quoted[0].ratio_to or '']}"
        return [(f"{metric.name}_ratio", metric.label.split()[0]) for metric in quoted], unit, "validation error"
    return [(scores.headlines[0].name, scores.headlines[0].label)], "", "held-out images"


def _write_curves(run: Path, summary: RunSummary) -> None:
    from matplotlib.figure import Figure

    entries = read_log(run)
    train = [e for e in entries if e["kind"] == "train"]
    scored = [e for e in entries if e["kind"] == "validation"]
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([e["step"] for e in train], [e["loss"] for e in train])
    left.set(xlabel="step", ylabel="loss", title="training loss")
    lines, unit, title = _validated(scored, summary)
    for key, label in lines:
        having = [e for e in scored if e.get(key) is not None]
        right.plot([e["step"] for e in having], [e[key] for e in having], marker="o", label=label)
    right.set(xlabel="step", ylabel=unit, title=title)
    if scored and lines:
        right.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    with writing(run / CURVES) as file:
        file.write(buffer.getvalue())
