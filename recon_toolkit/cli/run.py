"""``recon run``, ``recon score``, ``recon import`` and ``recon weights``: training, judging and sharing models."""

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
    settings_of,
)

if TYPE_CHECKING:
    from recon_toolkit.engine.page import RunSummary


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
    from recon_toolkit.config.sources import is_stored
    from recon_toolkit.errors import DataError

    if data is not None and not data.is_dir():
        raise DataError(f"there is no folder {data}", where="--data", remedy="check the path")
    host = plugin_host(context, plugin, disable_plugin)
    settings = [*(overrides or ()), *([f"seed={seed}"] if seed is not None else [])]
    resolved = load_pipeline(pipeline, settings, host, trust=True if trust and is_stored(Path(pipeline)) else None)

    from recon_toolkit.engine.environment import keep_memory
    from recon_toolkit.engine.run import run_pipeline
    from recon_toolkit.threads import Interrupted

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
    for line in summary.scores.lines() if summary.scores is not None else ():
        print(line)
    for finding in summary.findings:
        print(f"finding: {finding}")
    print(f"{summary.steps} steps in {summary.seconds:.0f} s; look at {summary.run}")


def import_weights(
    context: typer.Context,
    format_name: Annotated[str, typer.Argument(metavar="FORMAT", help="Whose checkpoint it is, e.g. unsup3d.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The checkpoint, a file of torch.save.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The weights file; beside the checkpoint by default."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", metavar="NAME", help="What it was trained on, e.g. celeba or cat.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="The settings file that it was trained with.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting (repeatable).", show_default=False),
    ] = None,
    as_json: AsJson = False,
    plugins: PluginFiles = None,
    disabled: DisabledPlugins = None,
) -> None:
    """Turn a published checkpoint into a weights file of ours, which knows its pipeline.

    The file is read without executing anything in it. What was taken, what was left out and which settings were
    assumed is printed. `recon plugins` lists the formats, as components of the kind importer.

    \b
    Examples:
      recon import unsup3d checkpoint030.pth
      recon import unsup3d checkpoint200.pth --preset cat --out cats.safetensors
      recon import lemul checkpoint010.pth --set model.rotation_range=60
    """
    from recon_toolkit.importing import import_file

    given = {"preset": preset, "config": None if config is None else str(config)}
    report = import_file(
        format_name,
        file,
        out=out,
        options={name: value for name, value in given.items() if value is not None},
        overrides=overrides or (),
        host=plugin_host(context, plugins, disabled),
    )
    if as_json:
        print_json(report)
        return
    print(f"{report.out}: {report.parameters / 1e6:.2f} M weights for pictures of {report.image_size} pixels")
    if not settings_of(context).quiet:
        for note in report.notes:
            print(f"  {note}")


def weights(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The safetensors file to write.")],
    half: Annotated[bool, typer.Option("--half/--full", help="Keep 16 bits of each weight, or all 32.")] = True,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the pipeline that the file holds (repeatable)."),
    ] = None,
) -> None:
    """Write the trained model of a run, with its pipeline, as one file for `recon reconstruct --weights`.

    Half precision halves the file; the weights are computed with in single precision again.

    \b
    Examples:
      recon weights runs/faces --out faces.safetensors
      recon weights runs/cats --out cats.safetensors --set losses.perceptual=null --set losses.flipped-perceptual=null
    """
    from recon_toolkit.engine.checkpoint import share_weights

    size = share_weights(run, out, half=half, overrides=overrides or (), host=plugin_host(context, None, None))
    if not settings_of(context).quiet:
        print(f"{out}: {size / 1e6:.1f} MB")


def score(
    context: typer.Context,
    prediction: Annotated[Path, typer.Argument(metavar="PRED", help="Predicted depth: a file or a folder.")],
    truth: Annotated[Path, typer.Argument(metavar="GT", help="True depth: a file or a folder.")],
    mask: Annotated[
        Path | None,
        typer.Option("--mask", help="Mask(s) of the object; else what lies before the true depth's furthest value."),
    ] = None,
    prediction_mask: Annotated[
        Path | None,
        typer.Option("--pred-mask", help="Mask(s) of the predictions; else where they are positive and finite."),
    ] = None,
    fov: Annotated[float, typer.Option("--fov", help="Horizontal field of view in degrees.")] = 10.0,
    prediction_scale: Annotated[
        tuple[float, float] | None,
        typer.Option("--pred-scale", metavar="OFFSET SLOPE", help="Depth of integer images; see above."),
    ] = None,
    truth_scale: Annotated[
        tuple[float, float] | None, typer.Option("--gt-scale", metavar="OFFSET SLOPE", help="Likewise for GT.")
    ] = None,
    resize: Annotated[
        bool, typer.Option("--resize/--no-resize", help="Bring predictions of another size to the truth's.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Score predicted depth maps against true ones.

    Files are .npy, .npz, PNG of 8 or 16 bits, TIFF, PFM or EXR. In folders, files of the same name belong together,
    whatever their suffix; a folder from `recon reconstruct` works as it is. PNG values v in [0, 1] mean depth = OFFSET
    + SLOPE * v. Ours say both numbers themselves; of others, --pred-scale and --gt-scale say them: 1.1 -0.2 for the
    data of Wu et al. and of `recon data make`, where bright is near.

    SIDE is in 1e-2 and MAD in degrees; constant and average depth are scored on the same pixels. Files that cannot
    be scored are named and counted; the exit code is 2 if none can.

    \b
    Examples:
      recon score depth.npy truth.png
      recon score predictions/ test/depth/ --gt-scale 1.1 -0.2 --json
    """
    from recon_toolkit.data.decode import DepthScale
    from recon_toolkit.metrics.score import score_files

    with progress_of(context) as progress:
        report = score_files(
            prediction,
            truth,
            mask=mask,
            prediction_mask=prediction_mask,
            fov=fov,
            prediction_scale=None if prediction_scale is None else DepthScale(*prediction_scale),
            truth_scale=None if truth_scale is None else DepthScale(*truth_scale),
            resize=resize,
            progress=progress,
        )
        for skipped in report.skipped_files[:20]:
            progress.warn(f"{skipped.name} was skipped: {skipped.reason}")
    if as_json:
        print_json(report)
    else:
        print(report.text())
