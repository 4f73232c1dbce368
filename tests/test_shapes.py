"""Shapes in their forms, against closed forms, other programs' readers, and slow references."""

import io
import math

import numpy as np
import pytest
import trimesh
from recon_object_views.parametric import instance
from scipy.ndimage import gaussian_filter
from scipy.spatial import ConvexHull

from recon_toolkit.errors import DataError
from recon_toolkit.io.solids import binvox_bytes, voxels_from_binvox
from recon_toolkit.metrics.clouds import cloud_metrics, nearest_distances
from recon_toolkit.shapes.clouds import normals_of
from recon_toolkit.shapes.convert import sampled, solid_of, voxels_of_cloud, voxels_of_mesh
from recon_toolkit.shapes.field import contour, mesh_of_voxels, solid_field, unambiguous, without_outliers
from recon_toolkit.shapes.forms import Cloud, Mesh, Voxels
from recon_toolkit.shapes.printable import check_printable


def box(size=(1.0, 1.0, 1.0), at=(0.0, 0.0, 0.0)):
    made = trimesh.creation.box(size)
    return Mesh(made.vertices + np.asarray(at), made.faces)


def joined(*parts):
    starts = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    faces = np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)])
    return Mesh(np.concatenate([part.vertices for part in parts]), faces)


def sphere_points(count, radius=0.5):
    points = np.random.default_rng(0).normal(size=(count, 3))
    return radius * points / np.linalg.norm(points, axis=1, keepdims=True)


def as_trimesh(mesh):
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False, validate=False)


def assert_printable(mesh):
    """By our own look, and by trimesh's."""
    found, other = check_printable(mesh), as_trimesh(mesh)
    assert found.problems == () and found.printable and found.vertex_manifold and found.edge_manifold
    assert other.is_watertight and other.is_winding_consistent and other.volume > 0
    return found


def solid_and_field(points, **options):
    """What :func:`solid_of` makes, and the field that it makes it of."""
    field = solid_field(points, **options)
    return contour(field.values, field.origin, field.pitch), field


# Forms


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Cloud(np.zeros((0, 3))), DataError, "the cloud has no points"),
        (lambda: Cloud(np.zeros((4, 2))), ValueError, r"points must be \(N, 3\), not \(4, 2\)"),
        (lambda: Cloud(np.array([(0, 0, 0), (0, np.nan, 0)])), DataError, "1 of 2 points are not finite"),
        (lambda: Cloud(np.zeros((4, 3)), normals=np.zeros((3, 3))), ValueError, r"normals must be \(4, 3\)"),
        (lambda: Cloud(np.zeros((4, 3)), colours=np.zeros((4, 3))), ValueError, "colours must be uint8"),
        (lambda: Mesh(np.zeros((3, 3)), np.zeros((0, 3), int)), DataError, "the mesh has no faces"),
        (lambda: Mesh(np.zeros((3, 3)), np.array([(0, 1, 3)])), DataError, "a face names vertex 3, and there are 3"),
        (lambda: Mesh(np.zeros((3, 3)), np.array([(0, -1, 2)])), DataError, "a face names vertex -1"),
        (lambda: Mesh(np.zeros((3, 3)), np.zeros((1, 3))), ValueError, "faces must be integers"),
        (lambda: Voxels(np.zeros((2, 2, 2), bool)), DataError, "no voxel is filled"),
        (lambda: Voxels(np.ones((2, 2, 2))), ValueError, "voxels must be bool"),
        (lambda: Voxels(np.ones((2, 2, 2), bool), pitch=0.0), ValueError, "side is above 0"),
    ],
)
def test_what_is_no_shape_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_volume_and_bounds_are_the_boxs():
    mesh = box((1, 2, 3), at=(5, 5, 5))
    assert mesh.volume == pytest.approx(6)
    np.testing.assert_allclose(mesh.bounds, [(4.5, 4, 3.5), (5.5, 6, 6.5)])
    moved = Voxels(np.ones((1, 2, 3), bool), np.zeros(3), 0.5).moved(2, (1, 0, 0))
    assert moved.volume == 6 and np.allclose(moved.bounds, [(1, 0, 0), (2, 2, 3)])


