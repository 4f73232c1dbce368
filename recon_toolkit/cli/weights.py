"""``recon weights``: a run's model as one small file to share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recon_toolkit.cli.common import plugin_host, settings_of


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("weights", short_help="Write a run's model as one small file.")(weights)


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
    from recon_toolkit.training.share import share_weights

    size = share_weights(run, out, half=half, overrides=overrides or (), host=plugin_host(context, None, None))
    if not settings_of(context).quiet:
        print(f"{out}: {size / 1e6:.1f} MB")
