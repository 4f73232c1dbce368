"""Meshes of any format into the published layout and out of it, against closed forms; and all that may be wrong."""

import io
import json
import os
import re

import numpy as np
import pytest
import torch
import trimesh
import typer
from PIL import Image
from recon_object_views.command import RenderOptions, render_meshes, render_views
from recon_object_views.meshes import find_meshes, read_mesh
from recon_object_views.render import colour_views, depth_views
from recon_object_views.renders import ShapenetRenders
from recon_object_views.shapenet import SYNSETS, ObjectFiles, read_fixed, read_images, read_novel, read_truth
from scipy.io import loadmat, savemat
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from recon_toolkit.data.packing import DataContext
from recon_toolkit.errors import DataError, MissingSplit
from recon_toolkit.geometry.orthographic import FIXED_VIEWS
from recon_toolkit.progress import Progress

EXTENTS = np.array((1.0, 2.0, 3.0))
FORMATS = ("obj", "ply", "glb", "gltf", "off", "stl")
SMALL = RenderOptions(category="thing", size=16, images=2, depth_size=32, views=3, points=400)
BOX = EXTENTS[[0, 2, 1]] / np.sqrt(14) / 2  # half its sides, upright, where the file has y up
RADIUS = 1 / (2 * np.sqrt(3))  # of a sphere whose bounding box has diagonal 1


def write_box(path, scale=1.0, offset=0.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    box = trimesh.creation.box(EXTENTS * scale)
    box.apply_translation(np.full(3, offset))
    box.export(path)
    return path


def write_sphere(path):
    trimesh.creation.icosphere(5, 2.5).export(path)
    return path


def rays(quaternion, size):
    """Origins (S, S, 3) and direction (3,) of a picture's rays, by scipy's rotations: depth 0 is at the origins."""
    a, b, c, d = quaternion
    to_camera = Rotation.from_quat((b, c, d, a)).as_matrix()  # Blender's camera: y up, looks along −z
    axis = (np.arange(size) + 0.5) / size - 0.5
    across, down = np.meshgrid(axis, axis)
    return np.stack((across, -down, np.ones_like(across)), -1) @ to_camera, -to_camera[2]


def box_depth(quaternion, size, half):
    """Where a ray enters a box (0 where it passes by), by slabs (Kay and Kajiya 1986), and how far inside it runs."""
    origin, along = rays(quaternion, size)
    ends = np.stack(((-half - origin) / along, (half - origin) / along))
    enter, leave = ends.min(0).max(-1), ends.max(0).min(-1)
    return np.where(enter < leave, enter, 0), leave - enter


def sphere_depth(quaternion, size):
    origin, along = rays(quaternion, size)
    middle = -(origin @ along)
    square = RADIUS**2 - ((origin + middle[..., None] * along) ** 2).sum(-1)
    return np.where(square > 0, middle - np.sqrt(np.maximum(square, 0)), 0), square


def context(folder, tmp_path):
    return DataContext(cache=tmp_path / "cache", root=folder, progress=Progress(quiet=True, stream=io.StringIO()))


def said(where):
    return where.progress.stream.getvalue()


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Ten boxes, one of each format among them, and a sphere."""
    folder = tmp_path_factory.mktemp("renders")
    for name in FORMATS:
        write_box(folder / "meshes" / f"box_{name}.{name}")
    for number in range(4):
        write_box(folder / "meshes" / f"more{number}.obj")
    write_sphere(folder / "meshes" / "sphere.stl")
    report = render_meshes([folder / "meshes"], folder / "out", SMALL)
    assert (report.rendered, report.failed, sum(report.splits.values())) == (11, [], 11)
    return folder / "out"


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_is_read_upright(tmp_path, suffix):
    path = write_box(tmp_path / f"box.{suffix}", scale=7, offset=100)
    for up, extents in (("y", EXTENTS[[0, 2, 1]]), ("z", EXTENTS)):
        made = read_mesh(path, up=up)
        np.testing.assert_allclose(made.vertices.max(0), extents / np.sqrt(14) / 2, rtol=1e-5)  # STL has float32
        np.testing.assert_allclose(made.vertices.min(0), -made.vertices.max(0), atol=1e-6)
        a, b, c = (made.vertices[made.faces[:, k]] for k in range(3))
        volume = np.einsum("ij,ij->", a, np.cross(b, c)) / 6
        assert volume == pytest.approx(6 / 14**1.5, rel=1e-4)  # positive: faces still wind outwards
    upwards = "z" if suffix in ("ply", "stl") else "y"
    assert np.array_equal(read_mesh(path).vertices, read_mesh(path, up=upwards).vertices)
    turned = read_mesh(path, up="z", turn=90)
    np.testing.assert_allclose(turned.vertices.max(0), EXTENTS[[1, 0, 2]] / np.sqrt(14) / 2, rtol=1e-5)


def test_y_up_is_turned_as_blender_does(tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 0 1 0\nv 0 0 2\nv 3 0 0\nf 1 2 3\nf 1 3 4\n")
    made = read_mesh(tmp_path / "a.obj")
    corners = made.vertices - made.vertices[0]
    np.testing.assert_allclose(corners * np.sqrt(14), [(0, 0, 0), (0, 0, 1), (0, -2, 0), (3, 0, 0)], atol=1e-12)


def write_textured(folder, *, texture="pictures\\colours.png", mtl="parts.mtl"):
    """Three triangles: a material's colour, a texture (red left, blue right; green above on the right), and nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "coloured.obj").write_bytes(
        f"# caf\xe9\nmtllib {mtl}\n".encode("latin-1")
        + b"v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 0 0 1\nvt 0.05 0.1\nvt 0.1 0.1\nvt 1.9 -0.2\nvt 1.8 -0.1\n"
        b"f 2 3 5\nusemtl paint\nf 1 2 3\nusemtl print\nf 1/1 3/1 4/2\nf 1/3 4/3 5/4\n"
    )
    (folder / "parts.mtl").write_bytes(
        b"# caf\xe9\nnewmtl paint\nKd 0.2 0.4 0.6\nnewmtl print\nKd 0 0 0\nmap_Kd " + texture.encode() + b"\n"
    )
    return folder / "coloured.obj"


