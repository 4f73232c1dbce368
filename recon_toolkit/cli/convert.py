"""``recon convert``: clouds, meshes and voxels into one another, and into what a printer takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recon_toolkit.cli.common import progress_of, settings_of
from recon_toolkit.errors import DataError
from recon_toolkit.files import printable

if TYPE_CHECKING:
    from recon_toolkit.progress import Progress
    from recon_toolkit.shapes.convert import Conversion
    from recon_toolkit.shapes.forms import Shape

#: Some inputs were converted and others were not.
PARTLY = 3
#: Suffixes of files in millimetres, for slicers, and the height that shapes without a unit get there.
_MILLIMETRES = (".stl", ".3mf")
_HEIGHT = 60.0


@dataclass(frozen=True)
class _Job:
    source: Path
    targets: tuple[Path, ...]


def convert(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="IN OUT...", help="The shape, then the files to write; or inputs, with --to."),
    ],
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="A,B", help="Convert all files to these suffixes, e.g. stl,3mf.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="With --to: where results go; beside each input by default."),
    ] = None,
    height: Annotated[
        float | None,
        typer.Option(
            "--height",
            metavar="MM",
            help=f"Height in mm, standing on z = 0. STL and 3MF get {_HEIGHT:g} by default, unless the input was one.",
            show_default=False,
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="FORM",
            help="cloud, mesh or voxels, for .ply and .npy; else the input's.",
            show_default=False,
        ),
    ] = None,
    resolution: Annotated[
        int, typer.Option("--resolution", min=16, max=1024, help="Of the grid on which a cloud becomes a solid.")
    ] = 128,
    voxels: Annotated[int, typer.Option("--voxels", min=1, max=1024, help="Voxels along the longest side.")] = 64,
    points: Annotated[int, typer.Option("--points", min=1, help="Points drawn from a surface.")] = 100_000,
    keep_outliers: Annotated[
        bool, typer.Option("--keep-outliers", help="Make solids of clouds without leaving stray points out.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the points drawn.")] = 0,
    photo: Annotated[
        Path | None,
        typer.Option("--photo", metavar="IMAGE", help="A depth map's photograph, framed alike.", show_default=False),
    ] = None,
    fov: Annotated[
        float | None,
        typer.Option(
            "--fov", metavar="DEG", help="A depth map's horizontal field of view, 10 by default.", show_default=False
        ),
    ] = None,
    depth_scale: Annotated[
        float | None,
        typer.Option(
            "--depth-scale",
            metavar="S",
            help="What 1 means in a depth map, e.g. 0.001; 16-bit images are in mm by default.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Convert a shape between point cloud, triangle mesh and voxels.

    The suffix says the form: .ply .npy .npz .xyz .txt hold clouds, .ply .obj .off .stl .glb .3mf meshes, .binvox
    .npy voxels. A cloud becomes the watertight solid that it encloses, without normals; a mesh or voxels become a
    cloud with normals. z is up, but in GLB, OBJ and OFF y. A mesh that a slicer would not take is named with what
    is wrong.

    A depth map (.png .tif .exr .pfm, or .npy and .npz with an array H x W) becomes the surface that it shows, in its
    photograph's colours: a mesh, in STL and 3MF a solid on its back, with --as cloud its points.

    With --to, every file is an input. One that cannot be converted is named and the rest goes on: the exit code is
    then 3, or 2 if none could be.

    \b
    Examples:
      recon convert chair.ply chair.stl --height 80
      recon convert chair.ply chair.glb chair.3mf chair.binvox --voxels 32
      recon convert mesh.obj cloud.ply --as cloud --points 10000
      recon convert clouds/*.ply --to stl --out printed
      recon convert depth.png face.glb face.stl --photo face.jpg --fov 10
    """
    from recon_toolkit.shapes.convert import Conversion

    if height is not None and not 0 < height < float("inf"):
        raise DataError(f"a height is above 0, not {height:g}", where="--height")
    options = Conversion(resolution, voxels, points, keep_outliers, seed)
    view = _view(photo, fov, depth_scale)
    jobs = _jobs(files, to, out)
    _check(jobs, form)
    if photo is not None and len(jobs) > 1:
        raise DataError("is of one depth map, and there are several inputs", where="--photo", remedy="convert one")
    failed = 0
    with progress_of(context) as progress:
        for job in jobs:
            try:
                for line in _converted(job, form, height, options, view, progress):
                    if not settings_of(context).quiet:
                        print(line, flush=True)
            except Exception as raised:  # whatever a file does, the others are converted
                if len(jobs) == 1 and not isinstance(raised, (DataError, MemoryError, RecursionError)):
                    raise
                error, place = _explained(raised), printable(job.source)
                if len(jobs) == 1:
                    raise DataError(error.message, where=error.where or place, remedy=error.remedy) from None
                failed += 1
                text = str(error)
                progress.warn(text if place in text else f"{place}: {text}")
    if failed:
        print(f"{len(jobs) - failed} of {len(jobs)} converted")
        raise typer.Exit(PARTLY if failed < len(jobs) else 2)


