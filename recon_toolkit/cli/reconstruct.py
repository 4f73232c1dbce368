"""``recon reconstruct``: photographs into depth, normals, albedo and a textured mesh."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recon_toolkit.cli.common import (
    AsJson,
    DisabledPlugins,
    PluginFiles,
    plugin_host,
    print_json,
    progress_of,
    settings_of,
    torch_device,
)


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("reconstruct")(reconstruct)


def reconstruct(
    context: typer.Context,
    inputs: Annotated[
        list[str], typer.Argument(metavar="IMAGES", help="Image files, folders of images, or patterns in quotes.")
    ],
    run: Annotated[Path, typer.Option("--run", metavar="RUN", help="Folder of the run whose model is used.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where results go; RUN/reconstructions by default."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images at once.")] = 16,
    as_json: AsJson = False,
    plugins: PluginFiles = None,
    disabled: DisabledPlugins = None,
) -> None:
    """Turn crops of an object into 3D with a trained model.

    Each image is cut to its largest centred square and scaled to the model's size, so that the object should fill
    it as in the training data. For each, a folder with depth, normals, albedo, shading and reconstruction as PNG
    (depth also as 16-bit PNG and .npy) and a textured mesh (mesh.obj); and one contact sheet over all.

    The exit code is 0 if at least one image was reconstructed, and 2 if none was; those that failed are named.

    \b
    Examples:
      recon reconstruct --run runs/faces photo.png
      recon reconstruct --run runs/faces --out results crops/ 'more/*.jpg'
    """
    import torch

    from recon_toolkit.errors import ReconError
    from recon_toolkit.geometry.camera import Camera
    from recon_toolkit.inference import reconstruct_files
    from recon_toolkit.training.run import load_run

    chosen = torch_device(device)
    host = plugin_host(context, plugins, disabled)
    model, resolved = load_run(run, host, chosen)
    if not hasattr(model, "reconstruct"):
        raise ReconError(
            f"its model '{resolved.pipeline.model.name}' does not reconstruct photographs",
            where=str(run),
            remedy="name the run of one that does",
        )
    with progress_of(context) as progress, torch.inference_mode():
        report = reconstruct_files(
            model,  # type: ignore[arg-type]
            Camera(resolved.pipeline.camera.fov),
            resolved.pipeline.image_size,
            inputs,
            out if out is not None else run / "reconstructions",
            device=chosen,
            batch_size=batch_size,
            progress=progress,
        )
        for failed in report.failed:
            progress.warn(f"{failed.image} was skipped: {failed.reason}")
    if as_json:
        print_json(report)
    elif not settings_of(context).quiet:
        print(f"{len(report.reconstructed)} images reconstructed into {report.out}, {len(report.failed)} skipped")
        print(f"look at {report.contact_sheet}")
