"""How much a file may hold: a small one can claim, or unpack to, more than any memory has."""

from __future__ import annotations

import io
import math
import time
import zipfile
from typing import IO, Any

import numpy as np

from recon_toolkit.errors import DataError

#: Bytes of a file that are read. Parsed, they take three to ten times as much memory.
MAX_FILE_BYTES = 2 << 30
#: Bytes that what is packed in a file (3MF, ``.npz``) may come to: 4 million faces as 3MF, 30 million points as arrays.
MAX_UNPACKED_BYTES = 768 << 20
#: Vertices, and faces, after all parts and copies of parts are put in place: 24 bytes each, several times over.
MAX_ELEMENTS = 50_000_000
#: Parts and copies of parts: each takes some hundredths of a millisecond.
MAX_PARTS = 1_000_000
#: Voxels of a grid, a byte each: 1024 along every side, which is as many as ``recon convert`` makes.
MAX_VOXELS = 1 << 30
#: Seconds after which a file that is read piece by piece is given up: the largest allowed ones take a minute or two.
MAX_SECONDS = 300.0


def too_large(what: str) -> DataError:
    """The error of a file that holds more than is read; ``what`` is a clause, e.g. ``it unpacks to 5 GB``."""
    return DataError(f"is too large to be read: {what}", remedy="simplify or divide it")


def count_elements(count: int, noun: str) -> int:
    """``count`` where it is not above :data:`MAX_ELEMENTS`.

    Raises:
        DataError: it is above, or below 0.
    """
    if count < 0:
        raise DataError(f"the file claims {count} {noun}", remedy="export it again")
    if count > MAX_ELEMENTS:
        raise too_large(f"it comes to {count:,} {noun}, more than {MAX_ELEMENTS:,}")
    return count


class Deadline:
    """Gives up a file after :data:`MAX_SECONDS`."""

    def __init__(self) -> None:
        self._end = time.monotonic() + MAX_SECONDS

    def check(self) -> None:
        """Raise DataError once the time is over."""
        if time.monotonic() > self._end:
            raise too_large(f"reading it takes more than {MAX_SECONDS:g} seconds")


def unpacked(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member of an archive. What the archive says of its size is checked, and not relied on.

    Raises:
        DataError: it is larger than :data:`MAX_UNPACKED_BYTES`.
    """
    if archive.getinfo(name).file_size > MAX_UNPACKED_BYTES:
        raise too_large(f"'{name}' unpacks to {archive.getinfo(name).file_size / 1e9:.1f} GB")
    with archive.open(name) as file:
        return _limited(file, name)


def _limited(file: IO[bytes], name: str) -> bytes:
    chunks, size = [], 0
    while chunk := file.read(1 << 20):
        size += len(chunk)
        if size > MAX_UNPACKED_BYTES:
            raise too_large(f"'{name}' unpacks to more than {MAX_UNPACKED_BYTES / 1e9:.1f} GB")
        chunks.append(chunk)
    return b"".join(chunks)


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the array of an ``.npy`` stream, which then stands behind the header.

    Raises:
        ValueError: it is no such file.
    """
    from numpy.lib import format as npy

    # Version 3 differs from 2 only in how names of fields are encoded, and here there are none.
    read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def check_npy(data: bytes) -> None:
    """Compare what an ``.npy`` claims with what is there, before an array of the claimed size is made.

    Raises:
        DataError: it claims more values than it has bytes for, or holds Python objects.
        ValueError: it is no such file.
    """
    file = io.BytesIO(data)
    shape, dtype = npy_header(file)
    if dtype.hasobject:
        raise DataError("holds Python objects, which are not read", remedy="save numbers")
    count = math.prod(shape)
    present = len(data) - file.tell()
    if count * dtype.itemsize > present:
        raise DataError(
            f"the file claims {count:,} values of {dtype} and has {present:,} bytes of them",
            remedy="the file may be cut off: copy or export it again",
        )