@dataclass(frozen=True)
class _View:
    """How a depth map was seen, and its photograph."""

    photo: Path | None = None
    fov: float = 10.0
    depth_scale: float | None = None


def _view(photo: Path | None, fov: float | None, depth_scale: float | None) -> _View | None:
    if fov is not None and not 0 < fov < 180:
        raise DataError(f"a field of view lies between 0 and 180 degrees, not at {fov:g}", where="--fov")
    if depth_scale is not None and not 0 < depth_scale < float("inf"):
        raise DataError(f"a scale is above 0, not {depth_scale:g}", where="--depth-scale")
    if photo is None and fov is None and depth_scale is None:
        return None
    return _View(photo, _View.fov if fov is None else fov, depth_scale)


def _explained(error: Exception) -> DataError:
    if isinstance(error, DataError):
        return error
    if isinstance(error, MemoryError):
        return DataError("needs more memory than there is", remedy="simplify it, or lower --resolution or --voxels")
    return DataError(f"cannot be converted: {type(error).__name__}: {error}", remedy="export it again")


def _jobs(files: list[Path], to: str | None, out: Path | None) -> list[_Job]:
    if to is None:
        if out is not None:
            raise DataError("says where results go only with --to", where="--out", remedy="name the output files")
        if len(files) < 2:
            raise DataError("there is no file to write", remedy="name one after the input, or use --to")
        return [_Job(files[0], tuple(files[1:]))]
    suffixes = ["." + word.strip().lower().removeprefix(".") for word in to.split(",") if word.strip()]
    if not suffixes:
        raise DataError("names no suffix", where="--to", remedy="e.g. --to stl")
    return [_Job(file, tuple((out or file.parent) / f"{file.stem}{suffix}" for suffix in suffixes)) for file in files]


def _check(jobs: list[_Job], form: str | None) -> None:
    """What can be known before anything is written."""
    from recon_toolkit.errors import suggestion
    from recon_toolkit.io.shape_files import forms_of

    known = ("cloud", "mesh", "voxels")
    if form is not None and form not in known:
        raise DataError(f"there is no form '{form}'", where="--as", remedy=suggestion(form, known))
    # Not Path.resolve, which raises for a link that points to itself.
    inputs = {os.path.realpath(job.source) for job in jobs}
    writers: dict[str, Path] = {}
    for job in jobs:
        for target in job.targets:
            place = os.path.realpath(target)
            held = forms_of(target)
            if form is not None and form not in held:
                raise DataError(f"{target.suffix} holds {' or '.join(held)}, not {form}", where=str(target))
            if place in inputs:
                raise DataError("an input would be written over", where=str(target), remedy="choose another name")
            if place in writers:
                raise DataError(
                    f"{writers[place]} and {job.source} would both be written there",
                    where=str(target),
                    remedy="convert them into different folders",
                )
            writers[place] = job.source


