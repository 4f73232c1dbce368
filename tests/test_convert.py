"""Shapes as files, read by other programs, and `recon convert` between them; and what a slicer would refuse."""

import io
import json
import zipfile

import numpy as np
import pytest
import trimesh

from recon_toolkit.cli.app import execute
from recon_toolkit.errors import DataError, suggestion
from recon_toolkit.io.shape_files import FORMS, read_shape, write_shape
from recon_toolkit.shapes.convert import Conversion, converted, sampled
from recon_toolkit.shapes.forms import Cloud, Mesh, Voxels
from recon_toolkit.shapes.printable import check_printable

MESHES = [suffix for suffix, forms in FORMS.items() if "mesh" in forms]


def box(size=(1.0, 2.0, 3.0), at=(0.0, 0.0, 0.0)):
    made = trimesh.creation.box(size)
    return Mesh(made.vertices + np.asarray(at), made.faces)


def as_trimesh(mesh):
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False, validate=False)


def run(*words, code=0):
    assert execute(["convert", *map(str, words)]) == code


@pytest.fixture
def cloud():
    random = np.random.default_rng(0)
    points = sampled(box((0.5, 0.4, 0.6)), 2000, seed=1)
    return Cloud(points.points, points.normals, random.integers(0, 256, size=(2000, 3)).astype(np.uint8))


# What a slicer asks


def broken(kind):
    mesh = box()
    faces = mesh.faces.copy()
    if kind == "open":
        return Mesh(mesh.vertices, faces[1:])
    if kind == "turned":
        faces[0] = faces[0, ::-1]
        return Mesh(mesh.vertices, faces)
    if kind == "inside out":
        return Mesh(mesh.vertices, faces[:, ::-1])
    if kind == "fin":  # a third face at an edge
        return Mesh(np.vstack((mesh.vertices, (9, 9, 9))), np.vstack((faces, (*faces[0, :2], 8))))
    if kind == "sliver":  # a face divided at the middle of a side, and the gap to its neighbour closed by a flat one
        a, b, c = faces[0]
        vertices = np.vstack((mesh.vertices, mesh.vertices[[a, b]].mean(axis=0)))
        return Mesh(vertices, np.vstack((faces[1:], (a, 8, c), (8, b, c), (b, 8, a))))
    other = box(at=(1, 2, 3))
    both = trimesh.Trimesh(np.vstack((mesh.vertices, other.vertices)), np.vstack((faces, other.faces + 8)))
    both.merge_vertices()  # two boxes that share a corner
    return Mesh(both.vertices, both.faces)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("open", "It is open: 3 edges with one face only."),
        ("turned", "Its faces do not all face outwards: 3 edges between opposite ones."),
        ("inside out", "It is inside out."),
        ("fin", "It is not manifold: 1 edge with more than two faces."),
        ("sliver", "It has 1 face without area."),
        ("touching", "It is not manifold: at vertices, 1 fan of faces too many."),
    ],
)
def test_what_a_slicer_would_refuse_is_named(kind, problem):
    mesh = broken(kind)
    found, other = check_printable(mesh), as_trimesh(mesh)
    assert problem in found.problems and not found.printable
    assert found.watertight == other.is_watertight
    if found.edge_manifold:  # trimesh looks at pairs of faces
        assert found.winding_consistent == other.is_winding_consistent
    if found.watertight and found.winding_consistent:  # else it has none
        assert found.volume == pytest.approx(other.volume)
    np.testing.assert_allclose(found.extent, np.ptp(mesh.vertices[np.unique(mesh.faces)], axis=0))


def test_a_good_mesh_has_no_problems_and_its_numbers():
    mesh = Mesh(*(np.concatenate(parts) for parts in (
        (box().vertices, box(at=(5, 0, 0)).vertices), (box().faces, box().faces + 8))))  # fmt: skip
    found = check_printable(mesh)
    assert found.printable and found.problems == () and found.pieces == 2
    assert found.volume == pytest.approx(12) and found.extent == pytest.approx((6, 2, 3))


# Files


