"""Which pictures a command line names."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from recon_toolkit.data.decode import IMAGE_SUFFIXES
from recon_toolkit.data.packing import find_files
from recon_toolkit.data.video import VIDEO_SUFFIXES
from recon_toolkit.errors import DataError
from recon_toolkit.files import legible
from recon_toolkit.inference.folder import CONTACT_SHEET, PAGE, RECORD
from recon_toolkit.inference.pictures import Source
from recon_toolkit.inference.report import Failed


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
            failed.append(Failed(image=legible(argument), reason=error.message))
            continue
        except (OSError, RuntimeError, ValueError) as error:  # a name too long, a home that is not there, a null byte
            failed.append(Failed(image=legible(argument), reason=f"cannot be used: {error}"))
            continue
        if not matches:
            failed.append(Failed(image=legible(argument), reason="no such file or folder"))
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
    parts = [legible(part) for part in place.with_suffix("").parts]
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
