"""``recon data``: prepare, pack, list, preview and make data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recon_toolkit.cli.common import (
    AsJson,
    DetectorName,
    DetectorSettings,
    DisabledPlugins,
    GroupWithPlugins,
    PluginFiles,
    plugin_host,
    print_json,
    print_table,
    progress_of,
    settings_of,
)

if TYPE_CHECKING:
    from recon_toolkit.data.packed import PackedImages
    from recon_toolkit.preparation.record import Prepared
    from recon_toolkit.progress import Progress


#: Some inputs could not be read, and the others were prepared.
PARTLY = 3
#: What could not be read is named on the command line up to this number; the record names all.
_NAMED = 10
#: What --drop-grey asks for, see recon_toolkit.preparation.look.colour.
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
        _print_prepared(prepared, out)
    if not prepared.complete:
        raise typer.Exit(PARTLY)


def _warn(prepared: Prepared, warn: Callable[[str], None]) -> None:
    lines = [f"{item.name}: {item.reason}" for item in prepared.unread]
    lines += [f"{p.name}: {p.detail}" for p in prepared.pictures if p.reason == "unreadable"]
    for line in lines[:_NAMED]:
        warn(line)
    if len(lines) > _NAMED:
        warn(f"and {len(lines) - _NAMED:,} more that could not be read; the record names all")


def _print_prepared(prepared: Prepared, out: Path) -> None:
    from recon_toolkit.preparation.page import command, lines_of
    from recon_toolkit.preparation.record import PAGE, said

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


PipelineName = Annotated[
    str, typer.Option("--pipeline", metavar="NAME", help="Pipeline whose data set and image size are used.")
]
DatasetName = Annotated[
    str | None, typer.Option("--dataset", metavar="NAME", help="Another data set, with its default options.")
]
DataFolder = Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Your data folder.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. dataset.crop=170 (repeatable)."),
]
Size = Annotated[int | None, typer.Option("--size", min=8, help="Image size in pixels.")]

commands = typer.Typer(
    cls=GroupWithPlugins,
    help="Prepare, pack, list, preview and make data.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


commands.command("prepare")(prepare)


@commands.command("pack")
def pack(
    context: typer.Context,
    pipeline: PipelineName = "unsup3d-quick",
    dataset: DatasetName = None,
    data: DataFolder = None,
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Split to pack (repeatable); all by default.")
    ] = None,
    size: Size = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    plugins: PluginFiles = None,
    disabled: DisabledPlugins = None,
) -> None:
    """Decode, crop and resize (or generate) a data set ahead of training.

    \b
    Examples:
      recon data pack --pipeline unsup3d-quick
      recon data pack --pipeline unsup3d-celeba --data celeba/
    """
    with progress_of(context) as progress:
        opened = _open(context, progress, pipeline, dataset, data, split, size, overrides, plugins, disabled)
    summary = {name: _summary(images) for name, images in opened.items()}
    if as_json:
        print_json(summary)
    else:
        print_table(
            [(name, f"{s['images']} images", _megabytes(s["bytes"]), s["folder"]) for name, s in summary.items()]
        )


@commands.command("list")
def list_packed(
    context: typer.Context,
    as_json: AsJson = False,
    plugins: PluginFiles = None,
    disabled: DisabledPlugins = None,
) -> None:
    """List the data sets that plugins provide, and what is packed in the cache.

    \b
    Example:
      recon data list
    """
    from recon_toolkit.data.packed import INDEX, PackedImages
    from recon_toolkit.data.packing import DataContext
    from recon_toolkit.errors import DataError

    host = plugin_host(context, plugins, disabled)
    known = [entry for entry in host.registry.all() if entry.kind == "dataset"]
    cache = DataContext().cache
    packed: list[dict[str, Any]] = []
    for index in sorted(cache.glob(f"**/{INDEX}")):
        try:
            packed.append(_summary(PackedImages.open(index.parent)))
        except DataError as error:
            packed.append({"folder": str(index.parent), "images": 0, "bytes": 0, "problem": str(error)})
    if as_json:
        datasets = [
            {"name": entry.name, "plugin": entry.provider, "summary": entry.component.summary} for entry in known
        ]
        print_json({"datasets": datasets, "cache": str(cache), "packed": packed})
        return
    print("data sets:")
    print_table([(entry.name, entry.component.summary) for entry in known], indent="  ")
    print(f"\npacked in {cache}:" if packed else f"\nnothing is packed in {cache} yet")
    rows = [
        (f"{item['images']} images", _megabytes(item["bytes"]), item.get("problem") or _below(item["folder"], cache))
        for item in packed
    ]
    print_table(rows, indent="  ")


@commands.command("preview")
def preview(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The contact sheet (PNG).")] = Path("preview.png"),
    pipeline: PipelineName = "unsup3d-quick",
    dataset: DatasetName = None,
    data: DataFolder = None,
    split: Annotated[str, typer.Option("--split", help="Split to look at.")] = "train",
    count: Annotated[int, typer.Option("--count", min=1, max=1000, help="How many images.")] = 64,
    size: Size = None,
    overrides: Overrides = None,
    plugins: PluginFiles = None,
    disabled: DisabledPlugins = None,
) -> None:
    """Draw images of a data set and their ground truth as one contact sheet.

    \b
    Examples:
      recon data preview --pipeline unsup3d-quick --out faces.png
      recon data preview --dataset image-folder --data photos/ --set dataset.crop=170
    """
    from recon_toolkit.data.packed import evenly_spread
    from recon_toolkit.io.contact_sheet import data_overview
    from recon_toolkit.io.maps import save_png

    with progress_of(context) as progress:
        opened = _open(context, progress, pipeline, dataset, data, [split], size, overrides, plugins, disabled)
    images = opened[split]
    chosen = evenly_spread(len(images), count)
    save_png(out, data_overview(images.batch(chosen)))
    print(f"{len(chosen)} of {len(images)} images in {out}")


@commands.command("make")
def make(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; it must not exist.")],
    pipeline: PipelineName = "unsup3d-quick",
    dataset: DatasetName = None,
    data: DataFolder = None,
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Split to write (repeatable); all by default.")
    ] = None,
    count: Annotated[int | None, typer.Option("--count", min=1, help="At most N images of each split.")] = None,
    size: Size = None,
    depth: Annotated[str, typer.Option("--depth", help="png (16 bits, 1.1 - 0.2 * v) or npy.")] = "png",
    overrides: Overrides = None,
    plugins: PluginFiles = None,
    disabled: DisabledPlugins = None,
) -> None:
    """Write a data set as files: {split}/image/image_000000.png and {split}/depth/depth_000000.png.

    That is the layout of Wu et al.'s synthetic faces, which the data set depth-pairs reads.

    \b
    Example:
      recon data make --pipeline unsup3d-quick --split test --count 100 --out faces
    """
    from recon_toolkit.errors import DataError
    from recon_toolkit.io.maps import write_dataset

    if depth not in ("png", "npy"):
        raise DataError(f"'{depth}' is no form of depth", where="--depth", remedy="choose png or npy")
    if out.exists():
        raise DataError("exists already", where=str(out), remedy="choose a new folder with --out")
    with progress_of(context) as progress:
        opened = _open(context, progress, pipeline, dataset, data, split, size, overrides, plugins, disabled)
        for name, images in opened.items():
            written = write_dataset(out / name, images, count=count, depth_as_png=depth == "png", progress=progress)
            progress.say(f"{written} images of {name} in {out / name}")


def _open(
    context: typer.Context,
    progress: Progress,
    pipeline: str,
    dataset: str | None,
    data: Path | None,
    splits: list[str] | None,
    size: int | None,
    overrides: list[str] | None,
    plugins: list[Path] | None,
    disabled: list[str] | None,
) -> dict[str, PackedImages]:
    """The splits of a pipeline's data set by name, packed where they were not."""
    from recon_toolkit.assembly import build_dataset
    from recon_toolkit.config.pipeline import load_pipeline
    from recon_toolkit.data.packing import DataContext
    from recon_toolkit.errors import DataError

    changes = [f"dataset.name={dataset}"] if dataset is not None else []
    changes += [f"image_size={size}"] if size is not None else []
    resolved = load_pipeline(pipeline, [*changes, *(overrides or [])], plugin_host(context, plugins, disabled))
    component = build_dataset(resolved)
    known = tuple(component.splits)
    for split in splits or ():
        if split not in known:
            raise DataError(f"there is no split '{split}'", where="--split", remedy=f"choose one of {', '.join(known)}")
    surroundings = DataContext(root=data, progress=progress)
    size = resolved.pipeline.image_size
    return {split: component.open(split, size, surroundings) for split in splits or known}


def _summary(images: PackedImages) -> dict[str, Any]:
    return {
        "folder": str(images.folder),
        "images": len(images),
        "size": images.image_size,
        "bytes": images.nbytes,
        "fields": sorted(images.fields),
        "skipped": len(images.index.provenance.get("skipped", [])),
        "fingerprint": images.fingerprint,
    }


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _below(folder: str, cache: Path) -> str:
    return Path(folder).relative_to(cache).as_posix()
