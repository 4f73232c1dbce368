"""Pictures inside archives, read as a stream: nothing of an archive ever reaches the disk.

Archives may be damaged or hostile. Members that lead out of the archive, links and devices are left out, and there are
limits on what one member and the whole of it may come to, so that a small file cannot fill the memory or the day.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from recon_toolkit.data.decode import IMAGE_SUFFIXES
from recon_toolkit.data.video import VIDEO_SUFFIXES
from recon_toolkit.errors import DataError
from recon_toolkit.files import printable, size_of

ARCHIVE_SUFFIXES = (*(".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".zip"),)
#: A tar's extended header is read into memory as a whole: larger ones are a fault or an attack.
_HEADER_BYTES = 1 << 20
#: Python takes a damaged header for the end of a tar; the class is not in its stubs.
_BAD_HEADER: type[Exception] = tarfile.InvalidHeaderError  # type: ignore[attr-defined]
_UNREADABLE = tarfile.ReadError
_DRIVE = re.compile(r"[A-Za-z]:")
#: Whatever the readers of archives raise on damaged ones.
_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError),
    *(RecursionError, NotImplementedError, RuntimeError, OverflowError),
)


@dataclass(frozen=True)
class ArchiveLimits:
    """How much is read of one archive.

    Args:
        member_bytes: the most that one member may have.
        members: how many members are looked at.
        least_bytes: this much may come out of any archive, in all.
        ratio: beyond that, a multiple of the archive's own size; pictures hardly shrink, and bombs do by a thousand.
    """

    member_bytes: int = 256 << 20
    members: int = 5_000_000
    least_bytes: int = 1 << 30
    ratio: int = 50

    def total(self, size: int) -> int:
        """The most bytes that may come out of an archive of ``size`` bytes."""
        return max(self.least_bytes, self.ratio * size)


@dataclass(frozen=True)
class Member:
    """An image file in an archive.

    Attributes:
        name: its path there, printable.
        data: its content; None of a member that was skipped.
    """

    name: str
    data: bytes | None


@dataclass(frozen=True)
class Omitted:
    """A member that was left out, or the archive from some place on, where ``name`` is empty; and why."""

    name: str
    reason: str


def is_archive(path: str | Path) -> bool:
    """Whether a file's name ends as an archive's does."""
    return Path(path).name.lower().endswith(ARCHIVE_SUFFIXES)


def read_archive(path: Path, *, limits: ArchiveLimits | None = None, skip: int = 0) -> Iterator[Member | Omitted]:
    """The image files of an archive, in its order, and what was left out of it.

    Hidden files, folders and files of other kinds are passed over. Whatever is wrong with the archive becomes a last
    :class:`Omitted`; nothing is raised for it.

    Args:
        path: a tar (plain or compressed by gzip, bzip2, xz or zstd) or zip file.
        limits: how much is read.
        skip: how many members from the first have no data to give; a zip file does not even read them.
    """
    limits = limits or ArchiveLimits()
    produced = 0
    try:
        size = size_of(path)
        members = _zip_members if path.name.lower().endswith(".zip") else _tar_members
        for item in members(path, limits, limits.total(size), skip):
            produced += 1
            yield item
    except DataError as error:
        yield Omitted("", f"{error.message} ({error.remedy})" if error.remedy else error.message)
    except _DAMAGE as error:
        yield Omitted("", f"not an archive that can be read, or damaged, after {produced} pictures: {error}")


def _tar_members(path: Path, limits: ArchiveLimits, total: int, skip: int) -> Iterator[Member | Omitted]:
    with (
        path.open("rb") as raw,
        _Counted(_decompressed(raw, path), total) as stream,
        tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as tar,
    ):
        number = 0
        while (info := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # or every header stays in memory
            number += 1
            if number > limits.members:
                yield _too_many(limits)
                return
            name = printable(info.name)
            kind = "link" if info.issym() or info.islnk() else "folder" if info.isdir() else "file"
            kind = kind if kind != "file" or (info.isreg() and not info.issparse()) else "device"
            omitted = _omitted(name, kind, info.size, limits)
            if omitted is None and (kind != "file" or not _wanted(name)):
                continue
            content = tar.extractfile(info) if omitted is None and skip <= 0 else None
            skip -= 1
            yield omitted or Member(name, None if content is None else content.read())


def _zip_members(path: Path, limits: ArchiveLimits, total: int, skip: int) -> Iterator[Member | Omitted]:
    read = 0
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        for info in entries[: limits.members]:
            name = printable(info.filename)
            mode = info.external_attr >> 16
            kind = "folder" if info.is_dir() else "link" if stat.S_ISLNK(mode) else "file"
            kind = kind if not stat.S_IFMT(mode) or kind != "file" or stat.S_ISREG(mode) else "device"
            omitted = _omitted(name, kind, info.file_size, limits)
            if omitted is None and (kind != "file" or not _wanted(name)):
                continue
            if omitted is None:
                read += info.file_size
                if read > total:
                    raise _too_much(total)
            skip -= 1
            yield omitted or (Member(name, None) if skip >= 0 else _zip_member(archive, info, name))
        if len(entries) > limits.members:
            yield _too_many(limits)


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> Member | Omitted:
    """A member's content, no longer than its header says; faults of one leave the others alone."""
    if info.flag_bits & 1:
        return Omitted(name, "is encrypted")
    try:
        with archive.open(info) as file:
            return Member(name, file.read(info.file_size))
    except _DAMAGE as error:
        return Omitted(name, f"damaged: {error}")


