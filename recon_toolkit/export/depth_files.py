"""Which files are depth maps and no other shapes."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from recon_toolkit.data.decode import DEPTH_SUFFIXES
from recon_toolkit.errors import DataError
from recon_toolkit.files import size_of
from recon_toolkit.shapes.limits import npy_header

#: Suffixes that may also be of other shapes; which of them a file is, its arrays say.
ARRAY_SUFFIXES = (".npy", ".npz")


def is_depth_map(path: Path) -> bool:
    """Whether a file is a depth map and no other shape: by its suffix, or the name and shape of its array.

    A file that cannot be looked at is none: reading it says why.
    """
    suffix = path.suffix.lower()
    if suffix not in ARRAY_SUFFIXES:
        return suffix in DEPTH_SUFFIXES
    try:
        size_of(path)
        if suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                names = [name.removesuffix(".npy") for name in archive.namelist()]
                if "depth" in names or len(names) != 1 or "points" in names:
                    return "depth" in names and "points" not in names
                with archive.open(archive.namelist()[0]) as member:
                    return _is_map(member.read(4096))
        with path.open("rb") as file:
            return _is_map(file.read(4096))
    except (OSError, DataError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return False


def _is_map(head: bytes) -> bool:
    """Whether the array whose file starts so is (H, W) of numbers, and no list of points (N, 3)."""
    shape, dtype = npy_header(io.BytesIO(head))
    if len(shape) == 3 and 1 in (shape[0], shape[2]):
        shape = tuple(side for k, side in enumerate(shape) if k != (0 if shape[0] == 1 else 2))
    return len(shape) == 2 and shape[1] != 3 and min(shape) > 1 and dtype.kind in "fiu"
