"""The page to look at shapes, read as text: what it holds, how exact it is, and that names stay names."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from numpy.typing import NDArray
from viewer_scenes import CORNERS, HOSTILE, SIDES, Reader, hill, scene, shape, sphere, spotted

from recon_toolkit.errors import DataError
from recon_toolkit.viewer import Scene, viewer_document, viewer_part
from recon_toolkit.viewer.payload import (
    LEAST,
    MOST,
    MOST_OF_PAGE,
    STEPS,
    chosen,
    coarser,
    framing,
    share,
    shown_shape,
)

Floats = NDArray[np.float64]


def unpacked(data: dict[str, Any], text: str) -> Floats:
    """Coordinates as the page reads them."""
    steps = np.frombuffer(base64.b64decode(text), "<u2").reshape(-1, 3)
    low, high = np.array(data["low"]), np.array(data["high"])
    return np.asarray(low + (high - low) * steps / 65535)


def test_a_shape_arrives_within_half_a_step() -> None:
    random = np.random.default_rng(0)
    points = random.uniform((-0.5, -0.2, -0.3), (0.4, 0.3, 0.1), (5000, 3))
    normals = random.normal(size=(5000, 3))
    data = Reader(viewer_document("t", [shape(points=points.astype(np.float32), normals=normals)])).scenes()[0]
    low, high = np.minimum(points.min(0), CORNERS.min(0)), np.maximum(points.max(0), CORNERS.max(0))
    assert data["kind"] == "shape"
    np.testing.assert_allclose((data["low"], data["high"]), (low, high), atol=1e-7)  # points came as float32
    half = (high - low) / STEPS / 2
    assert (np.abs(unpacked(data, data["points"]["data"]) - points) <= half + 1e-7).all()
    assert (np.abs(unpacked(data, data["surface"]["data"]) - CORNERS) <= half + 1e-12).all()
    faces = np.frombuffer(base64.b64decode(data["surface"]["faces"]), "<u2").reshape(-1, 3)
    assert data["surface"]["bits"] == 16 and np.array_equal(faces, SIDES)
    signed = np.frombuffer(base64.b64decode(data["points"]["normals"]), np.int8).reshape(-1, 3) / 127
    unit = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    assert np.abs(signed - unit).max() <= 0.5 / 127 + 1e-12


def test_parts_that_are_missing_are_missing() -> None:
    cloud, solid = Reader(
        viewer_part(
            [
                shape(vertices=None, faces=None),
                shape(points=np.zeros((0, 3)), vertices=np.vstack((CORNERS, [[9, 9, 9]]))),
            ]
        )
    ).scenes()
    assert cloud["surface"] is None and cloud["points"]["normals"] is None
    assert solid["points"] is None and max(solid["high"]) < 0.5  # a vertex of no face takes no room
    plane = np.array([[0, 0, 0.25], [1, 0, 0.25], [0, 1, 0.25]])  # no extent along z
    data = Reader(viewer_part([shape(points=plane, vertices=None, faces=None)])).scenes()[0]
    assert np.abs(unpacked(data, data["points"]["data"]) - plane).max() <= 0.5 / STEPS
    one = Reader(viewer_part([shape(points=plane[:1], vertices=None, faces=None)])).scenes()[0]
    assert one["radius"] > 0 and one["centre"] == plane[0].tolist()


def test_many_vertices_have_wide_indices() -> None:
    count = 35_000  # triangles that share nothing: more vertices than 16 bits tell apart
    corners = np.random.default_rng(0).uniform(-0.5, 0.5, (3 * count, 3))
    faces = np.arange(3 * count).reshape(-1, 3)
    surface = Reader(viewer_document("t", [shape(vertices=corners, faces=faces)])).scenes()[0]["surface"]
    assert surface["bits"] == 32
    assert np.array_equal(np.frombuffer(base64.b64decode(surface["faces"]), "<u4").reshape(-1, 3), faces)


def test_too_many_points_are_thinned_out_the_same_way_every_time() -> None:
    assert np.array_equal(chosen(5, 5), np.arange(5))
    some = chosen(200_000, MOST)
    assert np.array_equal(some, chosen(200_000, MOST))
    assert len(np.unique(some)) == len(some) == MOST and (np.diff(some) > 0).all()
    # Points from grids come row by row: every column of a grid 128 wide keeps its share, within five deviations.
    part = MOST / 200_000
    columns = np.bincount(some % 128, minlength=128) / (200_000 / 128)
    assert np.abs(columns - part).max() < 5 * math.sqrt(part * (1 - part) / (200_000 / 128))
    cloud = sphere(200_000)
    shown = shown_shape(shape(points=cloud, normals=2 * cloud, vertices=None, faces=None))
    assert np.array_equal(shown.points, cloud[some])
    assert shown.normals is not None
    np.testing.assert_allclose(shown.normals, 2 * cloud[some], atol=1e-12)  # the radius is 1/2
    assert shown.facts == [("Points on this page", "60,000 of 200,000")]


def test_too_many_faces_are_joined() -> None:
    ball = trimesh.creation.icosphere(6, 0.5)  # 81,920 faces
    vertices, faces = coarser(np.asarray(ball.vertices), np.asarray(ball.faces, dtype=np.int64), 20_000)
    assert 10_000 < len(faces) <= 20_000  # cells shrink the faces' number by a fifth at a time, near the end
    found = trimesh.Trimesh(vertices, faces, process=False)
    # Vertices are means in cells of a side d: no further inside the sphere than the cell's arc is high, d²·3/8/r.
    assert np.abs(np.linalg.norm(vertices, axis=1) - 0.5).max() < 3 / 8 * (1 / 40) ** 2 / 0.5
    assert found.volume == pytest.approx(ball.volume, rel=0.01)  # outwards still: of another sign otherwise
    same, kept = coarser(np.asarray(ball.vertices), np.asarray(ball.faces, dtype=np.int64), 81_920)
    assert np.array_equal(kept, ball.faces) and np.array_equal(same, ball.vertices)
    facts = shown_shape(shape(vertices=ball.vertices, faces=ball.faces), 20_000).facts
    assert [label for label, _ in facts] == ["Faces on this page"] and facts[0][1].endswith(" of 81,920")


def test_pages_share_their_room_among_shapes() -> None:
    assert [share(count) for count in (1, 2, 4, 1000)] == [MOST, MOST, MOST_OF_PAGE // 4, LEAST]
    ball = trimesh.creation.icosphere(6, 0.5)
    noise = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    cloud = sphere(100_000)
    large = shape(points=cloud, normals=cloud, vertices=ball.vertices, faces=ball.faces, input=noise)
    page = viewer_document("t", [large])
    assert len(page) < 2_300_000 and "Points on this page" in page
    fewer = trimesh.creation.icosphere(5, 0.5)  # 20,480 faces
    usual = shape(points=cloud[::5], normals=cloud[::5], vertices=fewer.vertices, faces=fewer.faces)
    assert len(viewer_document("t", [usual] * 10)) < 4_500_000


def test_the_frame_leaves_single_points_out() -> None:
    cloud = sphere(10_000, 0.3) + np.array((0.1, 0, -0.05))
    centre, radius = framing(cloud)
    # A cap that a share p of a sphere lies beyond is 2 p r high.
    assert np.abs(centre - (0.1, 0, -0.05)).max() < 2 * 0.002 * 0.3 and radius == pytest.approx(0.3, rel=0.005)
    strayed = np.vstack((cloud, [[5, 5, 5], [-9, 0, 1]]))
    centre, radius = framing(strayed)
    assert np.abs(centre - (0.1, 0, -0.05)).max() < 2 * 0.003 * 0.3 and radius < 1.26 * 0.3
    assert framing(CORNERS)[1] == pytest.approx(np.linalg.norm(CORNERS - framing(CORNERS)[0], axis=1).max())


def test_names_stay_names() -> None:
    hostile = shape(HOSTILE, maps={HOSTILE: hill()[None]}, facts=[(HOSTILE, HOSTILE)], downloads={HOSTILE: b"x"})
    reader = Reader(viewer_document(HOSTILE, [hostile], intro=HOSTILE))
    calm = Reader(viewer_document("x", [shape()], intro="x"))
    assert reader.faults == [] and [tag for tag, _ in reader.elements] == [tag for tag, _ in calm.elements]
    assert not any(name.startswith("on") for _, attributes in reader.elements for name in attributes)
    assert reader.scenes()[0]["name"] == HOSTILE
    assert len(calm.all("label")) == len(calm.all("input")) > 0  # every control stands in its label


def test_pages_hold_the_controls_of_what_is_on_them() -> None:
    def panels(*scenes: Scene) -> list[str | None]:
        return [a["data-kind"] for a in Reader(viewer_document("t", scenes)).all("div") if "data-kind" in a]

    assert (
        panels(scene()) == ["grid"] and panels(shape()) == ["shape"] and panels(shape(), scene()) == ["grid", "shape"]
    )
    alone, mixed = viewer_document("t", [scene()]), viewer_document("t", [shape(), scene()])
    assert Reader(mixed).scenes()[1] == Reader(alone).scenes()[0]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"points": np.zeros((4, 2))}, ValueError, r"points of shape \(N, 3\)"),
        ({"points": np.array([[0, np.nan, 0]])}, DataError, "points of marks are not all finite"),
        ({"vertices": CORNERS * np.inf}, DataError, "vertices of marks are not all finite"),
        ({"normals": np.zeros((2, 3))}, ValueError, "normal for each of 3 points, got 2"),
        ({"faces": None}, ValueError, "both vertices and faces"),
        ({"faces": SIDES + 1}, ValueError, "none of the 4 vertices"),
        ({"faces": SIDES - 1}, ValueError, "none of the 4 vertices"),
        ({"faces": SIDES * 1.0}, ValueError, "integer faces"),
        ({"input": torch.zeros(1, 8, 8)}, ValueError, r"input of shape \(3, S, S\)"),
        ({"points": np.zeros((0, 3)), "faces": SIDES[:0]}, DataError, "nothing is left to show of marks"),
        ({"points": np.zeros((0, 3)), "vertices": None, "faces": None}, DataError, "nothing is left"),
    ],
)
def test_what_is_no_shape_is_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        shape(**changes)


def test_pictures_beside_keep_their_order() -> None:
    captions = [image["alt"] for image in Reader(viewer_part([shape(input=spotted(32))])).all("img")]
    assert captions == ["Input of marks", "Silhouette of marks"]
