"""Parts of a shape's file: what one surface of a scene brings along, and several of them as one mesh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recon_toolkit.errors import DataError
from recon_toolkit.shapes.forms import Faces, Floats, Mesh

#: Told of what was wrong with a file and could be put right.
Warn: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Part:
    """One surface, or with no faces some points.

    Attributes:
        vertices: (V, 3).
        faces: (F, 3), each corner in [0, V); none in a part that is points.
        colours: (V, 3) uint8 sRGB, or None.
        face_colours: (F, 3) uint8 sRGB, or None.
        uv: (V, 2) texture coordinates, v upwards, or None.
        factor: (3,) linear colour of the material, or None.
        image: the material's texture, a PIL image, or None.
    """

    vertices: Floats
    faces: Faces
    colours: NDArray[np.uint8] | None = None
    face_colours: NDArray[np.uint8] | None = None
    uv: Floats | None = None
    factor: Floats | None = None
    image: Any = None

    def placed(self, matrix: Floats) -> Part:
        """The part where a matrix (4, 4) for column vectors puts it; a mirrored one still faces outwards."""
        (a, b, c), (d, e, f), (g, h, i) = matrix[:3, :3].tolist()
        mirrored = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g) < 0
        faces = self.faces[:, ::-1] if mirrored else self.faces
        return replace(self, vertices=self.vertices @ matrix[:3, :3].T + matrix[:3, 3], faces=faces)


def joined_parts(parts: Sequence[Part]) -> Mesh:
    """Several parts as one mesh. Where some have colours, the others are white, as glTF and most programs have it.

    Raises:
        DataError: there are no faces, or a coordinate is not finite.
    """
    parts = [part for part in parts if len(part.faces)]
    if not parts:
        raise DataError("the file has no faces", remedy="a cloud of points is read from .ply, .npy, .xyz or .txt")
    starts = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    coloured = any(part.colours is not None for part in parts)
    return Mesh(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)]),
        np.concatenate([_colours(part) for part in parts]) if coloured else None,
    )


def _colours(part: Part) -> NDArray[np.uint8]:
    return np.full((len(part.vertices), 3), 255, dtype=np.uint8) if part.colours is None else part.colours


def bytes_of_colours(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Colours (N, 3 or more) of any numeric type as uint8 (N, 3): integers are 0 to 255, or to their own largest."""
    values = np.asarray(values)[:, :3]
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if values.dtype == np.uint16 and values.max(initial=0) > 255:
        values = values / 65535
    elif values.dtype.kind in "iu" or values.max(initial=0) > 1:  # some programs write 0 to 255 as floats
        values = values / 255
    return np.rint(np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8)


def fans(counts: NDArray[np.int64], corners: NDArray[np.int64]) -> tuple[Faces, NDArray[np.int64]]:
    """Polygons as triangles, each a fan around its first corner.

    Args:
        counts: (P,) corners of each polygon; those with less than 3 give no triangle.
        corners: (sum of counts,), one polygon after the other.

    Returns:
        Faces (F, 3), and the polygon (F,) that each comes from.
    """
    starts = np.concatenate(([0], np.cumsum(counts)[:-1])) if len(counts) else np.zeros(0, np.int64)
    triangles = np.maximum(counts - 2, 0)
    source = np.repeat(np.arange(len(counts)), triangles)
    step = np.arange(len(source)) - np.repeat(np.cumsum(triangles) - triangles, triangles)
    first = starts[source]
    faces = np.stack((corners[first], corners[first + step + 1], corners[first + step + 2]), axis=1)
    return faces.astype(np.int64).reshape(-1, 3), source
