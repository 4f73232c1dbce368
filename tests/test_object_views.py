"""Procedural objects and their pictures: geometry against closed forms, and maps against rays and each other."""

import math

import numpy as np
import pytest
import torch
from recon_object_views.parametric import CATEGORIES, instance
from recon_object_views.procedural import ProceduralObjects
from recon_object_views.render import Lamp, Layout, colour_views, depth_views, pictures_of
from recon_object_views.solids import box, hexahedron, oval, prism, revolved, rod, sample_surface, tube

from recon_toolkit.data.packing import DataContext
from recon_toolkit.errors import DataError
from recon_toolkit.geometry.orthographic import camera_rotation, fixed_views, looking_from, to_picture

GREY = (0.5, 0.5, 0.5)
SMALL = {"count": 3, "validation": 1, "test": 2, "images": 2, "depth_size": 16, "novel_views": 3, "points": 64}


def volume(mesh):
    """By the divergence theorem: positive where the faces wind anticlockwise seen from outside."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


@pytest.mark.parametrize(
    ("solid", "expected"),
    [
        (box((0, 0, 0), (1, 2, 3), GREY), 6.0),
        (box((0, 0, 0), (2, 2, 3), GREY, taper=(0.0, 0.0)), 4.0),  # a pyramid: base 4, height 3
        (prism(oval(2, 2, sides=64), 0, 1, GREY), 32 * math.sin(math.pi / 32)),  # a regular polygon of 64 sides
        (revolved(((0, 0), (1, 0), (1, 2), (0, 2)), GREY, sides=64), 64 * math.sin(math.pi / 32)),
        (rod((0, 0, 0), (0, 0, 2), 1.0, GREY, sides=64), 64 * math.sin(math.pi / 32)),
        (rod((0, 0, 0), (3, 4, 0), 0.5, GREY, sides=64), 5 * 8 * math.sin(math.pi / 32)),
        (tube(((0, 0, 0), (0, 1, 0), (0, 2, 0)), ((1, 0.5),) * 3, GREY, sides=64), 32 * math.sin(math.pi / 32)),
    ],
    ids=["box", "pyramid", "prism", "cylinder", "rod", "slanted rod", "elliptic tube"],
)
def test_solids_have_their_volume_and_face_outwards(solid, expected):
    assert volume(solid) == pytest.approx(expected)


def test_mirroring_keeps_faces_outwards():
    part = hexahedron([(x, y, z) for z in (0, 1) for y in (0, 1) for x in (1, 3)], GREY)
    assert volume(part.mirrored()) == pytest.approx(2) and part.mirrored().vertices[:, 0].max() == -1


@pytest.mark.parametrize("category", CATEGORIES)
def test_objects_are_their_own_and_within_the_unit_cube(category):
    objects = [instance(category, "train", number) for number in range(12)]
    for made in objects:
        low, high = made.vertices.min(0), made.vertices.max(0)
        assert np.linalg.norm(high - low) == pytest.approx(1) and np.allclose(low, -high)
        assert made.faces.min() >= 0 and made.faces.max() < len(made.vertices)
        assert made.colours.min() >= 0 and made.colours.max() <= 1
    sizes = np.array([made.vertices.max(0) for made in objects])
    assert (sizes.std(0) > 0.005).all()  # a hundredth of the length, in every direction
    again, other = instance(category, "train", 3), instance(category, "test", 3)
    assert np.array_equal(again.vertices, objects[3].vertices)
    assert other.vertices.shape != again.vertices.shape or not np.allclose(other.vertices, again.vertices)


@pytest.mark.parametrize("category", ["chair", "table", "car", "plane"])
def test_objects_stand_upright_and_look_the_same_from_left_and_right(category):
    """Seen from the front, a mask and its mirror image: these objects are symmetric, but for a propeller's blades."""
    front = looking_from(torch.tensor([0.0]), torch.tensor([0.0]))
    same = []
    for number in range(6):
        made = instance(category, "val", number)
        seen = depth_views(torch.from_numpy(made.vertices).float(), torch.from_numpy(made.faces), front, 64)
        same.append(float((seen.mask == seen.mask.flip(-1)).float().mean()))
    assert sorted(same)[2] > 0.98  # a pedestal's feet may point anywhere


def sphere(radius=0.4, detail=96):
    angle = np.linspace(-np.pi / 2, np.pi / 2, detail)
    return revolved(np.column_stack((radius * np.cos(angle), radius * np.sin(angle))), GREY, sides=2 * detail)


def test_depth_is_that_of_rays():
    """A sphere, and a plate whose corner depths differ: perspective would bend the one and scale the other."""
    made, size = sphere(), 32
    found = depth_views(torch.from_numpy(made.vertices).float(), torch.from_numpy(made.faces), fixed_views(), size)
    axis = (torch.arange(size) + 0.5) / size - 0.5
    square = axis.square() + axis[:, None].square()
    inside = square < 0.38**2
    expected = 1 - (0.16 - square).clamp(min=0).sqrt()
    # The polyhedron lies up to r (1 − cos(π / 192)) = 5e-5 inside, and steeply seen faces magnify that.
    assert (found.depth[:, inside] - expected[inside]).abs().max() < 2e-3
    assert torch.equal(found.mask[:, inside], torch.ones_like(found.mask[:, inside]))
    plate = torch.tensor([(-0.4, 0.3, -0.4), (0.4, 0.3, -0.4), (0.4, -0.3, 0.4), (-0.4, -0.3, 0.4)])
    faces = torch.tensor([(0, 1, 2), (0, 2, 3)])
    front = looking_from(torch.tensor([0.0]), torch.tensor([0.0]))
    seen = depth_views(plate, faces, front, size)
    rows = torch.arange(6, 26)
    slope = -0.3 * (-axis[rows] / 0.4)  # y of the plate at a height
    torch.testing.assert_close(seen.depth[0, rows, 16], 1 + slope, atol=1e-5, rtol=0)