@pytest.mark.parametrize("suffix", MESHES)
def test_a_mesh_comes_back_and_other_programs_read_it(suffix, tmp_path):
    mesh = box(at=(1, 2, 3))
    path = write_shape(tmp_path / "new" / f"box{suffix}", mesh)
    back = read_shape(path)
    assert isinstance(back, Mesh) and check_printable(back).printable
    assert len(back.vertices) == 8 and back.volume == pytest.approx(6)
    np.testing.assert_allclose(back.bounds, mesh.bounds)
    if suffix == ".3mf":
        pytest.importorskip("lxml")  # of trimesh
    other = trimesh.load(path, force="mesh")
    expected = np.array(mesh.bounds)
    if suffix in (".glb", ".obj", ".off"):  # y up, z towards the viewer
        expected = np.array(((0.5, 1.5, -3), (1.5, 4.5, -1)))
    assert other.is_watertight and other.volume == pytest.approx(6)
    np.testing.assert_allclose(other.bounds, expected)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".obj", ".stl", ".glb", ".ply", ".off"])
def test_what_another_program_wrote_is_read(suffix, tmp_path):
    ball = trimesh.creation.icosphere(subdivisions=2)
    ball.export(tmp_path / f"ball{suffix}")
    found = check_printable(read_shape(tmp_path / f"ball{suffix}"))
    # STL, PLY and GLB keep 32 bits, OBJ and OFF 8 digits.
    assert found.printable and found.volume == pytest.approx(ball.volume, rel=1e-6)


def test_an_obj_with_squares_materials_and_normals_is_read(tmp_path):
    corners = [(x, y, z) for z in (0, 1) for y in (0, 1) for x in (0, 1)]
    squares = [(1, 3, 4, 2), (5, 6, 8, 7), (1, 2, 6, 5), (3, 7, 8, 4), (1, 5, 7, 3), (2, 4, 8, 6)]
    lines = ["mtllib nowhere.mtl", *(f"v {x} {y} {z}" for x, y, z in corners), "vn 0 0 1", "vt 0 0", "usemtl some"]
    lines += ["f " + " ".join(f"{corner}/1/1" for corner in square) for square in squares]
    (tmp_path / "cube.obj").write_text("\n".join(lines))
    found = check_printable(read_shape(tmp_path / "cube.obj"))
    assert found.printable and found.volume == pytest.approx(1)


def test_several_parts_of_a_scene_become_one_mesh_where_they_stand(tmp_path):
    scene = trimesh.Scene()
    for at in (0, 5):
        scene.add_geometry(
            trimesh.creation.box((1, 2, 3)), transform=trimesh.transformations.translation_matrix((0, at, 0))
        )
    (tmp_path / "two.glb").write_bytes(scene.export(file_type="glb"))
    found = read_shape(tmp_path / "two.glb")
    assert check_printable(found).pieces == 2
    np.testing.assert_allclose(found.bounds, [(-0.5, -1.5, -1), (0.5, 1.5, 6)])  # y up there, z up here


@pytest.mark.parametrize("suffix", [".ply", ".npy", ".npz", ".xyz", ".txt"])
def test_a_cloud_comes_back(suffix, cloud, tmp_path):
    back = read_shape(write_shape(tmp_path / f"cloud{suffix}", cloud))
    assert isinstance(back, Cloud)
    np.testing.assert_allclose(back.points, cloud.points, atol=1e-7)  # 32 bits, or 9 digits
    if suffix in (".ply", ".xyz", ".txt"):
        np.testing.assert_allclose(back.normals, cloud.normals, atol=1e-7)
    if suffix == ".ply":
        np.testing.assert_array_equal(back.colours, cloud.colours)
        other = trimesh.load(tmp_path / "cloud.ply")
        np.testing.assert_allclose(other.vertices, cloud.points, atol=1e-7)
        np.testing.assert_array_equal(np.asarray(other.colors)[:, :3], cloud.colours)


