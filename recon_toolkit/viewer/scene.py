"""What the page shows of one object, and how a reconstruction becomes that."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_toolkit.errors import DataError
from recon_toolkit.geometry.camera import Camera
from recon_toolkit.io.contact_sheet import cloud_pictures

if TYPE_CHECKING:
    from recon_toolkit.result import Result


#: Names of pictures that can be laid on the surface.
TEXTURES = ("photo", "albedo")


@dataclass(frozen=True)
class ViewerScene:
    """One object for the page. Tensors may be on any device and carry no batch dimension.

    Raises:
        ValueError: a picture that cannot be laid on the surface, or a light or view of the wrong length.
    """

    name: str  # any text; the page escapes it
    depth: Tensor  # (H, W) canonical depth z, about 1
    mask: Tensor  # (H, W) what of it to draw, bool or with a smooth outline: see depth_grid
    camera: Camera  # the depth map's
    input: Tensor  # (3, S, S) in [0, 1], the crop of the photograph
    light: Tensor | None = None  # (5,): ambient, diffuse, direction of travel in the canonical frame
    view: Tensor | None = None  # (6,): how the photograph shows the canonical object
    #: ``photo`` and ``albedo`` in the canonical frame, (3, S, S) or (1, S, S) in [0, 1]. As everywhere, the centres of
    #: the outermost pixels lie on the outermost depths, at any S.
    pictures: Mapping[str, Tensor] = field(default_factory=dict)
    reconstruction: Tensor | None = None  # (3, S, S) in [0, 1], the rendered input view
    maps: Mapping[str, Tensor] = field(default_factory=dict)  # caption → (3 | 1, S, S) in [0, 1], shown beside
    downloads: Mapping[str, bytes | str] = field(default_factory=dict)  # file name → content, or a relative path
    facts: Sequence[tuple[str, str]] = ()  # label and value, shown as a list

    def __post_init__(self) -> None:
        unknown = sorted(set(self.pictures) - set(TEXTURES))
        if unknown:
            raise ValueError(f"the page lays {' and '.join(TEXTURES)} on the surface, not {unknown[0]!r}")
        for name, values, count in (("light", self.light, 5), ("view", self.view, 6)):
            if values is not None and tuple(values.shape) != (count,):
                raise ValueError(f"expected a {name} of shape ({count},), got {tuple(values.shape)}")


def scene_of(
    result: Result,
    texture: Tensor | None = None,
    *,
    trim: bool = True,
    downloads: Mapping[str, bytes | str] | None = None,
) -> ViewerScene:
    """The scene of a result: its canonical object, or what the input view shows where the model has none.

    Args:
        result: one reconstructed object.
        texture: the photograph in the canonical frame, (3, S, S) in [0, 1]; without it, and with a canonical object,
            the page has no photo mode.
        trim: leave out the background around a canonical object.
        downloads: file name → content, or a path relative to the page.

    Raises:
        DataError: there is no depth, or nothing of it inside the mask.
    """
    from recon_toolkit.io.maps import depth_picture, normals_picture
    from recon_toolkit.shapes.mesh import trimmed
    from recon_toolkit.shapes.surface import surface_of

    found = result.outlined if trim else result.maps
    depth, mask, outlined = surface_of(found)
    canonical = found.canonical_depth is not None
    if trim and canonical:
        soft = torch.from_numpy(trimmed(depth.double().numpy(), result.camera, mask.numpy(), rim=not outlined))
        depth, mask = depth.where(mask, torch.nan), soft
    albedo = found.canonical_albedo if canonical else found.albedo
    pictures: dict[str, Tensor] = {} if albedo is None else {"albedo": albedo[0]}
    if texture is not None:
        pictures["photo"] = texture
    elif not canonical:
        pictures["photo"] = result.photo
    maps: dict[str, Tensor] = {}
    if found.normals is not None:
        maps["Normals"] = normals_picture(found.normals, found.mask)[0]
    if found.depth is not None:
        maps["Depth"] = depth_picture(found.depth, found.mask)[0]
    return ViewerScene(
        name=result.name,
        depth=depth,
        mask=mask,
        camera=result.camera,
        input=result.photo,
        light=None if found.light is None else found.light[0],
        view=found.view[0] if canonical and found.view is not None else None,
        pictures=pictures,
        reconstruction=None if found.reconstruction is None else found.reconstruction[0],
        maps=maps,
        downloads=downloads or {},
        facts=facts_of(
            None if found.light is None else found.light[0],
            None if found.view is None else found.view[0],
        ),
    )


def facts_of(light: Tensor | None, view: Tensor | None) -> list[tuple[str, str]]:
    """A light (5,) and a view (6,) in words: angles in whole degrees as somebody before the picture says them."""
    facts: list[tuple[str, str]] = []
    if view is not None:
        pitch, yaw, roll = (math.degrees(float(angle)) for angle in view[:3])
        facts += [
            ("Turned", _angle(yaw, "left", "right")),
            ("Nodding", _angle(pitch, "down", "up")),
            ("Leaning", _angle(roll, "right", "left")),
        ]
    if light is not None:
        ambient, diffuse, x, y, z = (float(value) for value in light)
        sideways, upwards = math.degrees(math.atan2(-x, z)), math.degrees(math.asin(max(-1.0, min(1.0, y))))
        facts += [
            ("Light from", f"{_angle(sideways, 'right', 'left')}, {_angle(upwards, 'above', 'below')}"),
            ("Ambient, diffuse", f"{ambient:.2f}, {diffuse:.2f}"),
        ]
    return facts


def _angle(degrees: float, positive: str, negative: str) -> str:
    whole = round(degrees)
    return f"{abs(whole)}° {positive if whole > 0 else negative}" if whole else "0°"


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


#: Pixels along a side of the pictures beside the scene, which are all there is to see without WebGL.
_PICTURE = 96


def shape_scene_of(result: Result, *, downloads: Mapping[str, bytes | str] | None = None) -> ShapeScene:
    """The scene of a result of points: its cloud, and the closed mesh around it.

    Args:
        result: one reconstructed object; see :attr:`~recon_toolkit.result.Result.of_points`.
        downloads: file name → content, or a path relative to the page.

    Raises:
        DataError: too few points belong to the object, or they lie on a plane.
    """
    cloud, mesh = result.cloud, result.closed
    pictures = cloud_pictures([torch.from_numpy(cloud.points)], _PICTURE)
    return ShapeScene(
        name=result.name,
        input=result.photo,
        points=cloud.points,
        normals=cloud.normals,
        vertices=mesh.vertices,
        faces=mesh.faces,
        maps={label.capitalize(): image[0] for label, image in pictures.items()},
        downloads=downloads or {},
        facts=[("Points", f"{len(cloud.points):,}")],
    )
