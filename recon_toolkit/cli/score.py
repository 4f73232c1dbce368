"""``recon score``: depth maps from anywhere against ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recon_toolkit.cli.common import AsJson, print_json, progress_of


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("score")(score)


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
    from recon_toolkit.evaluation.score import score_files

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