def write_texture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.array([[(255, 0, 0), (0, 255, 0)], [(255, 0, 0), (0, 0, 255)]], np.uint8)
    Image.fromarray(pixels).save(path)


def colours_by_place(made):
    """Colours in the order of faces' centres: materials come back in any order."""
    centre = made.vertices[made.faces].mean(1).round(6)
    return made.colours[np.lexsort(centre.T)]


def test_colours_of_materials_textures_and_neither(tmp_path):
    path = write_textured(tmp_path)
    write_texture(tmp_path / "pictures" / "colours.png")
    warnings = []
    found = {tuple(colour) for colour in read_mesh(path, warn=warnings.append).colours.round(6)}
    # The first of the texture's triangles lies in its left half; the other at (1.87, −0.17): it repeats, (0.87, 0.83).
    assert found == {(0.7, 0.7, 0.7), (0.2, 0.4, 0.6), (1, 0, 0), (0, 1, 0)} and not warnings
    (tmp_path / "pictures" / "colours.png").unlink()
    found = {tuple(colour) for colour in read_mesh(path, warn=warnings.append).colours.round(6)}
    assert found == {(0.7, 0.7, 0.7), (0.2, 0.4, 0.6), (0, 0, 0)}
    assert len(warnings) == 1 and "pictures/colours.png not found" in warnings[0] and str(path) in warnings[0]
    plain = read_mesh(write_textured(tmp_path / "other", mtl="nowhere.mtl"), warn=warnings.append)
    assert (plain.colours == 0.7).all() and "nowhere.mtl" in warnings[1]


@pytest.mark.parametrize("suffix", ["ply", "obj", "glb"])
def test_colours_of_vertices_are_averaged(tmp_path, suffix):
    corners = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 1)], float)
    colours = np.array([(255, 0, 0, 255), (0, 255, 0, 255), (0, 0, 255, 255), (255, 255, 255, 255)], np.uint8)
    faces = np.array([(0, 1, 2), (1, 3, 2)])
    made = trimesh.Trimesh(corners, faces, vertex_colors=colours, process=False)
    made.export(tmp_path / f"a.{suffix}")
    found = read_mesh(tmp_path / f"a.{suffix}").colours
    expected = colours[faces][..., :3].mean(1) / 255
    # OBJ has eight digits, PLY and GLB bytes: exact but for that.
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_colours_of_gltf_are_decoded_from_linear(tmp_path):
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[55, 128, 0, 255])
    made = trimesh.creation.box()
    made.visual = trimesh.visual.TextureVisuals(uv=np.zeros((8, 2)), material=material)
    made.export(tmp_path / "a.glb")
    # IEC 61966-2-1: 55 / 255 linear is 128 / 255 in sRGB, and 128 / 255 is 188 / 255; half a step of rounding.
    assert np.abs(read_mesh(tmp_path / "a.glb").colours * 255 - (128, 188, 0)).max() < 0.6


