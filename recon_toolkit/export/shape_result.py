"""A result of points as the page shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from recon_toolkit.export.cloud_pictures import cloud_pictures
from recon_toolkit.export.viewer import ShapeScene

if TYPE_CHECKING:
    from recon_toolkit.result import Result

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