def _converted(
    job: _Job, form: str | None, height: float | None, options: Conversion, view: _View | None, progress: Progress
) -> Iterator[str]:
    """Write what a job asks for, and say what each file became."""
    from recon_toolkit.io.depth_map import ARRAY_SUFFIXES, is_depth_map
    from recon_toolkit.io.shape_files import forms_of, on_the_bed, read_shape, write_shape
    from recon_toolkit.shapes.convert import converted
    from recon_toolkit.shapes.forms import Mesh, form_of
    from recon_toolkit.shapes.printable import check_printable

    if is_depth_map(job.source) or (view is not None and job.source.suffix.lower() in ARRAY_SUFFIXES):
        yield from _from_depth(job, form, height, options, view or _View(), progress)
        return
    if view is not None:
        raise DataError(
            "is no depth map", where=printable(job.source), remedy="leave --photo, --fov and --depth-scale out"
        )
    shape = read_shape(job.source, progress.warn)
    made: dict[str, Shape] = {form_of(shape): shape}
    for target in job.targets:
        held = forms_of(target)
        wanted = held[0]
        if len(held) > 1:
            wanted = form or (form_of(shape) if form_of(shape) in held else held[0])
        if wanted not in made:
            made[wanted] = converted(shape, wanted, options)
        suffix = target.suffix.lower()
        millimetres = height
        if height is None and suffix in _MILLIMETRES and job.source.suffix.lower() not in _MILLIMETRES:
            millimetres = _HEIGHT
        write_shape(target, made[wanted], height_mm=millimetres)
        known = millimetres is not None or suffix in _MILLIMETRES
        shown = made[wanted] if millimetres is None else on_the_bed(made[wanted], millimetres)
        verdict = ""
        if isinstance(shown, Mesh):
            problems = check_printable(shown).problems
            verdict = ", watertight" if not problems else ", not fit for printing"
            if problems:
                progress.warn(f"{target}: {' '.join(problems)}")
        yield f"{target}: {_described(shown)}, {_extent(shown)}{' mm' if known else ''}{verdict}"


def _from_depth(
    job: _Job, form: str | None, height: float | None, options: Conversion, view: _View, progress: Progress
) -> Iterator[str]:
    """:func:`_converted` for a depth map."""
    from recon_toolkit.io.depth_map import read_depth_map, write_depth_map
    from recon_toolkit.io.shape_files import forms_of, write_shape
    from recon_toolkit.shapes.convert import converted
    from recon_toolkit.shapes.forms import Mesh
    from recon_toolkit.shapes.printable import check_printable

    found, assumed = read_depth_map(job.source, fov=view.fov, photo=view.photo, scale=view.depth_scale)
    if assumed:
        progress.warn(f"{printable(job.source)}: {assumed}")
    for target in job.targets:
        held, suffix = forms_of(target), target.suffix.lower()
        wanted = form if form is not None else "mesh" if "mesh" in held else held[0]
        if wanted == "voxels":
            closed = found.solid(height or _HEIGHT)
            shape = converted(Mesh(closed.vertices, closed.faces), "voxels", options)
            write_shape(target, shape)
        else:
            shape = write_depth_map(target, found, wanted, height_mm=height, default_height_mm=_HEIGHT)
        verdict = ""
        if isinstance(shape, Mesh) and suffix in _MILLIMETRES:  # the others show a surface, which is open
            problems = check_printable(shape).problems
            verdict = " mm, watertight" if not problems else " mm, not fit for printing"
            if problems:
                progress.warn(f"{target}: {' '.join(problems)}")
        yield f"{target}: {_described(shape)}, {_extent(shape)}{verdict}"


def _described(shape: Shape) -> str:
    from recon_toolkit.shapes.forms import Cloud, Mesh

    if isinstance(shape, Cloud):
        return f"cloud of {len(shape.points):,} points"
    if isinstance(shape, Mesh):
        return f"mesh of {len(shape.faces):,} faces"
    return f"{int(shape.filled.sum()):,} voxels of {' x '.join(str(n) for n in shape.filled.shape)}"


def _extent(shape: Shape) -> str:
    low, high = shape.bounds
    return " x ".join(f"{side:.4g}" for side in high - low)