def _omitted(name: str, kind: str, size: int, limits: ArchiveLimits) -> Omitted | None:
    """Why a member is left out, if it is; ordinary files of other kinds are none of our business."""
    parts = re.split(r"[\\/]", name)
    if parts[0] == "" or _DRIVE.match(name) or ".." in parts:
        return Omitted(name, "its path leads out of the archive")
    if kind == "link":
        return Omitted(name, "is a link")
    if kind == "device":
        return Omitted(name, "is a device, a pipe or a sparse file")
    if kind == "folder" or _hidden(parts):
        return None
    if Path(name).suffix.lower() in VIDEO_SUFFIXES:
        return Omitted(name, "is a video, which is not read inside an archive")
    if is_archive(name):
        return Omitted(name, "is an archive, which is not read inside another")
    if _wanted(name) and size > limits.member_bytes:
        return Omitted(name, f"has {size:,} bytes, more than the {limits.member_bytes:,} that are read")
    return None


def _wanted(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and not _hidden(re.split(r"[\\/]", name))


def _hidden(parts: list[str]) -> bool:
    """Whether a path is hidden, or what a Mac puts beside files."""
    return any(part == "__MACOSX" or (part.startswith(".") and part != ".") for part in parts)


def _decompressed(raw: IO[bytes], path: Path) -> IO[bytes]:
    """The tar inside a compressed file, by its first bytes."""
    start = raw.read(6)
    raw.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
    if start.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    if start.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(raw)
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstd(raw, path)
    return raw


def _zstd(raw: IO[bytes], path: Path) -> IO[bytes]:
    for name in ("compression.zstd", "zstandard"):
        try:
            module: Any = importlib.import_module(name)
        except ImportError:
            continue
        if name == "zstandard":
            found: IO[bytes] = module.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
        else:
            found = module.ZstdFile(raw)
        return found
    raise DataError(
        "is compressed by zstd, which this Python does not read",
        where=printable(path),
        remedy="pip install zstandard, or unpack it",
    )


def _too_many(limits: ArchiveLimits) -> Omitted:
    return Omitted("", f"has more than the {limits.members:,} members that are read; the rest is left out")


def _too_much(limit: int) -> DataError:
    return DataError(
        f"more than {limit:,} bytes come out of it, which is more than is read; the rest is left out",
        remedy="unpack it and give the folder",
    )


class _Counted(io.RawIOBase):
    """A stream that ends in an error where more is read than it may have."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream, self._limit, self._read = stream, limit, 0

    def __enter__(self) -> Self:
        return self

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._read += len(data)
        if self._read > self._limit:
            raise _too_much(self._limit)
        return data


class _Header(tarfile.TarInfo):
    """A header of a tar whose extensions stay small, and whose damage is told from the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except _BAD_HEADER:
            raise _UNREADABLE("a header is damaged") from None

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        extended = (tarfile.XHDTYPE, tarfile.XGLTYPE, b"X", tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
        if self.type in extended and self.size > _HEADER_BYTES:
            raise tarfile.ReadError(f"a header has {self.size:,} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]
