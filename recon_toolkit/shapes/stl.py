"""STL: binary as programs write it, with a count that is not true or something behind the facets, and text.

trimesh refuses the former, and takes hours for text with thousands of solids.
"""

from __future__ import annotations

import re

import numpy as np

from recon_toolkit.errors import DataError
from recon_toolkit.shapes.limits import count_elements
from recon_toolkit.shapes.parts import Part, Warn

_HEAD = 84
_UNKNOWN = 0xFFFFFFFF
_FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def is_binary_stl(data: bytes) -> bool:
    """Whether it is not text. Binary files may start with ``solid`` too, so their size is asked first."""
    if len(data) < _HEAD:
        return False
    if len(data) == _HEAD + _FACET.itemsize * int.from_bytes(data[80:84], "little"):
        return True
    start = data[:1024].lstrip().lower()
    return not (start.startswith(b"solid") and (b"facet" in data[:4096].lower() or b"endsolid" in data.lower()))


def part_of_stl(data: bytes, warn: Warn) -> Part:
    """The facets of a file, three vertices each; a text without facets gives a part without faces.

    Args:
        data: the file, binary or text.
        warn: told where a binary file has another number of facets than it says, or something behind them.

    Raises:
        DataError: the file is cut off, or a number cannot be read.
    """
    return _part_of_binary(data, warn) if is_binary_stl(data) else _part_of_text(data)


def _part_of_text(data: bytes) -> Part:
    numbers = rb"\s+([^\s]+)" * 3
    found = re.findall(rb"(?:^|\n|\r)[ \t]*vertex" + numbers, data, re.IGNORECASE)
    count_elements(len(found), "vertices")
    try:
        vertices = np.array(found, dtype=np.float64).reshape(-1, 3)
        faces = np.arange(len(vertices), dtype=np.int64).reshape(-1, 3)
    except ValueError:
        raise DataError("is damaged, cut off, or no .stl file", remedy="export it again") from None
    return Part(vertices, faces)


def _part_of_binary(data: bytes, warn: Warn) -> Part:
    """As many facets as the file says; or as its size allows, where it says 0 or all bits, as streams are left."""
    claimed = int.from_bytes(data[80:84], "little")
    present = max(len(data) - _HEAD, 0) // _FACET.itemsize
    if not present:
        raise DataError("the file has no faces", remedy="export it again")
    if present < claimed != _UNKNOWN:
        raise DataError(
            f"the file says that it has {claimed:,} facets, and holds {present:,}",
            remedy="the file may be cut off: copy or export it again",
        )
    number = present if claimed in (0, _UNKNOWN) else claimed
    rest = len(data) - _HEAD - number * _FACET.itemsize
    if number != claimed:
        warn(f"the file says that it has {claimed:,} facets; as many as it holds are read, {number:,}")
    elif rest:
        warn(f"{rest:,} bytes behind the {number:,} facets are not read")
    count_elements(3 * number, "vertices")
    rows = np.frombuffer(data, _FACET, number, _HEAD)
    vertices = rows["corners"].astype(np.float64).reshape(-1, 3)
    return Part(vertices, np.arange(3 * number, dtype=np.int64).reshape(-1, 3))