def test_clouds_of_others_are_read(tmp_path):
    trimesh.PointCloud(np.eye(3), colors=[(255, 0, 0, 255)] * 3).export(tmp_path / "theirs.ply")
    np.testing.assert_array_equal(read_shape(tmp_path / "theirs.ply").colours, [(255, 0, 0)] * 3)
    (tmp_path / "modelnet.txt").write_text("1,2,3,0,0,1\n4,5,6,0,1,0\n")
    np.testing.assert_array_equal(read_shape(tmp_path / "modelnet.txt").normals, [(0, 0, 1), (0, 1, 0)])
    (tmp_path / "scan.xyz").write_text("# a scan\n1 2 3 200 100 50\n4 5 6 0 255 0\n")
    np.testing.assert_array_equal(read_shape(tmp_path / "scan.xyz").colours, [(200, 100, 50), (0, 255, 0)])


def test_voxels_come_back(tmp_path):
    voxels = Voxels(np.random.default_rng(0).random((5, 5, 5)) < 0.5, np.array((1.0, 2, 3)), 0.1)
    back = read_shape(write_shape(tmp_path / "v.binvox", voxels))
    assert np.array_equal(back.filled, voxels.filled) and np.array_equal(back.origin, voxels.origin)
    assert back.pitch == pytest.approx(0.1)
    array = read_shape(write_shape(tmp_path / "v.npy", voxels))
    assert np.array_equal(array.filled, voxels.filled) and array.pitch == 0.2 and np.allclose(array.origin, -0.5)


@pytest.mark.parametrize("suffix", [".stl", ".3mf", ".glb", ".ply"])
def test_height_is_in_millimetres_and_the_object_stands_on_the_bed(suffix, tmp_path):
    back = read_shape(write_shape(tmp_path / f"box{suffix}", box(at=(7, 8, 9)), height_mm=60))
    unit = 0.001 if suffix == ".glb" else 1  # glTF has metres
    np.testing.assert_allclose(np.array(back.bounds) / unit, [(-10, -20, 0), (10, 20, 60)], atol=1e-5)


def test_3mf_says_that_it_is_in_millimetres_and_other_units_are_understood(tmp_path):
    path = write_shape(tmp_path / "box.3mf", box())
    with zipfile.ZipFile(path) as package:
        assert package.namelist() == ["[Content_Types].xml", "_rels/.rels", "3D/3dmodel.model"]
        text = package.read("3D/3dmodel.model").decode()
    assert 'unit="millimeter"' in text
    if pytest.importorskip("lxml"):
        assert trimesh.load(path, force="mesh").units == "millimeter"
    # Twice the box of an object of another, turned by 90 degrees about z; row vectors, as the specification has them.
    parts = (
        '<object id="2"><components><component objectid="1" transform="0 1 0 -1 0 0 0 0 1 10 0 0"/></components>'
        "</object>"
        '</resources><build><item objectid="1"/><item objectid="2" transform="1 0 0 0 1 0 0 0 1 0 5 0"/></build>'
    )
    text = text.replace('unit="millimeter"', 'unit="inch"')
    text = text[: text.index("</resources>")] + parts + "</model>"
    with zipfile.ZipFile(tmp_path / "inch.3mf", "w") as package:
        package.writestr("3D/3dmodel.model", text)
    found = read_shape(tmp_path / "inch.3mf")
    assert check_printable(found).pieces == 2
    np.testing.assert_allclose(np.array(found.bounds) / 25.4, [(-0.5, -1, -1.5), (11, 5.5, 1.5)])