def test_textures_within_a_glb(tmp_path):
    write_texture(tmp_path / "colours.png")
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.open(tmp_path / "colours.png"))
    corners = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1)], float)
    uv = np.array([(0.1, 0.2), (0.2, 0.1), (0.1, 0.1), (0.8, 0.1), (0.9, 0.2), (0.7, 0.2)])
    visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    trimesh.Trimesh(corners, [(0, 1, 2), (3, 4, 5)], visual=visual, process=False).export(tmp_path / "a.glb")
    found = read_mesh(tmp_path / "a.glb").colours
    assert np.array_equal(found, [(1, 0, 0), (0, 0, 1)])  # below, on the left and on the right


def test_a_scene_is_put_together(tmp_path):
    scene = trimesh.Scene()
    box = trimesh.creation.box((1, 1, 1))
    scene.add_geometry(box, node_name="one")
    scene.add_geometry(box, node_name="two", transform=trimesh.transformations.translation_matrix((3, 0, 0)))
    scene.export(tmp_path / "two.glb")
    made = read_mesh(tmp_path / "two.glb")
    assert len(made.faces) == 24 and np.ptp(made.vertices[:, 0]) == pytest.approx(4 / np.sqrt(18))


@pytest.mark.parametrize(("scale", "offset"), [(1e30, 0), (1e-30, 0), (1e150, 1e151), (1, 1e6), (5e307, 0)])
def test_any_size_and_place_is_normalised(tmp_path, scale, offset):
    corners = trimesh.creation.box(EXTENTS).vertices * scale + offset
    lines = [f"v {x!r} {y!r} {z!r}" for x, y, z in corners.tolist()]
    faces = [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in trimesh.creation.box(EXTENTS).faces]
    (tmp_path / "a.obj").write_text("\n".join(lines + faces))
    found = read_mesh(tmp_path / "a.obj")
    np.testing.assert_allclose(found.vertices.max(0), BOX, rtol=1e-9)  # 1e6 leaves ten digits


def test_torn_and_tangled_meshes_just_work(tmp_path):
    """Three faces at one edge, a face twice, loose faces, an edge-on face, and a far vertex that no face has."""
    (tmp_path / "a.obj").write_text(
        "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nv 0 -1 0\nv 1000 1000 1000\nv nan 0 0\n"
        "f 1 2 3\nf 1 2 4\nf 1 2 5\nf 1 2 3\nf 5 4 2\nf 1 1 2\nf 3 4 5 2\n"
    )
    report = render_meshes([tmp_path / "a.obj"], tmp_path / "out", SMALL)
    assert not report.failed
    assert np.linalg.norm(np.ptp(loadmat(tmp_path / "out" / "thing_testGT" / "a.mat")["V"], axis=0)) == pytest.approx(1)


