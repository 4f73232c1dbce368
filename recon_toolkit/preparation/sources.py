"""The pictures that a command line names: files, folders, patterns, videos and archives, one picture after another."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recon_toolkit.data.archives import Omitted, is_archive, read_archive
from recon_toolkit.data.decode import decode_image, read_image
from recon_toolkit.data.packing import find_files
from recon_toolkit.data.sampling import group_of, has_groups, split_called
from recon_toolkit.data.video import is_video, read_frames
from recon_toolkit.errors import ReconError
from recon_toolkit.files import printable
from recon_toolkit.inference.folder import find_sources
from recon_toolkit.preparation.record import RECORD, Picture, PrepareOptions, Unread


@dataclass(frozen=True)
class Origin:
    """A file that one or more pictures come from.

    Attributes:
        path: the file.
        kind: what it is.
        input: which of the inputs named it, from 0.
        place: its path below that input, printable.
    """

    path: Path
    kind: Literal["image", "video", "archive"]
    input: int
    place: str


@dataclass(frozen=True)
class Item:
    """One picture that is to be looked at, or something that cannot be.

    Attributes:
        picture: its record so far.
        load: decodes it, (H, W, 3) uint8, or raises DataError; None where the record says why it cannot.
        position: (origin, number in it) of the item after it.
    """

    picture: Picture
    load: Callable[[], NDArray[np.uint8]] | None
    position: tuple[int, int]


def find_origins(arguments: Sequence[str | Path], out: Path) -> tuple[list[Origin], list[Unread]]:
    """The files that arguments name, each once, and the arguments that name nothing.

    Of a folder, every image and video below it counts, but for what lies in ``out`` and in other prepared folders; an
    archive counts where it is named.

    Args:
        arguments: files, folders and patterns.
        out: the folder that is written.
    """
    origins: list[Origin] = []
    unread: list[Unread] = []
    seen: set[str] = set()
    ours: dict[Path, bool] = {}
    single: list[Path] = []
    number = 0
    for argument in map(str, arguments):
        base = _base(argument)
        found, failed = find_sources([argument])
        unread += [Unread(name=item.image, reason=item.reason + _archives_there(Path(argument))) for item in failed]
        files: list[Path] = []
        for path in (source.path for source in found):
            real = os.path.realpath(path)
            if real in seen or _prepared(path.parent, out.resolve(), ours):
                continue
            seen.add(real)
            if is_archive(path):
                origins.append(Origin(path, "archive", number, printable(path.name)))
                number += 1  # every archive is an input of its own
            else:
                (single if base is None else files).append(path)
        if files and base is not None:
            origins += [_file(path, path.relative_to(base), number) for path in files]
            number += 1
    if single:
        common = Path(os.path.commonpath([path.absolute().parent for path in single]))
        origins += [_file(path, path.absolute().relative_to(common), number) for path in single]
    return origins, unread


def _file(path: Path, place: Path, number: int) -> Origin:
    return Origin(path, "video" if is_video(path) else "image", number, printable(place.as_posix()))


def digest_of(origins: Sequence[Origin]) -> str:
    """SHA-256 over the names, sizes and times of change of all files, in hexadecimal."""
    digest = hashlib.sha256()
    for origin in origins:
        try:
            found = origin.path.stat()
            state = [found.st_size, found.st_mtime_ns]
        except OSError as error:
            state = [-(error.errno or 1)]
        digest.update(json.dumps([printable(origin.path), origin.place, origin.input, *state]).encode())
    return digest.hexdigest()


def items(origins: Sequence[Origin], options: PrepareOptions, start: tuple[int, int] = (0, 0)) -> Iterator[Item]:
    """Every picture of every file, in order, from a position on.

    A video or an archive that breaks off gives what comes before, and then an item that says so.

    Args:
        origins: from :func:`find_origins`.
        options: which frames of videos count.
        start: the position of an earlier item; files before it are not opened.
    """
    for index in range(start[0], len(origins)):
        origin = origins[index]
        skip = start[1] if index == start[0] else 0
        if origin.kind == "image":
            picture = Picture(source=printable(origin.path), input=origin.input, place=origin.place)
            yield Item(picture, partial(read_image, origin.path), (index + 1, 0))
            continue
        found = _frames(origin, options) if origin.kind == "video" else _members(origin, skip)
        for number, (picture, load) in enumerate(found):
            if number >= skip:
                yield Item(picture, load, (index, number + 1))


_Found = Iterator[tuple[Picture, Callable[[], NDArray[np.uint8]] | None]]


def _frames(origin: Origin, options: PrepareOptions) -> _Found:
    plain = Picture(source=printable(origin.path), input=origin.input, place=origin.place)
    try:
        for frame, image in read_frames(origin.path, every=options.every, limit=options.frames):
            yield plain.model_copy(update={"frame": frame}), partial(_same, image)
    except ReconError as error:
        yield plain.model_copy(update={"reason": "unreadable", "detail": error.message}), None


def _same(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image


def _members(origin: Origin, skip: int) -> _Found:
    archive = printable(origin.path)
    for member in read_archive(origin.path, skip=skip):
        place = "/".join(part for part in member.name.split("/") if part not in ("", "."))
        name = f"{archive}/{place}" if place else archive
        picture = Picture(source=name, input=origin.input, place=place or origin.place)
        if isinstance(member, Omitted):
            yield picture.model_copy(update={"reason": "unreadable", "detail": member.reason}), None
        else:
            yield picture, partial(decode_image, member.data or b"", name=name)


def groups_and_splits(pictures: Sequence[Picture]) -> list[tuple[str, str | None]]:
    """(group, split that its folder stands for) of each picture, by the places of all of them.

    Folders that all pictures of an input lie in do not count. Sub-folders for splits do, where there are any: the
    split is then ``none`` for what lies in none of them. Below that, a picture's group is its first sub-folder where
    three or more have pictures; else its video, or itself.
    """
    found: list[tuple[str, str | None]] = [("", None)] * len(pictures)
    by_input: dict[int, list[int]] = {}
    for index, picture in enumerate(pictures):
        by_input.setdefault(picture.input, []).append(index)
    for members in by_input.values():
        depth = _common_depth([pictures[index].place for index in members])
        places = {index: "/".join(PurePosixPath(pictures[index].place).parts[depth:]) for index in members}
        splits = {
            index: split_called(place.partition("/")[0]) if "/" in place else None for index, place in places.items()
        }
        divided = any(splits.values())
        inner = {
            index: place.partition("/")[2] if divided and splits[index] else place for index, place in places.items()
        }
        grouped = has_groups(list(inner.values()))
        for index in members:
            group = group_of(inner[index]) if grouped else inner[index]
            found[index] = group, (splits[index] or "none") if divided else None
    return found


def _common_depth(places: Sequence[str]) -> int:
    """How many folders lie above all places; a folder that stands for a split ends the count."""
    folders = [PurePosixPath(place).parts[:-1] for place in places]
    depth = 0
    while all(len(parts) > depth and parts[depth] == folders[0][depth] for parts in folders):
        if split_called(folders[0][depth]):
            break
        depth += 1
    return depth


def _base(argument: str) -> Path | None:
    """The folder that the places of an argument's files are told from; None for a single file."""
    path = Path(argument).expanduser() if argument.startswith("~") else Path(argument)
    try:
        if path.exists():
            return path if path.is_dir() else None
    except (OSError, ValueError):
        return None
    parts = path.parts
    magic = next((number for number, part in enumerate(parts) if glob.has_magic(part)), None)
    return None if magic is None else Path(*parts[:magic])


def _prepared(folder: Path, out: Path, known: dict[Path, bool]) -> bool:
    """Whether a folder is ``out``, another prepared folder, or lies in one."""
    if folder not in known:
        inside = folder.resolve() == out or (folder / RECORD).is_file()
        known[folder] = inside or (folder.parent != folder and _prepared(folder.parent, out, known))
    return known[folder]


def _archives_there(folder: Path) -> str:
    """That a folder without pictures holds archives, if it does."""
    try:
        if not folder.is_dir():
            return ""
        others: list[Path] = []
        find_files(folder, frozenset(), others)
    except (OSError, ValueError, ReconError):
        return ""
    count = sum(is_archive(path) for path in others)
    return f"; {count} archives lie there, which are read where they are named" if count else ""
