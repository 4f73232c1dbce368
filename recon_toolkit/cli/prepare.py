"""``recon data prepare``: from photographs to a training set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recon_toolkit.cli.common import (
    AsJson,
    DetectorName,
    DetectorSettings,
    DisabledPlugins,
    PluginFiles,
    plugin_host,
    print_json,
    print_table,
    progress_of,
    settings_of,
)

if TYPE_CHECKING:
    from recon_toolkit.preparation.record import Prepared

#: Some inputs could not be read, and the others were prepared.
PARTLY = 3
#: What could not be read is named on the command line up to this number; the record names all.
_NAMED = 10
#: What --drop-grey asks for, see recon_toolkit.data.quality.colour.
_GREY = 1.5


def prepare(
    context: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="Photographs, folders, patterns in quotes, videos, and archives (tar, zip)."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the training set goes.")],
    size: Annotated[int, typer.Option("--size", min=16, max=1024, help="Side of the crops in pixels.")] = 128,
    detect: Annotated[
        bool, typer.Option("--detect/--no-detect", help="Find objects; or take each picture as a crop that one fills.")
    ] = True,
    detector: DetectorName = "auto",
    detector_set: DetectorSettings = None,
    label: Annotated[
        str | None, typer.Option("--label", help="Only objects that the detector calls so, e.g. cat.")
    ] = None,
    crop: Annotated[
        str | None,
        typer.Option(
            "--crop",
            metavar="PIXELS",
            help="With --no-detect, a centred square of SIDE pixels, or LEFT,TOP,SIDE; the largest by default.",
            show_default=False,
        ),
    ] = None,
    min_side: Annotated[
        int, typer.Option("--min-side", min=1, help="Leave out crops with fewer pixels a side in the original.")
    ] = 64,
    min_sharpness: Annotated[
        float, typer.Option("--min-sharpness", min=0, help="Leave out blurred crops; 0 keeps all.")
    ] = 0.15,
    drop_grey: Annotated[bool, typer.Option("--drop-grey", help="Leave out pictures without colour.")] = False,
    max_outside: Annotated[
        float, typer.Option("--max-outside", min=0, max=1, help="Most of a crop that may lie outside of its picture.")
    ] = 0.2,
    max_yaw: Annotated[
        float | None,
        typer.Option(
            "--max-yaw", min=0, help="Leave out what is turned further, in degrees, where the detector says it."
        ),
    ] = None,
    several: Annotated[
        str, typer.Option("--several", help="Pictures with several objects: keep all, leave-out, or best.")
    ] = "keep",
    val: Annotated[float, typer.Option("--val", min=0, max=1, help="Share for validation.")] = 0.05,
    test: Annotated[float, typer.Option("--test", min=0, max=1, help="Share for testing.")] = 0.05,
    every: Annotated[int, typer.Option("--every", min=1, help="Of a video, take every N-th frame.")] = 10,
    frames: Annotated[int, typer.Option("--frames", min=1, help="Of a video, take at most N frames.")] = 300,
    as_json: AsJson = False,
    plugins: PluginFiles = None,
    disabled: DisabledPlugins = None,
) -> None:
    """Make a training set of photographs, and say whether training on it can be expected to work.

    Finds the objects as recon reconstruct does, cuts them out, leaves out what is small, blurred, cut off or double,
    and divides the rest so that a sub-folder, a video or a picture is in one split only. Writes the packed splits, a
    page to look at (index.html), a record of every picture (prepared.json) and a pipeline (pipeline.yaml). Archives are
    read as they are, without unpacking. Interrupted, the same command goes on where it was.

    The exit code is 0 if everything could be read, 3 if some pictures or inputs could not, and 2 if nothing remains.

    \b
    Examples:
      recon data prepare photos/ --out prepared
      recon data prepare cats.tar holiday.mp4 --label cat --out cats
      recon data prepare crops/ --no-detect --size 64 --out prepared
    """
    from pydantic import ValidationError

    from recon_toolkit.errors import DataError
    from recon_toolkit.preparation.flow import prepare as prepare_pictures
    from recon_toolkit.preparation.record import PrepareOptions
    from recon_toolkit.reconstructor import load_detector

    try:
        options = PrepareOptions.model_validate(
            {
                "size": size,
                "detector": detector if detect else None,
                "detector_set": tuple(detector_set or ()) if detect else (),
                "label": label,
                "crop": None if crop is None else tuple(crop.split(",")),
                "min_side": min_side,
                "min_sharpness": min_sharpness,
                "min_colour": _GREY if drop_grey else 0.0,
                "max_outside": max_outside,
                "max_yaw": max_yaw,
                "several": several,
                "val": val,
                "test": test,
                "every": every,
                "frames": frames,
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        option = f"--{str(first['loc'][0]).replace('_', '-')}"
        raise DataError(f"{first['input']!r}: {first['msg']}", where=option, remedy="see --help") from None
    options.check()
    finder = load_detector(detector, plugin_host(context, plugins, disabled), detector_set or ()) if detect else None
    with progress_of(context) as progress:
        prepared = prepare_pictures(inputs, out, options, detector=finder, progress=progress)
        _warn(prepared, progress.warn)
    if as_json:
        print_json({**prepared.model_dump(mode="json", exclude={"pictures"}), "out": str(out)})
    elif not settings_of(context).quiet:
        _print(prepared, out)
    if not prepared.complete:
        raise typer.Exit(PARTLY)


def _warn(prepared: Prepared, warn: Callable[[str], None]) -> None:
    lines = [f"{item.name}: {item.reason}" for item in prepared.unread]
    lines += [f"{p.name}: {p.detail}" for p in prepared.pictures if p.reason == "unreadable"]
    for line in lines[:_NAMED]:
        warn(line)
    if len(lines) > _NAMED:
        warn(f"and {len(lines) - _NAMED:,} more that could not be read; the record names all")


def _print(prepared: Prepared, out: Path) -> None:
    from recon_toolkit.preparation.page import command
    from recon_toolkit.preparation.record import PAGE, said
    from recon_toolkit.preparation.verdict import lines_of

    kept, verdict = prepared.kept, prepared.verdict
    print(
        f"{sum(kept.values()):,} crops of {len(prepared.pictures):,} are kept at {prepared.options.size} pixels: "
        f"{kept['train']:,} to train on, {kept['val']:,} for validation, {kept['test']:,} for testing"
    )
    if prepared.left_out:
        print(f"left out: {said(prepared.left_out)}")
    print(f"\nverdict before training: {verdict.overall}")
    print_table(lines_of(verdict), indent="  ")
    print(f"\nlook at {out / PAGE}")
    print(f"go on with: {command(out)}")