BAD = {
    "empty.obj": (b"", "holds no faces"),
    "empty.stl": (b"", "holds no faces"),
    "empty.off": (b"", "cannot be read as OFF"),
    "points.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", "holds no faces"),
    "nan.obj": (b"v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "1 vertices have coordinates that are not finite"),
    "inf.off": (b"OFF\n3 1 0\n0 0 inf\n1 0 0\n0 1 0\n3 0 1 2\n", "not finite"),
    "one_place.obj": (b"v 1 2 3\nv 1 2 3\nv 1 2 3\nf 1 2 3\n", "all its vertices lie in one place"),
    "line.obj": (b"v 0 0 0\nv .1 .1 .1\nv .3 .3 .3\nf 1 2 3\n", "none of its faces has an area"),
    "no_corner.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "cannot be read as OBJ"),
    "no_corner.off": (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n", "cannot be read as OFF"),
    "junk.obj": (bytes(range(256)) * 9, "holds no faces|cannot be read as OBJ"),
    "junk.ply": (bytes(range(256)) * 9, "cannot be read as PLY"),
    "junk.glb": (bytes(range(256)) * 9, "cannot be read as GLB"),
    "junk.gltf": (bytes(range(256)) * 9, "cannot be read as GLTF"),
    "junk.stl": (bytes(range(256)) * 9, "cannot be read as STL"),
    "junk.off": (bytes(range(256)) * 9, "cannot be read as OFF"),
    "mesh.fbx": (b"Kaydara", "'.fbx' is no mesh format that is read here"),
    "gone.obj": (None, "no such file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_meshes_are_named(tmp_path, name):
    content, problem = BAD[name]
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=problem) as caught:
        read_mesh(path)
    assert caught.value.where == str(path) and caught.value.remedy


def test_half_a_file_is_named(tmp_path):
    for name in ("box.ply", "box.glb", "box.stl"):
        whole = write_box(tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match=r"cannot be read|holds no faces|not there"):
            read_mesh(tmp_path / name)


def test_shapenets_trees_and_names_that_clash(tmp_path):
    tree = tmp_path / "ShapeNet"
    write_box(tree / "03001627" / "1a6f" / "model.obj")
    second = tree / "02958343" / "9c3e" / "models"
    write_textured(second, texture="../images/colours.png").rename(second / "model_normalized.obj")
    write_texture(second.parent / "images" / "colours.png")
    for name in ("x/cup.obj", "y/cup.obj", "y/deep/cup.ply", "y/deep/cup.off", "big mug.stl", ".hidden/no.obj"):
        write_box(tmp_path / "own" / name)
    found = find_meshes([tree, tmp_path / "own", tmp_path / "own" / "x" / "cup.obj"])
    assert {mesh.name: mesh.synset for mesh in found} == {
        "1a6f": "03001627", "9c3e": "02958343", "x-cup": None, "y-cup": None, "y-deep-cup-off": None,
        "y-deep-cup-ply": None, "big-mug": None,
    }  # fmt: skip
    warnings = []
    colours = read_mesh(second / "model_normalized.obj", warn=warnings.append).colours
    assert (colours == (1, 0, 0)).all(1).any() and not warnings
    report = render_meshes([tree], tmp_path / "out", RenderOptions(size=8, images=1, depth_size=8, views=1, points=9))
    assert report.splits == {"train": 2, "val": 0, "test": 0}
    assert (tmp_path / "out" / "03001627_train.list").read_text() == "03001627/1a6f\n"
    packed = ShapenetRenders(categories=("car",), points=5).open("train", 8, context(tmp_path / "out", tmp_path))
    assert packed.names == ["02958343/9c3e/00"]
    with pytest.raises(DataError, match="the folder holds no meshes"):
        find_meshes([tree / "02958343" / "9c3e" / "images"])
    with pytest.raises(DataError, match="no such folder"):
        find_meshes([tmp_path / "nowhere"])


def test_fixed_views_are_the_published_camera_positions():
    """The corners that their code (render/util.py) puts the camera at, in its order."""
    corners = [(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1), (1, 1, -1), (1, -1, 1), (-1, 1, 1), (-1, -1, -1)]
    for view, corner in zip(FIXED_VIEWS, corners, strict=True):
        _, along = rays(view, 2)
        np.testing.assert_allclose(-along, np.array(corner) / np.sqrt(3), atol=1e-5)  # five digits are published
    assert {"chair", "table", "car", "airplane", "mug"} <= set(SYNSETS.values()) and len(SYNSETS) == 55
    assert len(set(SYNSETS.values())) == 55


def test_files_hold_what_the_published_ones_do(rendered):
    files = ObjectFiles.of(rendered, "thing", "box_obj")
    images, depth = np.load(files.images), loadmat(files.novel)
    assert images.shape == (2, 16, 16, 3) and images.dtype == np.uint8
    assert depth["Z"].shape == (3, 32, 32) and depth["trans"].shape == (3, 4)
    assert loadmat(files.fixed)["Z"].shape == (8, 32, 32)
    truth = loadmat(files.truth)
    assert truth["V"].shape == (8, 3) and truth["Vd"].shape == (400, 3)
    # y up, as the released ones: the box has its own sides again.
    np.testing.assert_allclose(truth["V"].max(0), EXTENTS / np.sqrt(14) / 2, rtol=1e-6)
    lines = [(rendered / f"thing_{split}.list").read_text().splitlines() for split in ("train", "val", "test")]
    assert [len(part) for part in lines] == [8, 1, 2] and len({line for part in lines for line in part}) == 11
    assert all(line.startswith("thing/") for part in lines for line in part)
    # Theirs is read with 1 in the background's place, and has the object's middle at 1.
    covered = depth["Z"][depth["Z"] != 0]
    assert covered.min() > 0.5 and covered.max() < 1.5


def test_what_is_written_and_read_is_the_shape(rendered, tmp_path):
    seen = 0
    for split in ("train", "val", "test"):
        packed = ShapenetRenders(points=200).open(split, 16, context(rendered, tmp_path))
        batch = packed.batch(np.arange(0, len(packed), 2))
        assert batch.extra["category"].eq(0).all()
        fields = (batch.extra[key].numpy() for key in ("fixed_depth", "novel_depth", "novel_view", "cloud"))
        for name, fixed, novel, views, cloud in zip(packed.names[::2], *fields, strict=True):
            box = EXTENTS / np.sqrt(14) / 2 if name[10:13] in ("ply", "stl") else BOX
            for view, depth in zip([*FIXED_VIEWS, *views], [*fixed, *novel], strict=True):
                expected, inside = sphere_depth(view, 32) if "sphere" in name else box_depth(view, 32, box)
                # Rays that graze the rim may go either way; a pixel's ray is inside by its own length otherwise.
                clear = inside > (0.02 if "sphere" in name else 1e-3)
                assert (depth[clear] > 0).all() and (depth[inside < -1e-3] == 0).all()
                # Stored steps are 3e-5. The sphere's 20480 flat faces lie up to 5e-5 inside, 1/cos that along the ray.
                tolerance = 6e-4 if "sphere" in name else 4e-5
                np.testing.assert_allclose(depth[clear], expected[clear], atol=tolerance)
                seen += 1
            distance = (
                np.linalg.norm(cloud, axis=1) / RADIUS if "sphere" in name else np.abs(cloud / box).max(1)
            )  # 1 on the surface
            np.testing.assert_allclose(distance, 1, atol=1e-3 if "sphere" in name else 1e-5)
            assert len(np.unique(cloud, axis=0)) == 200
    assert seen == 11 * 11


def test_pictures_are_read_as_they_were_drawn(rendered, tmp_path):
    packed = ShapenetRenders(points=10, novel_views=2).open("test", 16, context(rendered, tmp_path))
    name = packed.names[0].split("/")[1]
    drawn = np.load(rendered / "thing_inputRGB" / f"{name}.npy")
    batch = packed.batch([0, 1])
    assert np.array_equal((batch.image.numpy() * 255).round(), drawn.transpose(0, 3, 1, 2))
    assert batch.extra["novel_depth"].shape == (2, 2, 32, 32)
    smaller = ShapenetRenders(points=10).open("test", 8, context(rendered, tmp_path)).batch([0]).image
    means = drawn[0].reshape(8, 2, 8, 2, 3).mean((1, 3)).transpose(2, 0, 1) / 255
    assert np.abs(smaller[0].numpy() - means).max() < 0.35 and abs(float(smaller.mean()) - means.mean()) < 0.01


def test_the_same_seed_gives_the_same_files(rendered, tmp_path):
    render_meshes([rendered.parent / "meshes"], tmp_path / "again", SMALL)
    names = sorted(path.relative_to(rendered) for path in rendered.rglob("*") if path.is_file())
    assert len(names) == 11 * 4 + 3 + 1
    for name in names:
        if name.suffix == ".mat":  # its heading has the time
            one, other = loadmat(rendered / name), loadmat(tmp_path / "again" / name)
            assert all(np.array_equal(one[key], other[key]) for key in one if key[0] != "_")
        else:
            assert (rendered / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    alone = RenderOptions(**vars(SMALL) | {"test_fraction": 0.0})
    render_meshes([rendered.parent / "meshes" / "sphere.stl"], tmp_path / "alone", alone)
    other = render_meshes(
        [rendered.parent / "meshes" / "sphere.stl"], tmp_path / "b", RenderOptions(**vars(SMALL) | {"seed": 1})
    )
    views = [
        read_novel(folder / "thing_depth" / "sphere.mat")[1]
        for folder in (rendered, tmp_path / "alone", tmp_path / "b")
    ]
    assert other.rendered == 1 and np.array_equal(views[0], views[1]) and not np.array_equal(views[0], views[2])
    one, again = (ShapenetRenders(points=50).open("test", 16, context(f, f)) for f in (rendered, tmp_path / "again"))
    assert one.fingerprint == again.fingerprint
    assert (
        ShapenetRenders(points=50, seed=1).open("test", 16, context(rendered, tmp_path)).fingerprint != one.fingerprint
    )


def published(folder, names, *, category="03001627", truth=True):
    """Files as the released ones, made without the code under test: a sphere in every view."""
    rng = np.random.default_rng(0)
    for name in names:
        quaternions = rng.normal(size=(5, 4))
        quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
        maps = np.stack([sphere_depth(view, 16)[0] for view in (*FIXED_VIEWS, *quaternions)]).astype(np.float32)
        files = ObjectFiles.of(folder, category, name)
        for path in files.paths():
            path.parent.mkdir(parents=True, exist_ok=True)
        np.save(files.images, rng.integers(0, 256, (24, 64, 64, 3), dtype=np.uint8))
        savemat(files.fixed, {"Z": maps[:8]})
        savemat(files.novel, {"Z": maps[8:], "trans": quaternions})
        if truth:
            points = rng.normal(size=(300, 3))
            savemat(files.truth, {"V": points[:9], "Vd": points, "E": [0], "F": [0]})
    return folder


def lists(folder, category="03001627", **splits):
    for split, names in splits.items():
        (folder / f"{category}_{split}.list").write_text("".join(f"{category}/{name}\n" for name in names))


@pytest.mark.parametrize("inside", ["", "data"])
def test_the_released_layout_is_read(tmp_path, inside):
    names = [f"{number:02x}" for number in range(12)]
    folder = published(tmp_path / "root" / inside, [*names, "t1", "t2"], truth=False)
    published(folder, ["t1", "t2"])
    lists(folder, train=names, test=["t1", "t2"])
    (folder / "notes.list").write_text("")
    where = context(tmp_path / "root", tmp_path)
    data = ShapenetRenders(categories=("chair",), points=300, novel_views=4)
    train, val, test = (data.open(split, 64, where) for split in ("train", "val", "test"))
    assert [len(part) for part in (train, val, test)] == [11 * 24, 24, 48]
    assert {name.split("/")[1] for name in train.names} == set(names[:11]) and val.names[0] == "03001627/0b/00"
    batch = test.batch([24])
    assert batch.extra["novel_view"].shape == (1, 4, 4) and batch.extra["fixed_depth"].shape == (1, 8, 16, 16)
    # Their evaluate_dist.py: a prediction (x, y, z) is compared as (x, z, −y) with the model's own coordinates.
    x, y, z = batch.extra["cloud"][0].numpy().T
    truth = loadmat(folder / "03001627_testGT" / "t2.mat")["Vd"]
    ours = np.stack((x, z, -y), 1)
    np.testing.assert_allclose(ours[np.lexsort(ours.T)], truth[np.lexsort(truth.T)], atol=1e-6)
    # Training objects have no true points: theirs are those of the depth maps, on the sphere.
    cloud = train.batch([0]).extra["cloud"][0].numpy()
    np.testing.assert_allclose(np.linalg.norm(cloud, axis=1), RADIUS, atol=1e-5)
    assert abs(cloud.mean(0)).max() < 0.05 and len(train.index.provenance["clouds_from_depth"]) == 11
    assert said(where) == ""


def test_backgrounds_of_blender_and_floats_are_understood(tmp_path):
    folder = published(tmp_path, ["a"])
    files = ObjectFiles.of(folder, "03001627", "a")
    depth = read_fixed(files.fixed)
    savemat(files.fixed, {"Z": np.where(depth > 0, depth, np.where(np.arange(16) % 2, np.inf, 1e10))})
    assert np.array_equal(read_fixed(files.fixed), depth)
    images = read_images(files.images)
    np.save(files.images, images.astype(np.float64))
    assert np.array_equal(read_images(files.images), images)


def damage(files, kind):
    if kind == "missing":
        files.fixed.unlink()
    elif kind == "other keys":
        savemat(files.novel, {"depth": np.ones((5, 16, 16)), "trans": np.ones((5, 4))})
    elif kind == "other size":
        savemat(files.fixed, {"Z": np.ones((8, 9, 9))})
    elif kind == "few views":
        savemat(files.novel, {"Z": np.ones((3, 16, 16)), "trans": np.tile((1.0, 0, 0, 0), (3, 1))})
    elif kind == "no quaternions":
        savemat(files.novel, {"Z": np.ones((5, 16, 16)), "trans": np.zeros((5, 4))})
    elif kind == "nan":
        savemat(files.fixed, {"Z": np.full((8, 16, 16), np.nan)})
    elif kind == "nothing":
        savemat(files.fixed, {"Z": np.zeros((8, 16, 16))})
    elif kind == "npy shape":
        np.save(files.images, np.zeros((24, 64, 32, 3), np.uint8))
    elif kind == "npy count":
        np.save(files.images, np.zeros((7, 64, 64, 3), np.uint8))
    elif kind == "npy values":
        np.save(files.images, np.full((24, 64, 64, 3), 300.0))
    elif kind == "pickle":
        np.save(files.images, np.array([{}]), allow_pickle=True)
    elif kind == "half":
        files.novel.write_bytes(files.novel.read_bytes()[:700])
    elif kind == "cloud":
        savemat(files.truth, {"Vd": np.ones((4, 2))})


DAMAGE = {
    "missing": "a.mat: is missing", "other keys": "has no 'Z'", "other size": r"holds \(8, 9, 9\)",
    "few views": r"holds \(3, 16, 16\) pictures, unlike most objects", "no quaternions": "length is not 1",
    "nan": "depths below 0 or that are no numbers", "nothing": "shows no object", "npy shape": r"\(24, 64, 32, 3\)",
    "npy count": "holds 7 pictures, unlike most", "npy values": "beyond 0 … 255", "pickle": "cannot be read",
    "half": "cannot be read", "cloud": r"holds \(4, 2\) as Vd",
}  # fmt: skip


def test_bad_objects_are_named_and_left_out(tmp_path):
    names = ["a", "b", "c", "d"]
    for kind, message in DAMAGE.items():
        folder = published(tmp_path / kind, names)
        lists(folder, train=names, val=["a"], test=["a"])
        damage(ObjectFiles.of(folder, "03001627", "a"), kind)
        if "unlike most" not in message:
            with pytest.raises(DataError, match="none of the 1 objects of the split 'test' can be used: 03001627/a"):
                ShapenetRenders(points=10).open("test", 64, context(folder, tmp_path))
        lists(folder, train=names, val=[], test=[])
        where = context(folder, tmp_path)
        packed = ShapenetRenders(points=10).open("train", 64, where)
        assert len(packed) == 3 * 24 and not any("/a/" in name for name in packed.names)
        assert "1 objects skipped: 03001627/a: " in said(where) and re.search(message, said(where)), (kind, said(where))
        again = context(folder, tmp_path)
        ShapenetRenders(points=10).open("train", 64, again)
        assert said(again) == said(where)  # from the cache, too


def test_lists_that_are_wrong(tmp_path):
    folder = published(tmp_path / "a", ["a", "b", "c"])
    lists(folder, train=["a", "gone", "b", "a", "c"], test=["b"], val=["c"])
    with (folder / "03001627_train.list").open("a") as file:
        file.write("02958343/other\n03001627/../../x\n")
    where = context(folder, tmp_path)
    packed = ShapenetRenders(points=10).open("train", 64, where)
    assert {name.split("/")[1] for name in packed.names} == {"a"}
    assert "5 objects skipped" in said(where) and "other" in said(where)
    reasons = {item["name"]: item["reason"] for item in packed.index.provenance["skipped"]}
    assert reasons["03001627/b"] == reasons["03001627/c"] == "another split's list names it too"
    assert "is missing" in reasons["03001627/gone"] and any("../../x" in name for name in reasons)
    lists(folder, val=[])
    with pytest.raises(MissingSplit, match="has no objects of the split 'val'"):
        ShapenetRenders().open("val", 64, context(folder, tmp_path))
    with pytest.raises(DataError, match=r"no lists of the category 'chiar'.*nearest is 'chair'"):
        ShapenetRenders(categories=("chiar",)).open("train", 64, context(folder, tmp_path))
    with pytest.raises(DataError, match="there are 5 random views of an object, not 6"):
        ShapenetRenders(novel_views=6).open("train", 64, context(folder, tmp_path))
    with pytest.raises(DataError, match="holds no lists"):
        ShapenetRenders().open("train", 64, context(tmp_path, tmp_path))
    with pytest.raises(DataError, match="needs a folder"):
        ShapenetRenders().open("train", 64, context(None, tmp_path))
    with pytest.raises(DataError, match=r"dataset\.points.*0 is outside"):
        ShapenetRenders(points=0)


def test_the_cache_follows_the_files(tmp_path):
    folder = published(tmp_path / "a", ["a", "b"])
    lists(folder, train=["a"], val=["b"], test=["b"])
    first = ShapenetRenders(points=10).open("train", 64, context(folder, tmp_path))
    assert ShapenetRenders(points=10).open("train", 64, context(folder, tmp_path)).folder == first.folder
    path = ObjectFiles.of(folder, "03001627", "a").images
    np.save(path, 255 - np.load(path))
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000))
    changed = ShapenetRenders(points=10).open("train", 64, context(folder, tmp_path))
    assert changed.folder != first.folder and changed.fingerprint != first.fingerprint


def test_views_drawn_in_parts_are_those_drawn_at_once(tmp_path, monkeypatch):
    made = read_mesh(write_box(tmp_path / "a.ply"))
    tensors = (torch.from_numpy(made.vertices).float(), torch.from_numpy(made.faces))
    colours, views = torch.from_numpy(made.colours).float(), torch.tensor(FIXED_VIEWS)
    whole = depth_views(*tensors, views, 16), colour_views(*tensors, colours, views, 16)
    monkeypatch.setattr("recon_object_views.render._AT_ONCE", 3 * 32 * 32)
    parts = depth_views(*tensors, views, 16), colour_views(*tensors, colours, views, 16)
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one.depth, other.depth) and torch.equal(one.mask, other.mask)
    # Products of matrices may be added up in another order in another batch: a few steps of float32.
    torch.testing.assert_close(whole[1].image, parts[1].image, atol=1e-6, rtol=0)


