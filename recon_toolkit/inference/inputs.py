"""Which pictures a command line names."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from recon_toolkit.data.decode import IMAGE_SUFFIXES
from recon_toolkit.data.packing import find_files
from recon_toolkit.data.video import VIDEO_SUFFIXES
from recon_toolkit.errors import DataError
from recon_toolkit.inference.pictures import Source
from recon_toolkit.inference.report import Failed


def find_sources(arguments: Sequence[str | Path]) -> tuple[list[Source], list[Failed]]:
    """The images and videos that files, folders and patterns name, each once, and the arguments that name nothing.

    Of a folder, every image and video below it counts, and its results keep the path below that folder.
    """
    found: dict[Path, str] = {}
    failed: list[Failed] = []
    for argument in map(str, arguments):
        path = Path(argument).expanduser()
        # A file may be called "a[1].png": what is there as it is written is no pattern.
        matches = [path] if path.exists() else [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        if not matches:
            failed.append(Failed(image=argument, reason="no such file or folder"))
        for match in matches:
            try:
                files = {file: file.relative_to(match) for file in _below(match)} if match.is_dir() else {}
            except DataError as error:
                failed.append(Failed(image=str(match), reason=error.message))
                continue
            for file, place in (files or {match: Path(match.name)}).items():
                found.setdefault(file, place.with_suffix("").as_posix())
    return _distinct(found), failed


def _below(folder: Path) -> list[Path]:
    files = find_files(folder, IMAGE_SUFFIXES | VIDEO_SUFFIXES)
    if not files:
        raise DataError("the folder holds no images and no videos", where=str(folder), remedy="put some there")
    return files


def _distinct(found: dict[Path, str]) -> list[Source]:
    """Sources with folders of their own: ``face``, ``face-2`` where two files are called so."""
    sources: list[Source] = []
    taken: set[str] = set()
    for path, name in found.items():
        folder, number = name, 1
        while folder.lower() in taken:  # some file systems do not tell case apart
            number += 1
            folder = f"{name}-{number}"
        taken.add(folder.lower())
        sources.append(Source(path, folder))
    return sources
