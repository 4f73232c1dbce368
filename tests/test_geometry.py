"""Geometry against closed forms and finite differences."""

import math

import pytest
import torch

from recon_toolkit.geometry import (
    Camera,
    backproject,
    grid_faces,
    inverse_transform,
    lambert,
    normals_from_depth,
    rotation_matrix,
    shade,
    transform,
)

CAMERA = Camera(fov=10.0)


def test_the_outermost_pixel_centres_span_the_field_of_view():
    rays = CAMERA.rays(65, 65, dtype=torch.float64)
    angles = torch.atan(rays[0, 32])
    assert math.degrees(angles[-1] - angles[0]) == pytest.approx(10.0, abs=1e-12)  # float64 rounding
    assert rays[:, 32, 32].tolist() == [0, 0, 1]


def test_projection_inverts_back_projection():
    depth = torch.rand(2, 16, 16, dtype=torch.float64) * 0.2 + 0.9
    u, v, z = CAMERA.project(backproject(depth, CAMERA), 16, 16).unbind(1)
    pixels = torch.arange(16, dtype=torch.float64)
    torch.testing.assert_close(u, pixels.expand(2, 16, 16))
    torch.testing.assert_close(v, pixels[:, None].expand(2, 16, 16))
    torch.testing.assert_close(z, depth)


def test_a_field_of_view_outside_its_range_is_refused():
    with pytest.raises(ValueError, match="field of view"):
        Camera(fov=180)


def test_rotation_is_rz_ry_rx():
    angles = torch.tensor([[0.3, -0.7, 1.1]], dtype=torch.float64)
    (x, y, z) = angles[0].tolist()
    rx = torch.tensor([[1, 0, 0], [0, math.cos(x), -math.sin(x)], [0, math.sin(x), math.cos(x)]])
    ry = torch.tensor([[math.cos(y), 0, math.sin(y)], [0, 1, 0], [-math.sin(y), 0, math.cos(y)]])
    rz = torch.tensor([[math.cos(z), -math.sin(z), 0], [math.sin(z), math.cos(z), 0], [0, 0, 1]])
    expected = rz.double() @ ry.double() @ rx.double()
    # The three factors above are rounded to float32 first.
    torch.testing.assert_close(rotation_matrix(angles)[0], expected, atol=1e-6, rtol=0)


def test_objects_turn_about_their_centre():
    view = torch.tensor([[0.4, -0.2, 0.9, 0.01, -0.02, 0.03]], dtype=torch.float64)
    centre = torch.tensor([0.0, 0, 1], dtype=torch.float64).reshape(1, 3, 1)
    moved = transform(centre, view)
    torch.testing.assert_close(moved[0, :, 0], centre[0, :, 0] + view[0, 3:])


def test_the_inverse_transform_undoes_the_transform():
    points, view = torch.randn(4, 3, 50, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)
    torch.testing.assert_close(inverse_transform(transform(points, view), view), points)


@pytest.mark.parametrize("tilt", [0.0, 20.0, -55.0])
def test_normals_of_a_tilted_plane(tilt):
    normal = torch.tensor([math.sin(math.radians(tilt)), 0.0, math.cos(math.radians(tilt))], dtype=torch.float64)
    rays = CAMERA.rays(32, 32, dtype=torch.float64)
    depth = normal[2] / (normal[:, None, None] * rays).sum(0)  # plane through (0, 0, 1)
    found = normals_from_depth(depth[None], CAMERA)[0]
    torch.testing.assert_close(found[:, 1:-1, 1:-1], normal[:, None, None].expand(3, 30, 30))
    assert (found[:, 0] == torch.tensor([0.0, 0, 1])[:, None]).all()


def test_gradients_of_normals_and_transforms():
    depth = (torch.rand(1, 5, 6, dtype=torch.float64) * 0.1 + 1).requires_grad_()
    view = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: normals_from_depth(d, CAMERA), depth)
    assert torch.autograd.gradcheck(transform, (torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True), view))


def test_shading_of_a_frontal_plane():
    normals = torch.zeros(1, 3, 4, 4)
    normals[:, 2] = 1
    light = torch.tensor([[0.3, 0.5, 0.6, 0.0, 0.8]])
    image, shading = shade(torch.full((1, 3, 4, 4), 0.5), normals, light)
    assert shading[0, 0, 0, 0].item() == pytest.approx(0.3 + 0.5 * 0.8)
    assert image[0, 1, 2, 2].item() == pytest.approx(0.5 * (0.3 + 0.5 * 0.8))
    assert lambert(-normals, light[:, 2:]).max() == 0


def test_grid_faces_are_two_triangles_a_quad_in_the_published_order():
    assert grid_faces(2, 3).tolist() == [[0, 3, 1], [1, 3, 4], [1, 4, 2], [2, 4, 5]]