@pytest.fixture
def app():
    made = typer.Typer()
    made.command("render-views")(render_views)
    made.command("other")(lambda: None)
    return made


COMMAND = ["--size", "8", "--images", "1", "--depth-size", "8", "--views", "1", "--points", "9"]


def test_the_command_goes_on_after_bad_meshes_and_says_so(tmp_path, app):
    for name in ("a", "b", "c"):
        write_box(tmp_path / "in" / f"{name}.ply")
    (tmp_path / "in" / "bad.obj").write_bytes(BAD["nan.obj"][0])
    out = tmp_path / "out"

    def run(*words):
        return CliRunner().invoke(app, ["render-views", *map(str, words), *COMMAND])

    result = run(tmp_path / "in", tmp_path / "gone.obj", "--out", out, "--json")
    assert result.exit_code == 3, result.output
    assert "bad.obj was skipped: 1 vertices" in result.stderr and "gone.obj was skipped: no such file" in result.stderr
    report = json.loads(result.stdout)
    assert report["rendered"] == 3 and len(report["failed"]) == 2 and sum(report["splits"].values()) == 3
    refused = run(tmp_path / "in", "--out", out)
    assert isinstance(refused.exception, DataError) and "is not empty" in str(refused.exception)

    # An object without one of its files is drawn again, the others are kept; a repaired mesh comes in.
    kept = out / "objects_depth" / "a.mat"
    before = kept.stat().st_mtime_ns
    (out / "objects_testGT" / "b.mat").unlink()
    write_box(tmp_path / "in" / "bad.obj")
    result = run(tmp_path / "in", "--out", out, "--resume")
    assert result.exit_code == 0 and "4 objects in" in result.stdout and "2 of them kept" in result.stdout
    assert kept.stat().st_mtime_ns == before and read_truth(out / "objects_testGT" / "b.mat").shape == (9, 3)
    other = run(tmp_path / "in", "--out", out, "--resume", "--seed", "3")
    assert "other options: seed was 0, is 3" in str(other.exception)

    none = run(tmp_path / "gone.obj", "--out", tmp_path / "none")
    assert isinstance(none.exception, DataError) and none.exception.exit_code == 2
    assert "none of the 1 meshes can be used" in str(none.exception)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("")
    assert "render-views did not write it" in str(run(tmp_path / "in", "--out", foreign, "--resume").exception)


