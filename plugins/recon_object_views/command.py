"""``recon data render-views``: pictures, depth maps and clouds of any meshes, in the layout of Lin et al.'s data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recon_toolkit.errors import DataError
from recon_toolkit.progress import QUIET, Progress

if TYPE_CHECKING:
    from recon_object_views.meshes import MeshFile
    from recon_object_views.shapenet import ObjectFiles

#: Some meshes were drawn and others were not.
PARTLY = 3
#: What is in a folder that this module has written.
RECORD = "render-views.json"
#: Raise it when the same meshes and options give other files, so that older folders are not added to.
RENDERER_VERSION = 1
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class RenderOptions:
    """What is drawn of each mesh. The same options and meshes give the same files.

    Args:
        category: what the lists call the objects; by default ShapeNet's synset in its tree, ``objects`` elsewhere.
        size: of the pictures, in pixels.
        images: how many of them, one from each sector around the object.
        elevation: range of the height that pictures are taken from, degrees above the horizontal.
        depth_size: of the depth maps, in pixels.
        views: depth maps from random sides, besides the eight fixed ones.
        points: of the cloud, evenly by area.
        test_fraction, val_fraction: shares of the objects in ``test`` and ``val``.
        up, turn: which way meshes stand; see :func:`recon_object_views.meshes.read_mesh`.
        seed: of the splits, the random sides and the points.

    Raises:
        DataError: an option is out of range.
    """

    category: str | None = None
    size: int = 64
    images: int = 24
    elevation: tuple[float, float] = (0.0, 35.0)
    depth_size: int = 128
    views: int = 100
    points: int = 100_000
    test_fraction: float = 0.2
    val_fraction: float = 0.1
    up: str = "auto"
    turn: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("size", self.size, 8, 2048), ("images", self.images, 1, 1000), ("depth-size", self.depth_size, 8, 1024),
            ("views", self.views, 1, 10_000), ("points", self.points, 1, 10_000_000), ("seed", self.seed, 0, 2**63 - 1),
            ("elevation", self.elevation[0], -90, 90), ("elevation", self.elevation[1], self.elevation[0], 90),
            ("test-fraction", self.test_fraction, 0, 1), ("val-fraction", self.val_fraction, 0, 1 - self.test_fraction),
            ("turn", self.turn, -360, 360),
        ):  # fmt: skip
            if not low <= value <= high:
                raise DataError(f"{value} is outside {low} to {high}", where=f"--{name}", remedy="choose another")
        if self.up not in ("auto", "y", "z"):
            raise DataError(f"'{self.up}' is no axis that may be up", where="--up", remedy="choose auto, y or z")
        if self.category is not None and (not self.category or set(self.category) & set("/\\\n") or
                                          self.category.strip(". ") != self.category):  # fmt: skip
            raise DataError(f"'{self.category}' cannot be part of a file's name", where="--category",
                            remedy="choose letters and digits, e.g. 03001627 or chair")  # fmt: skip


@dataclass(frozen=True)
class BadMesh:
    """A mesh that was left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class RenderReport:
    """What became of the meshes.

    Attributes:
        folder: where the files are.
        rendered, kept: how many objects were drawn, and how many were finished before.
        splits: the number of objects in each split.
        failed: the meshes that could not be used.
    """

    folder: str
    rendered: int
    kept: int
    splits: dict[str, int]
    failed: list[BadMesh]


