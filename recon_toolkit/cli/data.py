"""``recon data``: prepare, pack, list, preview and make data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recon_toolkit.cli.common import (
    AsJson,
    DisabledPlugins,
    PluginFiles,
    plugin_host,
    print_json,
    print_table,
    progress_of,
)
from recon_toolkit.cli.plugin_commands import GroupWithPlugins
from recon_toolkit.cli.prepare import prepare

if TYPE_CHECKING:
    from recon_toolkit.data.packed import PackedImages
    from recon_toolkit.progress import Progress

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


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(commands, name="data")


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
    from recon_toolkit.data.context import DataContext
    from recon_toolkit.data.packed import INDEX, PackedImages
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
    from recon_toolkit.export.overview import data_overview
    from recon_toolkit.export.pictures import save_png

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
    from recon_toolkit.export.dataset_files import write_dataset

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
    from recon_toolkit.data.context import DataContext
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