def test_clouds_lie_on_what_depth_maps_show():
    fields = pictures_of(instance("car", "train", 0), Layout(images=2, novel=2, points=3000), np.random.default_rng(0))
    cloud, depth = torch.from_numpy(fields["cloud"]), torch.from_numpy(fields["fixed_depth"])[0]
    place = to_picture(cloud, fixed_views()[None], 128)[0]
    column, row = (place[..., k].round().long() for k in (0, 1))
    shown = depth.flatten(1).gather(1, row * 128 + column)
    # No point lies before the surface that is seen, but at its rim, where a pixel's middle sees past it.
    assert float(((place[..., 2] - shown < -0.02) & (shown > 0)).float().mean()) < 0.02
    assert float((shown > 0).float().mean()) > 0.97


def test_light_falls_from_the_lamp():
    made = sphere()
    lamp = Lamp(ambient=0.2, diffuse=0.8, towards=(0.0, -1.0, 0.0))
    tensors = (
        torch.from_numpy(made.vertices).float(),
        torch.from_numpy(made.faces),
        torch.from_numpy(made.colours).float(),
    )
    found = colour_views(*tensors, fixed_views(2), 32, lamp=lamp)
    column = found.image[:, 0, :, 16]
    assert (column[:, 5:16].diff() < 0).all()  # darker from above downwards
    torch.testing.assert_close(column[:, 20:26], torch.full((2, 6), 0.1), atol=1e-6, rtol=0)  # ambient × grey
    assert (found.image[:, :, 0, 0] == 1).all()


def test_looking_from_somewhere_sees_from_there():
    azimuth, elevation = torch.tensor([0.0, 0.5, -2.0]), torch.tensor([0.0, 0.3, 1.2])
    to_camera = -camera_rotation(looking_from(azimuth, elevation))[:, 2]
    level = elevation.cos()
    expected = torch.stack((level * azimuth.sin(), -level * azimuth.cos(), elevation.sin()), dim=1)
    torch.testing.assert_close(to_camera, expected)


def test_samples_are_even_by_area():
    """Two triangles with areas 1 : 3, and the mean of each, which is its centre."""
    vertices = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 5), (3, 0, 5), (0, 1, 5)], dtype=float)
    points = sample_surface(vertices, np.array([(0, 1, 2), (3, 4, 5)]), 40000, np.random.default_rng(0))
    upper = points[:, 2] > 1
    assert upper.mean() == pytest.approx(0.75, abs=1e-4)  # strata: exact but for one point
    # Standard error of a uniform coordinate over 10,000 points is 0.0024; five of them.
    np.testing.assert_allclose(points[~upper].mean(0), (1 / 3, 1 / 3, 0), atol=0.012)
    np.testing.assert_allclose(points[upper].mean(0), (1, 1 / 3, 5), atol=0.03)
    with pytest.raises(ValueError, match="without area"):
        sample_surface(vertices, np.array([(0, 0, 1)]), 5, np.random.default_rng(0))


def test_the_data_set_holds_what_it_draws_and_again(tmp_path):
    data = ProceduralObjects(categories=("chair", "mug"), **SMALL)
    packed = data.open("train", 32, DataContext(cache=tmp_path))
    assert len(packed) == 2 * 3 * 2 and packed.names[2] == "mug-train-00000/00"
    batch = packed.batch(torch.tensor([2, 3, 5]))
    drawn = data.generate(1, "train", 32)
    assert torch.equal((batch.image[:2] * 255).round().byte(), torch.from_numpy(drawn["image"]))
    assert batch.extra["category"].tolist() == [[1.0], [1.0], [0.0]]
    torch.testing.assert_close(
        batch.extra["fixed_depth"][0], torch.from_numpy(drawn["fixed_depth"][0]), atol=2e-5, rtol=0
    )
    assert torch.equal(batch.extra["novel_view"][0], batch.extra["novel_view"][1])
    again = ProceduralObjects(categories=("chair", "mug"), **SMALL).open("train", 32, DataContext(cache=tmp_path / "b"))
    assert again.fingerprint == packed.fingerprint
    more = ProceduralObjects(categories=("chair", "mug"), **SMALL | {"count": 4}).generate(1, "train", 32)
    assert all(np.array_equal(more[name], drawn[name]) for name in drawn)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"categories": ("chiar",)}, "there is no category 'chiar'"),
        ({"categories": ()}, "name each category once"),
        ({"count": 0}, "0 is outside 1"),
        ({"elevation": (40, 10)}, "10 is outside 40"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(DataError, match=message):
        ProceduralObjects(**options)