# Clouds


def test_outliers_are_those_that_lie_apart():
    """Rusu's rule, point by point; and a far point is found among points of a sphere."""
    points = np.concatenate((sphere_points(400), [(3, 0, 0), (0, -2, 2)]))
    distances = np.sort(np.linalg.norm(points[:, None] - points, axis=2), axis=1)[:, 1:9].mean(axis=1)
    kept = without_outliers(points, neighbours=8, deviations=1.5)
    np.testing.assert_array_equal(kept, distances <= distances.mean() + 1.5 * distances.std())
    assert not kept[-2:].any() and kept[:-2].mean() > 0.9


def test_a_regular_grid_on_a_circle_has_no_outliers():
    angle = np.arange(60) / 60 * 2 * np.pi
    assert without_outliers(np.stack((np.cos(angle), np.sin(angle), 0 * angle), axis=1)).all()


def test_too_few_points_have_no_outliers():
    with pytest.raises(DataError, match="16 points are too few to find 16 neighbours"):
        without_outliers(np.eye(3)[np.zeros(16, int)])


def test_normals_of_a_sphere_are_its_radii():
    points = sphere_points(5000)
    found = normals_of(points)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    along = (found * points).sum(axis=1) / 0.5
    # 16 neighbours lie within 1/14 of the radius, where the sphere turns by 4 degrees; their own scatter adds some.
    assert along.min() > math.cos(math.radians(12))


def test_both_sides_of_a_thin_plate_look_away_from_it():
    cloud = sampled(box((1, 0.6, 0.012)), 20000)
    flat = np.abs(cloud.normals[:, 2]) > 0.9
    along = (normals_of(cloud.points) * cloud.normals).sum(axis=1)[flat]
    # 1.5 pitches thick, and neighbours as far away as the other side.
    assert (along > 0).mean() > 0.99 and np.median(along) > 0.99


def test_normals_of_a_chair_are_its_faces():
    made = instance("chair", "train", 0)
    cloud = sampled(Mesh(made.vertices, made.faces), 8000)
    # Its parts pass through one another; what is drawn inside others has no outside.
    assert ((normals_of(cloud.points) * cloud.normals).sum(axis=1) > 0).mean() > 0.95


# Solids


@pytest.mark.parametrize("count", [3000, 30000])
def test_the_solid_of_a_sphere(count):
    points = sphere_points(count)
    mesh, field = solid_and_field(points)
    assert assert_printable(mesh).pieces == 1
    off = np.linalg.norm(mesh.vertices, axis=1) - 0.5
    # A ball of radius g that lies on points s around its lowest place dips g − √(g² − s²) between them. With density ρ,
    # E s² = 1/(π ρ): 1/(2 π ρ g) on average. g is chosen so that holes have s < 0.8 g: 0.4 g at most. The grid adds a
    # tenth of a pitch.
    density = count / (4 * math.pi * 0.5**2)
    assert abs(off.mean()) < 1.5 / (2 * math.pi * density * field.gap) + 0.1 * field.pitch
    assert -0.4 * field.gap < off.min() and off.max() < 0.2 * field.pitch
    assert mesh.volume == pytest.approx(math.pi / 6 * (1 + 3 * off.mean() / 0.5), rel=0.005)


def test_the_solid_of_a_box():
    size = np.array((1.0, 0.6, 0.4))
    points = sampled(box(size), 15000).points
    mesh, field = solid_and_field(points)
    pitch = field.pitch
    assert_printable(mesh)
    np.testing.assert_allclose(np.subtract(*mesh.bounds[::-1]), size, atol=0.5 * pitch)
    # A quarter of a pitch everywhere: dimples as above, rounded edges.
    area = 2 * (0.6 + 0.4 + 0.24)
    assert mesh.volume == pytest.approx(size.prod(), abs=0.25 * pitch * area)


