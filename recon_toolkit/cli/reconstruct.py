"""``recon reconstruct``: photographs and videos into maps, meshes and a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recon_toolkit.cli.common import (
    AsJson,
    DetectorName,
    DetectorSettings,
    Device,
    DisabledPlugins,
    ModelName,
    ModelRun,
    ModelWeights,
    PluginFiles,
    Trust,
    plugin_host,
    print_json,
    progress_of,
    settings_of,
    torch_device,
)

if TYPE_CHECKING:
    from recon_toolkit.inference.folder import ReconstructionReport

#: Some pictures were reconstructed and others were not.
PARTLY = 3


def reconstruct(
    context: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Photographs, folders of them, videos, or patterns in quotes."),
    ],
    run: ModelRun = None,
    weights: ModelWeights = None,
    trust: Trust = False,
    model: ModelName = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where results go; ./reconstructions or RUN/reconstructions."),
    ] = None,
    write: Annotated[
        str | None,
        typer.Option(
            "--write",
            metavar="A,B",
            help="What to write: maps, exr, glb, obj, ply, stl, 3mf, cloud, voxels, page, pages, turntable, relight, "
            "or an exporter of a plugin. "
            "By default maps,glb,obj,page; of a model of points cloud,glb,stl,page.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        int | None, typer.Option("--size", help="Side of maps and videos in pixels; the model's by default.")
    ] = None,
    texture: Annotated[str, typer.Option("--texture", help="What meshes wear: photo, model or albedo.")] = "photo",
    height: Annotated[
        float, typer.Option("--height", help="Height of the solid for printing (stl, 3mf), in mm.")
    ] = 60.0,
    video: Annotated[str, typer.Option("--video", help="Form of videos: mp4 or gif.")] = "mp4",
    detect: Annotated[
        bool, typer.Option("--detect/--no-detect", help="Find objects; or take each picture as a crop that one fills.")
    ] = True,
    detector: DetectorName = "auto",
    detector_set: DetectorSettings = None,
    faces: Annotated[int, typer.Option("--faces", min=1, help="Most objects per picture.")] = 50,
    every: Annotated[int, typer.Option("--every", min=1, help="Of a video, take every N-th frame.")] = 10,
    frames: Annotated[int, typer.Option("--frames", min=1, help="Of a video, take at most N frames.")] = 300,
    refine: Annotated[
        int, typer.Option("--refine", min=0, metavar="N", help="Adapt the model to these pictures for N steps first.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Of the refinement.")] = 0,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Crops at once.")] = 16,
    as_json: AsJson = False,
    plugins: PluginFiles = None,
    disabled: DisabledPlugins = None,
) -> None:
    """Turn photographs into 3D.

    Finds the faces in each picture, cuts them out as the model expects, and writes a folder for each with its maps
    (depth, normals, albedo, shading, confidence as PNG; depth also as 16-bit PNG and .npy) and meshes (GLB, OBJ); and
    over all of them a page to look at (index.html) and a contact sheet. Without --run or --weights, it uses the model
    that comes with the package.

    The exit code is 0 if every picture was reconstructed, 3 if only some were, and 2 if none was; those that were
    not are named.

    \b
    Examples:
      recon reconstruct portrait.jpg
      recon reconstruct --write maps,stl,turntable --height 80 holiday/ 'more/*.jpg'
      recon reconstruct --run runs/faces --no-detect crops/
    """
    from recon_toolkit.inference.batch import Refinement, VideoFrames, reconstruct_files
    from recon_toolkit.inference.models import load_models
    from recon_toolkit.inference.outputs import Outputs, exporters_of
    from recon_toolkit.inference.pictures import Finder
    from recon_toolkit.reconstructor import detector_for

    kinds = None if write is None else frozenset(word.strip() for word in write.split(",") if word.strip())
    host = plugin_host(context, plugins, disabled)
    outputs = Outputs(kinds, size=size, texture=texture, height=height, video=video, exporters=exporters_of(host))
    chosen = torch_device(device)
    models = load_models(run=run, weights=weights, model=model, device=chosen, host=host, trust=trust)
    search = detector_for(models.default, detector, host, detector_set or ()) if detect else None
    finder = Finder(models.default.image_size, search, faces, models.size_of)
    if out is None:
        out = Path("reconstructions") if run is None else run / "reconstructions"
    with progress_of(context) as progress:
        report = reconstruct_files(
            models,
            inputs,
            out,
            finder=finder,
            outputs=outputs,
            batch_size=batch_size,
            video=VideoFrames(every, frames),
            refinement=Refinement(refine, seed),
            progress=progress,
        )
        for failed in report.failed:
            progress.warn(f"{failed.image} was skipped: {failed.reason}")
    if as_json:
        print_json(report)
    elif not settings_of(context).quiet:
        _print(report)
    if report.failed:
        raise typer.Exit(PARTLY)


def _print(report: ReconstructionReport) -> None:
    pictures = len({item.image for item in report.reconstructed})
    print(
        f"{len(report.reconstructed)} reconstructed from {pictures} files into {report.out} in {report.seconds:.1f} s, "
        f"{len(report.failed)} skipped"
    )
    if report.refinement is not None:
        gain = report.refinement
        verdict = "kept" if gain.kept else "no better, so the model was left as it was"
        print(f"refined for {gain.steps} steps: loss {gain.loss_before:.3f} to {gain.loss_after:.3f}, {verdict}")
    print(f"look at {report.page or report.contact_sheet}")