def render_views(
    context: typer.Context,
    meshes: Annotated[
        list[Path],
        typer.Argument(metavar="MESHES...", help="Meshes (OBJ, PLY, GLB, glTF, OFF, STL), or folders of them."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder to write; new, empty or --resume.")],
    category: Annotated[
        str | None,
        typer.Option("--category", metavar="NAME", help="What the objects are; in ShapeNet's tree, its synset.",
                     show_default="objects"),
    ] = None,
    size: Annotated[int, typer.Option("--size", help="Side of the pictures in pixels.")] = 64,
    images: Annotated[int, typer.Option("--images", help="Pictures of each object.")] = 24,
    elevation: Annotated[
        tuple[float, float],
        typer.Option("--elevation", metavar="LOW HIGH", help="Heights that pictures are taken from, in degrees."),
    ] = (0.0, 35.0),
    depth_size: Annotated[int, typer.Option("--depth-size", help="Side of the depth maps in pixels.")] = 128,
    views: Annotated[int, typer.Option("--views", help="Random sides for depth maps, besides 8 fixed ones.")] = 100,
    points: Annotated[int, typer.Option("--points", help="Points of each object's true cloud.")] = 100_000,
    test_fraction: Annotated[float, typer.Option("--test-fraction", help="Share of the objects to test on.")] = 0.2,
    val_fraction: Annotated[float, typer.Option("--val-fraction", help="Share of the objects to validate on.")] = 0.1,
    up: Annotated[
        str, typer.Option("--up", help="The meshes' upward axis: y, z, or auto (z for PLY and STL, else y).")
    ] = "auto",
    turn: Annotated[float, typer.Option("--turn", help="Turn the meshes about the vertical, in degrees.")] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Of splits, random sides and points.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on in FOLDER; finished objects are kept.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:  # fmt: skip
    """Draw meshes from many sides: training data for shapes from single pictures.

    Writes the layout of Lin, Kong and Lucey's released data, which the data set shapenet-renders reads: 24 pictures of
    each mesh, depth from 8 fixed and 100 random sides, points of its surface, and lists of the objects to train,
    validate and test on. Meshes are moved to the origin and scaled to a bounding box of diagonal 1.

    A mesh that cannot be used is named, and the others go on. The exit code is 0 if all were drawn, 3 if only some
    were, and 2 if none was.

    \b
    Examples:
      recon data render-views chairs/ --out renders --category chair
      recon data render-views ShapeNetCore.v1/03001627 --out renders --resume
      recon data pack --dataset shapenet-renders --data renders
    """
    options = RenderOptions(
        category=category, size=size, images=images, elevation=elevation, depth_size=depth_size, views=views,
        points=points, test_fraction=test_fraction, val_fraction=val_fraction, up=up, turn=turn, seed=seed,
    )  # fmt: skip
    # The global options, by name: a plugin uses the library and not the command line's modules.
    quiet = bool(getattr(context.find_root().obj, "quiet", False))
    with Progress(quiet=quiet) as progress:
        report = render_meshes(meshes, out, options, resume=resume, progress=progress)
    if as_json:
        print(json.dumps(asdict(report), indent=2, ensure_ascii=False))
    elif not quiet:
        counts = ", ".join(f"{count} {split}" for split, count in report.splits.items())
        before = f", {report.kept} of them kept" if report.kept else ""
        print(f"{report.rendered + report.kept} objects in {out}{before}: {counts}")
    if report.failed:
        raise typer.Exit(PARTLY)


def render_meshes(
    meshes: Sequence[Path],
    out: str | Path,
    options: RenderOptions | None = None,
    *,
    resume: bool = False,
    progress: Progress = QUIET,
) -> RenderReport:
    """Draw meshes into a folder of the layout that :mod:`recon_object_views.shapenet` describes.

    Every file is written whole or not at all, the lists last. Splits are a permutation of all meshes by the seed, those
    that cannot be used among them, so that a mesh that is repaired later changes no other's split.

    Args:
        meshes: files and folders; see :func:`recon_object_views.meshes.find_meshes`.
        out: the folder; new or empty, or, with ``resume``, one that the same options were used for.
        options: what is drawn.
        resume: keep the objects whose files are all there.
        progress: where the work is shown and bad meshes are named.

    Raises:
        DataError: ``out`` is not empty or is another's, a folder of meshes is missing or has none, no mesh can be used,
            or the disk is full.
    """
    from recon_object_views.meshes import find_meshes
    from recon_object_views.shapenet import ObjectFiles, write_list
    from recon_toolkit.files import write_text
    from recon_toolkit.threads import given

    options, out = options or RenderOptions(), Path(out)
    found = find_meshes(meshes)
    record = {"version": RENDERER_VERSION, **json.loads(json.dumps(asdict(options)))}
    _claim(out, record, resume)
    write_text(out / RECORD, json.dumps(record, indent=1) + "\n")
    objects = {mesh: ObjectFiles.of(out, options.category or mesh.synset or "objects", mesh.name) for mesh in found}
    finished = [mesh for mesh, files in objects.items() if all(path.is_file() for path in files.paths())]
    waiting = [mesh for mesh in found if mesh not in set(finished)]
    failed: dict[MeshFile, BadMesh] = {}
    pool = ThreadPoolExecutor(given().count)
    try:
        with progress.task("rendering meshes", len(waiting), "mesh") as task:
            jobs: dict[Future[str | None], MeshFile] = {
                pool.submit(_render, mesh, objects[mesh], options, progress): mesh for mesh in waiting
            }
            for job in as_completed(jobs):
                mesh, reason = jobs[job], job.result()
                if reason is not None:
                    failed[mesh] = BadMesh(str(mesh.path), reason)
                    progress.warn(f"{mesh.path} was skipped: {reason}")
                task.advance()
    finally:
        pool.shutdown(cancel_futures=True)  # on an error or Ctrl-C, what has not begun does not begin
    if len(failed) == len(found):
        bad = next(iter(failed.values()))
        raise DataError(f"none of the {len(found)} meshes can be used: {bad.path}: {bad.reason}",
                        remedy="fix the files or choose others")  # fmt: skip
    splits = dict.fromkeys(_SPLITS, 0)
    for category in sorted({files.category for files in objects.values()}):
        members = sorted(mesh.name for mesh in found if objects[mesh].category == category)
        good = {mesh.name for mesh in found if objects[mesh].category == category and mesh not in failed}
        for split, names in _split(members, options).items():
            kept = [name for name in names if name in good]
            splits[split] += len(kept)
            write_list(out, category, split, kept)
    ordered = [failed[mesh] for mesh in found if mesh in failed]
    return RenderReport(str(out), len(waiting) - len(failed), len(finished), splits, ordered)


def _render(mesh: MeshFile, files: ObjectFiles, options: RenderOptions, progress: Progress) -> str | None:
    """Draw a mesh and write its files; says why where the mesh cannot be used."""
    import numpy as np
    from numpy.random import Generator, Philox, SeedSequence

    from recon_object_views.meshes import read_mesh
    from recon_object_views.render import Layout, pictures_of
    from recon_object_views.shapenet import write_object

    try:
        made = read_mesh(mesh.path, up=options.up, turn=options.turn, warn=progress.warn)  # type: ignore[arg-type]
    except DataError as error:
        return f"{error.message} ({error.remedy})" if error.remedy else error.message
    layout = Layout(
        image_size=options.size, images=options.images, depth_size=options.depth_size, novel=options.views,
        points=options.points, elevation=options.elevation,
    )  # fmt: skip
    # By its name, so that it does not matter what other meshes there are, and which thread draws it when.
    digest = hashlib.sha256(f"{files.category}/{files.name}".encode()).digest()
    drawn: dict[str, Any] = pictures_of(made, layout, Generator(Philox(SeedSequence((options.seed, *digest[:16])))))
    write_object(
        files, images=drawn["image"], fixed=drawn["fixed_depth"][0], novel=drawn["novel_depth"][0],
        views=drawn["novel_view"][0], vertices=np.asarray(made.vertices), cloud=drawn["cloud"][0],
    )  # fmt: skip
    return None


def _claim(out: Path, record: dict[str, Any], resume: bool) -> None:
    """Raises DataError unless files with this record may be written to ``out``."""
    if out.exists() and not out.is_dir():
        raise DataError("is a file, not a folder", where=str(out), remedy="choose a new folder with --out")
    if not out.exists() or all(path.name == RECORD for path in out.iterdir()):  # nothing was drawn yet
        return
    if not resume:
        raise DataError("is not empty", where=str(out), remedy="choose a new folder with --out, or give --resume")
    try:
        before = json.loads((out / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = None
    if not isinstance(before, dict):
        raise DataError(f"has no readable {RECORD}, so render-views did not write it", where=str(out),
                        remedy="choose a new folder with --out")  # fmt: skip
    other = [f"{key} was {before.get(key)}, is {value}" for key, value in record.items() if before.get(key) != value]
    if other:
        raise DataError(f"was written with other options: {'; '.join(other)}", where=str(out),
                        remedy="give the same, or choose a new folder with --out")  # fmt: skip


def _split(names: Sequence[str], options: RenderOptions) -> dict[str, list[str]]:
    """Names by split, each sorted: at least one to train on, and one to test on where there are two and it is asked."""
    import numpy as np

    count = len(names)
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((options.seed, 1))))
    order = [names[at] for at in rng.permutation(count)]
    test = min(max(round(count * options.test_fraction), int(options.test_fraction > 0)), count - 1)
    val = min(max(round(count * options.val_fraction), int(options.val_fraction > 0)), count - 1 - test)
    parts = {"test": order[:test], "val": order[test : test + val], "train": order[test + val :]}
    return {split: sorted(parts[split]) for split in _SPLITS}
