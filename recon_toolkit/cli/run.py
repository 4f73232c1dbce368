"""``recon run``: train and score a pipeline."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recon_toolkit.cli.common import (
    AsJson,
    DisabledPlugins,
    PluginFiles,
    Trust,
    fail,
    plugin_host,
    print_json,
    progress_of,
)

if TYPE_CHECKING:
    from recon_toolkit.training.summary import RunSummary


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("run", short_help="Train and score a pipeline.")(run)


def run(
    context: typer.Context,
    pipeline: Annotated[
        str, typer.Option("--pipeline", "-p", metavar="NAME", help="An installed pipeline, or a YAML file.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="The run folder; runs/NAME by default.", show_default=False),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Folder of your data, where the data set reads one."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a setting, e.g. training.steps=100 (repeatable).",
            show_default=False,
        ),
    ] = None,
    plugin: PluginFiles = None,
    disable_plugin: DisabledPlugins = None,
    trust: Trust = False,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of weights, order and augmentation; short for --set seed=N.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out from its last checkpoint.")
    ] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")] = "auto",
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard files (pip install tensorboard).")
    ] = False,
    json: AsJson = False,
) -> None:
    """Train a pipeline, score it on held-out images, and write a run folder.

    \b
    Examples:
      recon run --pipeline unsup3d-quick --out runs/faces
      recon run --pipeline unsup3d-quick --set losses.flipped.weight=0 --seed 1
      recon run --pipeline unsup3d-celeba --data celeba --device cuda
      recon run --pipeline mine.yaml --plugin my_edges.py
      recon run --pipeline unsup3d-quick --out runs/faces --resume
    """
    from recon_toolkit.config.pipeline import load_pipeline
    from recon_toolkit.config.stored import is_stored
    from recon_toolkit.errors import DataError

    if data is not None and not data.is_dir():
        raise DataError(f"there is no folder {data}", where="--data", remedy="check the path")
    host = plugin_host(context, plugin, disable_plugin)
    settings = [*(overrides or ()), *([f"seed={seed}"] if seed is not None else [])]
    resolved = load_pipeline(pipeline, settings, host, trust=True if trust and is_stored(Path(pipeline)) else None)

    from recon_toolkit.training.allocator import keep_memory
    from recon_toolkit.training.interrupt import Interrupted
    from recon_toolkit.training.run import run_pipeline

    keep_memory()
    out = out if out is not None else Path("runs") / resolved.name
    try:
        with progress_of(context) as progress:
            summary = run_pipeline(
                resolved,
                out=out,
                data=data,
                resume=resume,
                device=device,
                tensorboard=tensorboard,
                progress=progress,
                command=["recon", *sys.argv[1:]],
            )
    except Interrupted as stop:
        fail(f"{stop}; the same command with --resume --out {out} goes on from there")
        raise typer.Exit(130) from stop
    if os.environ.get("LOCAL_RANK", "0") != "0":  # one process of several speaks
        return
    if json:
        print_json(summary)
    else:
        _print(summary)


def _print(summary: RunSummary) -> None:
    from recon_toolkit.evaluation.image_metrics import score_line

    for name, value, baseline in (("SIDE", summary.side, "side_ratio"), ("MAD", summary.mad, "mad_ratio")):
        if value is not None:
            unit = " ×10⁻²" if name == "SIDE" else "°"
            ratio = getattr(summary, baseline)
            print(f"{name} {value:.2f}{unit}" + (f" ({ratio:.2f} × constant depth)" if ratio is not None else ""))
    if summary.psnr is not None and summary.ssim is not None:
        print(score_line(summary.psnr, summary.ssim, summary.lpips))
    for finding in summary.findings:
        print(f"finding: {finding}")
    print(f"{summary.steps} steps in {summary.seconds:.0f} s; look at {summary.run}")
