"""What the page shows of a shape in a frame of its own: points and, where there is one, a mesh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recon_toolkit.errors import DataError
from recon_toolkit.export.viewer.scene import ViewerScene


@dataclass(frozen=True)
class ShapeScene:
    """One shape for the page, which starts at its front and turns it about its z axis.

    Raises:
        DataError: there is neither a point nor a face, or a coordinate or a normal is not finite.
        ValueError: an array of the wrong shape or type, vertices without faces or faces without vertices, a face with
            a corner that is no vertex, or an input that is not (3, S, S).
    """

    name: str  # any text; the page escapes it
    input: Tensor  # (3, S, S) in [0, 1], the photograph
    points: NDArray[np.floating]  # (N, 3), z up, front towards −y, about [−1/2, 1/2]; none where there is only a mesh
    normals: NDArray[np.floating] | None = None  # (N, 3) of the points, outwards, of any length
    vertices: NDArray[np.floating] | None = None  # (V, 3) of a mesh, in the frame of the points
    faces: NDArray[np.integer] | None = None  # (F, 3), anticlockwise seen from outside
    maps: Mapping[str, Tensor] = field(default_factory=dict)  # caption → (3 | 1, S, S) in [0, 1], shown beside
    downloads: Mapping[str, bytes | str] = field(default_factory=dict)  # file name → content, or a relative path
    facts: Sequence[tuple[str, str]] = ()  # label and value, shown as a list

    def __post_init__(self) -> None:
        if self.input.ndim != 3 or self.input.shape[0] != 3:
            raise ValueError(f"expected an input of shape (3, S, S), got {tuple(self.input.shape)}")
        if (self.vertices is None) != (self.faces is None):
            raise ValueError("a mesh has both vertices and faces")
        for name, values in (("points", self.points), ("normals", self.normals), ("vertices", self.vertices)):
            if values is None:
                continue
            if values.ndim != 2 or values.shape[1] != 3:
                raise ValueError(f"expected {name} of shape (N, 3), got {values.shape}")
            if not np.isfinite(values).all():
                raise DataError(f"the {name} of {self.name} are not all finite", remedy="look at how the model trained")
        if self.normals is not None and len(self.normals) != len(self.points):
            raise ValueError(f"expected a normal for each of {len(self.points)} points, got {len(self.normals)}")
        if self.vertices is not None and self.faces is not None:
            if self.faces.ndim != 2 or self.faces.shape[1] != 3 or not np.issubdtype(self.faces.dtype, np.integer):
                raise ValueError(f"expected integer faces of shape (F, 3), got {self.faces.dtype} {self.faces.shape}")
            if len(self.faces) and not 0 <= self.faces.min() <= self.faces.max() < len(self.vertices):
                raise ValueError(f"a face has a corner that is none of the {len(self.vertices)} vertices")
        if not len(self.points) and (self.faces is None or not len(self.faces)):
            raise DataError(f"nothing is left to show of {self.name}", remedy="use another picture")


#: Whatever the page shows.
Scene: TypeAlias = ViewerScene | ShapeScene