def test_files_that_are_no_shapes_are_refused_by_name(tmp_path):
    for name, content, message in [
        ("a.foo", b"", "'.foo' is no suffix of a shape"),
        ("a.stp", b"", suggestion(".stp", FORMS)),
        ("a.ply", b"nothing", "a.ply: is damaged, cut off, or no .ply file"),
        ("a.stl", b"nothing", "a.stl: the file has no faces"),
        ("a.glb", b"glTF", "a.glb: is damaged"),
        ("a.obj", b"v 0 0 0\n", "a.obj: "),
        ("a.3mf", b"PK", "a.3mf: this 3MF file cannot be read"),
        ("a.npy", b"\x93NUMPY", "a.npy: is damaged"),
        ("a.xyz", b"1 2 3 4\n", "there are 4 columns"),
        ("b.xyz", b"1 2 3 4 5.5 6\n", "neither unit normals nor colours"),
        ("a.binvox", b"nothing", "a.binvox: this is no binvox file"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError) as caught:
            read_shape(tmp_path / name)
        assert message in str(caught.value)
    np.save(tmp_path / "flat.npy", np.zeros((4, 4)))
    with pytest.raises(DataError, match=r"flat.npy: an array of float64 \(4, 4\) is no shape"):
        read_shape(tmp_path / "flat.npy")
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_shape(tmp_path / "none.ply")


def test_what_cannot_be_written_leaves_the_old_file(tmp_path, cloud):
    (tmp_path / "x.stl").write_text("old")
    with pytest.raises(DataError, match=r"\.stl does not hold a cloud"):
        write_shape(tmp_path / "x.stl", cloud)
    flat = Mesh(np.eye(3) * (1, 1, 0), np.array([(0, 1, 2)]))
    with pytest.raises(DataError, match="has no height to scale"):
        write_shape(tmp_path / "x.stl", flat, height_mm=10)
    with pytest.raises(ValueError, match="a height is above 0"):
        write_shape(tmp_path / "x.stl", box(), height_mm=0)
    assert (tmp_path / "x.stl").read_text() == "old"


# Sampling and conversion


def test_points_are_even_by_area_on_the_surface_and_seeded():
    mesh = box()
    found = sampled(mesh, 2200, seed=3)
    on_side = np.abs(np.abs(found.points) / (0.5, 1, 1.5) - 1) < 1e-12
    assert on_side.any(axis=1).all() and (np.abs(found.points) <= np.array((0.5, 1, 1.5)) + 1e-12).all()
    # The sides' areas are 6, 3 and 2 of 11, twice; strata are at most one point off at each of their ends.
    assert np.abs(on_side.sum(axis=0) - (1200, 600, 400)).max() <= 8
    np.testing.assert_allclose((found.normals * found.points / (0.5, 1, 1.5)).max(axis=1), 1)
    assert np.array_equal(found.points, sampled(mesh, 2200, seed=3).points)
    assert not np.array_equal(found.points, sampled(mesh, 2200, seed=4).points)


def test_every_form_becomes_every_other(cloud):
    options = Conversion(resolution=48, voxels=20, points=1500)
    shapes = {
        "cloud": cloud,
        "mesh": box((0.5, 0.4, 0.6)),
        "voxels": Voxels(np.ones((5, 4, 6), bool), np.zeros(3), 0.1),
    }
    for source in shapes.values():
        for form, kind in (("cloud", Cloud), ("mesh", Mesh), ("voxels", Voxels)):
            made = converted(source, form, options)
            assert isinstance(made, kind)
            # A pitch of the grid, or half of the coarse voxels that are smoothed.
            np.testing.assert_allclose(np.subtract(*made.bounds[::-1]), (0.5, 0.4, 0.6), atol=0.05)
            if kind is Mesh:
                assert check_printable(made).printable
    with pytest.raises(DataError, match="no form 'clouds'"):
        converted(cloud, "clouds")


# The command


def test_a_cloud_becomes_all_that_a_printer_takes(cloud, tmp_path, capsys):
    strays = Cloud(np.concatenate((cloud.points, [(3, 3, 3), (-3, 2, 2)])))
    source = write_shape(tmp_path / "in.ply", strays)
    names = [tmp_path / f"out{suffix}" for suffix in (".stl", ".3mf", ".glb", ".binvox", ".npy")]
    run(source, *names, "--resolution", 32, "--voxels", 16)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and all(str(name) in line for name, line in zip(names, lines, strict=True))
    assert all("watertight" in line for line in lines[:3]) and "x 60 mm" in lines[0] and "mm" not in lines[2]
    for name in names[:2]:
        mesh = read_shape(name)
        assert check_printable(mesh).printable
        np.testing.assert_allclose(np.subtract(*mesh.bounds[::-1]), (50, 40, 60), atol=4)  # two pitches
    assert max(read_shape(names[3]).filled.shape) == 16
    assert len(read_shape(names[4]).points) == 2002  # a cloud remains what it was
    run(names[0], tmp_path / "again.3mf")  # in millimetres already
    assert "x 60 mm" in capsys.readouterr().out
    run(names[0], tmp_path / "tall.3mf", "--height", 90)
    assert "x 90 mm" in capsys.readouterr().out


def test_as_decides_where_a_suffix_holds_two_forms(cloud, tmp_path):
    source = write_shape(tmp_path / "in.ply", cloud)
    run(source, tmp_path / "mesh.ply", tmp_path / "mesh.off", "--as", "mesh", "--resolution", 32)
    assert isinstance(read_shape(tmp_path / "mesh.ply"), Mesh)
    run(tmp_path / "mesh.off", tmp_path / "same.ply", tmp_path / "points.npy", "--points", 500)
    assert isinstance(read_shape(tmp_path / "same.ply"), Mesh)
    assert len(read_shape(tmp_path / "points.npy").points) == 500
    run(tmp_path / "mesh.off", tmp_path / "voxels.npy", "--as", "voxels", "--voxels", 8)
    assert read_shape(tmp_path / "voxels.npy").filled.shape[2] == 8


def test_a_batch_goes_on_after_a_bad_file(cloud, tmp_path, capsys):
    for name in ("one", "two"):
        write_shape(tmp_path / f"{name}.ply", cloud)
    write_shape(tmp_path / "few.ply", Cloud(cloud.points[:50]))
    (tmp_path / "broken.ply").write_text("no ply")
    inputs = [tmp_path / f"{name}.ply" for name in ("one", "broken", "few", "two", "missing")]
    run(*inputs, "--to", "stl,off", "--out", tmp_path / "out", "--resolution", 32, code=3)
    captured = capsys.readouterr()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one.off", "one.stl", "two.off", "two.stl"]
    assert "2 of 5 converted" in captured.out
    for name in ("broken", "few", "missing"):
        assert f"{name}.ply" in captured.err
    run(*inputs[1:3], "--to", "stl", code=2)


def test_an_open_mesh_is_written_with_a_warning(tmp_path, capsys):
    write_shape(tmp_path / "open.obj", broken("open"))
    run(tmp_path / "open.obj", tmp_path / "open.stl")
    captured = capsys.readouterr()
    assert "not fit for printing" in captured.out and "It is open: 3 edges" in captured.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["in.ply"], "there is no file to write"),
        (["in.ply", "out.foo"], "'.foo' is no suffix of a shape"),
        (["in.ply", "in.ply"], "an input would be written over"),
        (["in.ply", "in.obj", "in.obj"], "would both be written there"),
        (["in.ply", "out.stl", "--out", "folder"], "only with --to"),
        (["in.ply", "out.ply", "--as", "meshes"], "there is no form 'meshes' (nearest is 'mesh')"),
        (["in.ply", "out.npy", "--as", "mesh"], ".npy holds cloud or voxels, not mesh"),
        (["in.ply", "out.stl", "--height", "-1"], "a height is above 0"),
        (["none.ply", "out.stl"], "none.ply: cannot be read"),
        (["a/in.ply", "in.ply", "--to", "stl", "--out", "out"], "would both be written there"),
    ],
)
def test_a_users_error_is_one_message_before_anything_is_written(words, message, cloud, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_shape("in.ply", cloud)
    run(*words, code=2)
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err
    assert [path.name for path in tmp_path.iterdir()] == ["in.ply"]


def test_glb_says_what_gltf_wants(tmp_path):
    data = write_shape(tmp_path / "box.glb", box()).read_bytes()
    assert data[:4] == b"glTF" and int.from_bytes(data[8:12], "little") == len(data)
    tree = json.load(io.BytesIO(data[20 : 20 + int.from_bytes(data[12:16], "little")]))
    assert tree["asset"]["version"] == "2.0" and "NORMAL" in tree["meshes"][0]["primitives"][0]["attributes"]