def test_a_thin_plate_gets_the_thickness_of_a_wall():
    cloud = sampled(box((1, 0.8, 0.002)), 8000)
    for wall in (None, 0.05):
        mesh, field = solid_and_field(cloud.points, wall=wall, resolution=80)
        assert_printable(mesh)
        inner = mesh.vertices[(np.abs(mesh.vertices[:, :2]) < (0.45, 0.35)).all(axis=1), 2]
        thickness = inner[inner > 0].mean() - inner[inner < 0].mean()
        # The wall and at most the plate's own; nodes and smoothing add or take a quarter of a pitch to either side.
        assert field.wall - 0.25 * field.pitch < thickness < field.wall + 0.002 + 0.5 * field.pitch


def test_a_chair_keeps_its_legs_and_its_shape():
    made = instance("chair", "train", 1)
    true = Mesh(made.vertices, made.faces)
    points = sampled(true, 10000).points
    mesh, field = solid_and_field(points)
    pitch = field.pitch
    assert assert_printable(mesh).pieces == 1
    truth, found = sampled(true, 20000, seed=1).points, sampled(mesh, 20000, seed=2).points
    scores = cloud_metrics(found, truth)
    # The samples themselves are about half a pitch apart; the surface adds as much. In hundredths.
    assert scores.to_truth < 100 * pitch and scores.from_truth < 100 * pitch
    feet = truth[truth[:, 2] < truth[:, 2].min() + 0.1]
    assert nearest_distances(feet, found).max() < 4 * pitch


def test_sampling_noise_and_strays_do_no_harm():
    random = np.random.default_rng(0)
    points = sphere_points(8000) + random.normal(scale=0.005, size=(8000, 3))
    points = np.concatenate((points, random.uniform(-1, 1, size=(40, 3))))
    kept = points[without_outliers(points)]
    mesh = solid_of(kept, resolution=64)
    assert_printable(mesh)
    # The outermost points of the noise hold the ball off: some of its deviations outside.
    off = np.linalg.norm(mesh.vertices, axis=1) - 0.5
    assert -0.01 < np.median(off) < 0.02


def test_pieces_stay_and_dust_goes():
    near = sampled(joined(box((0.4, 0.4, 0.4)), box((0.2, 0.2, 0.2), at=(0.6, 0, 0))), 8000).points
    dust = np.array((0, 0.5, 0)) + 0.001 * np.random.default_rng(0).normal(size=(5, 3))
    assert check_printable(solid_of(np.concatenate((near, dust)), resolution=64)).pieces == 2


def test_a_hole_narrower_than_the_gap_is_closed_and_a_wider_one_leaves_a_shell():
    points = sphere_points(6000)
    open_ = points[points[:, 2] < 0.45]  # a hole with a radius of 0.22
    assert solid_of(open_, gap=0.25).volume > 0.9 * math.pi / 6
    shell, field = solid_and_field(open_, resolution=80)
    assert_printable(shell)
    area = math.pi * 0.95  # 2 π r h
    assert 0.8 * field.wall * area < shell.volume < 1.5 * field.wall * area


def test_an_inside_does_not_leak_out_through_a_hole_that_outliers_left():
    """A patch wider than the gap is missing, and the inside is two gaps deep all the same."""
    points = sphere_points(4000)
    gap = solid_field(points, resolution=64).gap
    patched = points[np.linalg.norm(points - (0, 0, 0.5), axis=1) > 1.2 * gap]
    mesh, field = solid_and_field(patched, resolution=64)
    assert gap < field.gap < 1.6 * gap and mesh.volume > 0.97 * math.pi / 6


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (sphere_points(99), "99 different points are too few for a solid"),
        (np.zeros((500, 3)), "1 different points are too few"),
        (sphere_points(500) * (1, 1, 0), "lie on a plane"),
        (sphere_points(500) * (1, 0, 0), "lie on a line"),
        (np.full((500, 3), np.inf), "not finite"),
    ],
)
def test_clouds_without_an_inside_are_refused(points, message):
    with pytest.raises(DataError, match=message):
        solid_of(points)


