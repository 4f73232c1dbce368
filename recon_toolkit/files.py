"""Writing files so that a reader sees the whole file or none, and a full disk gives a clear message."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from recon_toolkit.errors import DataError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class DiskError(DataError):
    """A place cannot be written, which ends what goes on writing there."""


def disk_error(error: OSError, path: str | Path) -> DiskError:
    """What to tell a user about a failed write under ``path``."""
    if error.errno in NO_SPACE:
        return DiskError(
            "no space left on the disk", where=str(path), remedy="free some space or choose another folder"
        )
    reason = error.strerror or str(error)
    return DiskError(f"cannot be written: {reason}", where=str(path), remedy="check the path and its permissions")


def legible(path: str | Path) -> str:
    """A path as text that can be written anywhere: bytes of a name that are no UTF-8 become a mark."""
    return os.fsencode(path).decode("utf-8", "replace")


def size_of(path: Path) -> int:
    """Bytes of a file.

    Raises:
        DataError: it is a pipe, a device or a socket: reading would wait, or never end.
        OSError: there is no such file, or it may not be looked at.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        raise DataError("is a pipe or a device, not a file", where=legible(path), remedy="name a file")
    return found.st_size


@contextmanager
def writing(path: str | Path, *, durable: bool = False) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of ``path`` when the block ends well, and leaves no trace otherwise.

    Missing folders above it are made. ``durable`` waits until the disk has the file, so that it outlives a power cut;
    that takes some hundredths of a second, which is right for what cannot be made again and wrong for pictures.

    Raises:
        DataError: the disk is full, or the place cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())  # or a power cut could leave the name with nothing in it
        partial.replace(path)
    except OSError as error:
        _remove(partial)
        raise disk_error(error, path) from error
    except BaseException:
        _remove(partial)
        raise


def write_text(path: str | Path, text: str, *, durable: bool = False) -> None:
    """Write ``text`` as UTF-8 to ``path``, whole or not at all; arguments and errors as for :func:`writing`."""
    with writing(path, durable=durable) as file:
        file.write(text.encode())


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # the first error is the one to report
        return
