"""A result of points as the page shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from recon_toolkit.errors import DataError
from recon_toolkit.export.viewer import ShapeScene

if TYPE_CHECKING:
    from recon_toolkit.result import Result


def shape_scene_of(result: Result, *, downloads: Mapping[str, bytes | str] | None = None) -> ShapeScene:
    """The scene of a result of points: its cloud, and the closed mesh around it where there is one.

    Args:
        result: one reconstructed object; see :attr:`~recon_toolkit.result.Result.of_points`.
        downloads: file name → content, or a path relative to the page.

    Raises:
        DataError: too few points belong to the object.
    """
    cloud = result.cloud
    facts = [("Points", f"{len(cloud.points):,}")]
    try:
        mesh = result.closed
    except DataError as error:  # points on a plane are still something to look at
        mesh = None
        facts.append(("Surface", error.message))
    return ShapeScene(
        name=result.name,
        input=result.photo,
        points=cloud.points,
        normals=cloud.normals,
        vertices=None if mesh is None else mesh.vertices,
        faces=None if mesh is None else mesh.faces,
        downloads=downloads or {},
        facts=facts,
    )