def test_a_place_that_cannot_be_written_ends_the_work_and_loses_none(tmp_path):
    write_box(tmp_path / "in" / "a.ply")
    write_box(tmp_path / "in" / "b.ply")
    render_meshes([tmp_path / "in"], tmp_path / "out", SMALL)
    write_box(tmp_path / "in" / "c.ply")
    (tmp_path / "out" / "thing_inputRGB").rename(tmp_path / "aside")
    (tmp_path / "out" / "thing_inputRGB").write_text("not a folder")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    with pytest.raises(DataError, match=r"thing_inputRGB.*cannot be written"):
        render_meshes([tmp_path / "in"], tmp_path / "out", SMALL, resume=True)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    (tmp_path / "out" / "thing_inputRGB").unlink()
    (tmp_path / "aside").rename(tmp_path / "out" / "thing_inputRGB")
    report = render_meshes([tmp_path / "in"], tmp_path / "out", SMALL, resume=True)
    assert (report.rendered, report.kept, report.splits) == (1, 2, {"train": 1, "val": 1, "test": 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 4}, "--size: 4 is outside 8"),
        ({"test_fraction": 0.8, "val_fraction": 0.3}, "--val-fraction"),
        ({"up": "x"}, "--up: 'x' is no axis"),
        ({"category": "a/b"}, "cannot be part of a file's name"),
        ({"elevation": (50, 20)}, "--elevation: 20 is outside 50"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(DataError, match=message):
        RenderOptions(**options)