@pytest.mark.parametrize("options", [{"resolution": 8}, {"gap": 0.0}, {"gap": 0.8}, {"wall": 0.001}, {"wall": 0.8}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="not"):
        solid_of(sphere_points(500), **options)


def test_the_same_cloud_makes_the_same_mesh():
    one, other = solid_of(sphere_points(1000)), solid_and_field(sphere_points(1000))[0]
    assert np.array_equal(one.vertices, other.vertices) and np.array_equal(one.faces, other.faces)


# Contours


@pytest.mark.parametrize("smoothing", [0, 0.7, 1.5])
@pytest.mark.parametrize("holes", [False, True])
def test_even_noise_is_contoured_to_a_manifold(smoothing, holes):
    """All cases of marching cubes come up; a judge that knows manifolds only takes the result, as 32-bit numbers."""
    values = gaussian_filter(np.random.default_rng(1).normal(size=(24, 24, 24)), smoothing)
    mesh = contour((values / values.std() - 0.5).astype(np.float32), np.zeros(3), 1.0, dust=0, holes=holes)
    found = assert_printable(mesh)
    manifold = pytest.importorskip("manifold3d")
    judged = manifold.Manifold(manifold.Mesh(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32)))
    assert judged.status() == manifold.Error.NoError
    assert judged.volume() == pytest.approx(found.volume, rel=1e-5)  # of 32-bit coordinates
    # Files without indices join vertices in the same place.
    assert len(np.unique(mesh.vertices.astype(np.float32), axis=0)) == len(mesh.vertices)


def test_a_contour_lies_where_the_field_is_zero():
    nodes = np.stack(np.meshgrid(*(np.linspace(-1, 1, 41),) * 3, indexing="ij"), axis=-1)
    mesh = contour((0.7 - np.linalg.norm(nodes, axis=-1)).astype(np.float32), np.full(3, -1.0), 0.05)
    # Distance is not quite linear along an edge: off by pitch²/(8 · 0.7). Nodes keep 0.03 pitches clear.
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices, axis=1), 0.7, atol=0.05**2 / 5.6 + 0.03 * 0.05)


def test_ambiguous_squares_are_closed_and_others_left_alone():
    inside = np.zeros((4, 4, 4), bool)
    inside[1, 1, 1] = inside[2, 2, 1] = True
    fixed = unambiguous(inside)
    assert fixed.sum() == 3 and fixed[1:3, 1:3, 1].sum() == 3  # one corner joins the two
    assert np.array_equal(unambiguous(fixed), fixed)


# Voxels


def test_voxels_of_a_convex_solid_are_those_with_their_centre_inside():
    points = np.random.default_rng(3).normal(size=(60, 3))
    hull = ConvexHull(points)
    a, b, c = (points[hull.simplices[:, k]] for k in range(3))
    inward = (np.cross(b - a, c - a) * hull.equations[:, :3]).sum(axis=1) < 0
    faces = np.where(inward[:, None], hull.simplices[:, ::-1], hull.simplices)
    found = voxels_of_mesh(Mesh(points, faces), 40)
    assert max(found.filled.shape) == 40
    centres = found.origin + (np.argwhere(np.ones_like(found.filled)) + 0.5) * found.pitch
    depth = (centres @ hull.equations[:, :3].T + hull.equations[:, 3]).max(axis=1)
    np.testing.assert_array_equal(found.filled.reshape(-1), depth < 0)


def test_parts_may_pass_through_each_other_and_faces_look_inwards():
    cross = joined(box((3, 1, 1)), box((1, 3, 1)), box((1, 1, 3)))
    for mesh in (cross, Mesh(cross.vertices, cross.faces[:, ::-1])):
        found = voxels_of_mesh(mesh, 30)
        assert found.volume == pytest.approx(7)  # sides of 10 voxels; on no centre lies a face
        assert found.filled.shape == (30, 30, 30)


def test_faces_edges_and_vertices_through_centres_leave_no_streaks():
    tower = box((4, 4, 8), at=(2.5, 2.5, 5))  # from 0.5 to 4.5: where the centres are
    found = voxels_of_mesh(joined(box((9, 9, 1), at=(4.5, 4.5, 0.5)), tower), 9).filled
    assert found.shape == (9, 9, 9) and found[..., 0].all()
    above = found[..., 1:]
    assert above[1:4, 1:4].all() and not above[5:].any() and not above[:, 5:].any()
    assert (above == above[..., :1]).all()


