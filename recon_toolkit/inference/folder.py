"""What a command line names, the folder of results, and what became of each picture of a batch."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from recon_toolkit.data.decode import IMAGE_SUFFIXES
from recon_toolkit.data.packing import find_files
from recon_toolkit.data.video import VIDEO_SUFFIXES
from recon_toolkit.errors import DataError
from recon_toolkit.files import disk_error, is_partial, make_folder, printable, remove_partials, write_text
from recon_toolkit.inference.pictures import Crop, Source


class Reconstructed(BaseModel):
    """An object that was reconstructed, and the folder with its files."""

    model_config = ConfigDict(frozen=True)

    image: str
    folder: str
    frame: int | None = None
    #: The crop in the picture: x, y, width and height in pixels; None if the picture was taken as it is.
    box: tuple[float, float, float, float] | None = None
    #: What the detector says it is, and the model that reconstructed it.
    label: str | None = None
    model: str = ""


class Failed(BaseModel):
    """A picture, video or argument that was not, and why."""

    model_config = ConfigDict(frozen=True)

    image: str
    reason: str


class RefinementGain(BaseModel):
    """What refining came to: the loss on these pictures before and after, and whether the result was kept."""

    model_config = ConfigDict(frozen=True)

    steps: int
    loss_before: float
    loss_after: float
    kept: bool


class ReconstructionReport(BaseModel):
    """What ``recon reconstruct --json`` prints."""

    model_config = ConfigDict(frozen=True)

    out: str
    model: str
    contact_sheet: str
    page: str | None
    reconstructed: list[Reconstructed]
    failed: list[Failed]
    refinement: RefinementGain | None = None
    seconds: float


CONTACT_SHEET, PAGE = "contact_sheet.png", "index.html"
#: The report of the last call, by which a folder is known to hold results.
RECORD = "reconstructions.json"


class Names:
    """Folder names that no two objects share, nor an object and the page.

    Args:
        sources: their names are theirs, whatever else turns up: beside a file ``group-face1``, the first face of
            ``group`` becomes ``group-face1-2``.
    """

    def __init__(self, sources: Iterable[Source]) -> None:
        self._reserved = {source.folder.lower() for source in sources}
        self._taken = {name.lower() for name in (CONTACT_SHEET, PAGE, RECORD)}

    def of(self, crop: Crop) -> str:
        """The crop's name, or ``name-2`` and so on where that is taken. Some file systems do not tell case apart."""
        if crop.source.frame is None and crop.name == crop.source.folder:
            return crop.name
        chosen, number = crop.name, 1
        while chosen.lower() in self._taken | self._reserved:
            number += 1
            chosen = f"{crop.name}-{number}"
        self._taken.add(chosen.lower())
        return chosen


@contextmanager
def locked_folder(out: Path) -> Iterator[None]:
    """Take a folder for results, and leave none behind that was made in vain.

    Raises:
        DataError: it holds other files, or cannot be written.
    """
    made = make_folder(out)
    try:
        known = (out / RECORD).is_file()
        if not made and not known and any(not is_partial(path) for path in out.iterdir()):
            raise DataError(
                "the folder holds other files", where=str(out), remedy="choose a new or an empty one with --out"
            )
    except OSError as error:
        raise disk_error(error, out) from error
    if not known:
        remove_partials(out)  # of a process that was killed while it wrote the record
    fresh = not known
    if fresh:  # from now on the folder is known, whatever happens
        write_text(out / RECORD, "{}\n")
    try:
        yield
    except BaseException:
        if fresh and not any(path.name != RECORD for path in out.iterdir()):
            (out / RECORD).unlink(missing_ok=True)
            if made:
                out.rmdir()
        raise


def find_sources(arguments: Sequence[str | Path]) -> tuple[list[Source], list[Failed]]:
    """The images and videos that files, folders and patterns name, each once, and the arguments that name nothing.

    Of a folder, every image and video below it counts, but for folders that hold results of ours; and its results keep
    the path below that folder.
    """
    found: dict[str, tuple[Path, str]] = {}
    failed: list[Failed] = []
    for argument in map(str, arguments):
        try:
            matches = _matches(argument)
            named = [pair for match in matches for pair in _files(match)]
        except DataError as error:
            failed.append(Failed(image=printable(argument), reason=error.message))
            continue
        except (OSError, RuntimeError, ValueError) as error:  # a name too long, a home that is not there, a null byte
            failed.append(Failed(image=printable(argument), reason=f"cannot be used: {error}"))
            continue
        if not matches:
            failed.append(Failed(image=printable(argument), reason="no such file or folder"))
        for file, place in named:
            found.setdefault(os.path.realpath(file), (file, _folder(place)))
    return _distinct(list(found.values())), failed


def _matches(argument: str) -> list[Path]:
    """What an argument names: a path as it is written, one below a home folder, or a pattern's matches."""
    for path in (Path(argument), Path(argument).expanduser() if argument.startswith("~") else None):
        if path is not None and path.exists():
            return [path]
    return [Path(match) for match in sorted(glob.glob(os.path.expanduser(argument), recursive=True))]


def _files(match: Path) -> list[tuple[Path, Path]]:
    """(file, its place below the folder) of a folder's pictures; or of the file itself."""
    if not match.is_dir():
        return [(match, Path(match.name))]
    results: dict[Path, bool] = {}

    def of_ours(folder: Path) -> bool:
        if folder not in results:
            results[folder] = (folder / RECORD).is_file() or (folder != match and of_ours(folder.parent))
        return results[folder]

    files = [file for file in find_files(match, IMAGE_SUFFIXES | VIDEO_SUFFIXES) if not of_ours(file.parent)]
    if not files:
        raise DataError("the folder holds no images and no videos", where=str(match), remedy="put some there")
    return [(file, file.relative_to(match)) for file in files]


def _folder(place: Path) -> str:
    """A picture's place as the place of its results: without its suffix, and never outside of the output folder."""
    parts = [printable(part) for part in place.with_suffix("").parts]
    return "/".join("_" if set(part) <= {"."} else part for part in parts)


def _distinct(found: Sequence[tuple[Path, str]]) -> list[Source]:
    """Sources with folders of their own: ``face``, ``face-2`` where two files are called so."""
    sources: list[Source] = []
    taken = {CONTACT_SHEET, PAGE, RECORD}
    for path, name in found:
        folder, number = name, 1
        while folder.lower() in taken:  # some file systems do not tell case apart
            number += 1
            folder = f"{name}-{number}"
        taken.add(folder.lower())
        sources.append(Source(path, folder))
    return sources