def test_a_hole_in_the_mesh_is_outvoted():
    mesh = box()
    whole = voxels_of_mesh(mesh, 16).filled
    np.testing.assert_array_equal(voxels_of_mesh(Mesh(mesh.vertices, mesh.faces[1:]), 16).filled, whole)


def test_an_open_sheet_has_no_voxels():
    with pytest.raises(DataError, match="no centre of a voxel is inside"):
        voxels_of_mesh(Mesh(np.eye(3), np.array([(0, 1, 2)])), 16)
    with pytest.raises(ValueError, match="1 to 1024"):
        voxels_of_mesh(box(), 0)


def test_a_cloud_and_its_mesh_fill_the_same_voxels():
    made = instance("chair", "train", 2)
    mesh = Mesh(made.vertices, made.faces)
    one, other = voxels_of_mesh(mesh, 32), voxels_of_cloud(sampled(mesh, 15000).points, 32)
    both, either = (one.filled & other.filled).sum(), (one.filled | other.filled).sum()
    # Parts of 2 voxels' thickness: a quarter of a voxel to either side is a quarter of them.
    assert one.filled.shape == other.filled.shape and both / either > 0.75


def test_the_mesh_of_voxels_passes_between_filled_and_empty_centres():
    random = np.random.default_rng(0)
    voxels = Voxels(gaussian_filter(random.normal(size=(16, 12, 14)), 1) > 0.1, np.array((1.0, 2, 3)), 0.1)
    voxels = Voxels(unambiguous(voxels.filled), voxels.origin, voxels.pitch)
    mesh = mesh_of_voxels(voxels)
    assert_printable(mesh)
    centres = voxels.origin + (np.argwhere(np.ones_like(voxels.filled)) + 0.5) * voxels.pitch
    inside = voxels_of_mesh(mesh, 150)  # finer, as an independent look
    index = np.floor((centres - inside.origin) / inside.pitch).astype(int)
    known = ((index >= 0) & (index < inside.filled.shape)).all(axis=1)
    seen = np.zeros(len(centres), bool)
    seen[known] = inside.filled[tuple(index[known].T)]
    assert (seen == voxels.filled.reshape(-1)).mean() > 0.995  # a cell of the finer grid is a seventh of a voxel
    single = mesh_of_voxels(Voxels(np.ones((1, 1, 1), bool)))
    assert_printable(single)
    np.testing.assert_allclose(np.mean(single.bounds, axis=0), 0.5)


def test_binvox_is_what_trimesh_reads_and_writes():
    from trimesh.exchange import binvox

    random = np.random.default_rng(0)
    # Runs beyond a byte, and runs of one.
    filled = gaussian_filter(random.normal(size=(20, 20, 20)), 2) > 0
    filled[:9] = True
    filled[-3:] ^= random.random((3, 20, 20)) < 0.3
    voxels = Voxels(filled, np.array((0.5, -1, 2)), 0.25)
    data = binvox_bytes(voxels)
    np.testing.assert_array_equal(binvox.load_binvox(io.BytesIO(data)).matrix, filled)
    back = voxels_from_binvox(data)
    np.testing.assert_array_equal(back.filled, filled)
    assert np.array_equal(back.origin, voxels.origin) and back.pitch == 0.25
    theirs = voxels_from_binvox(binvox.export_binvox(trimesh.voxel.VoxelGrid(filled)))
    np.testing.assert_array_equal(theirs.filled, filled)


def test_binvox_that_is_no_cube_or_not_whole():
    voxels = Voxels(np.ones((2, 3, 5), bool), np.zeros(3), 1.0)
    back = voxels_from_binvox(binvox_bytes(voxels))
    assert back.filled.shape == (5, 5, 5) and back.filled.sum() == 30 and back.filled[:2, :3].all() and back.pitch == 1
    with pytest.raises(DataError, match=r"has 0 voxels of 125|voxels of 125"):
        voxels_from_binvox(binvox_bytes(voxels)[:-2])
    with pytest.raises(DataError, match="no binvox file"):
        voxels_from_binvox(b"PK\x03\x04")
