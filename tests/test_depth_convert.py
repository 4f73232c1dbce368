"""`recon convert` of depth maps, against closed forms and trimesh."""

import numpy as np
import pytest
import trimesh
from PIL import Image

from recon_toolkit.cli.app import execute
from recon_toolkit.io.shape_files import read_shape, write_shape
from recon_toolkit.shapes.forms import Mesh
from recon_toolkit.shapes.printable import check_printable


def run(*words, code=0):
    assert execute(["convert", *map(str, words)]) == code


def plane_map(height=24, width=32, far=2.0):
    """A slanted plane, in metres: 1/z is linear in the picture, so that every point of it is known."""
    u = np.linspace(-1, 1, width)
    return np.tile(1 / (0.75 - 0.25 * u * (1 - 1 / far)), (height, 1))


def write_depth(path, depth):
    """A depth map in metres as each kind of file."""
    if path.suffix == ".png":
        Image.fromarray(np.round(depth * 1000).astype(np.uint16)).save(path)
    elif path.suffix == ".tif":
        Image.fromarray(depth.astype(np.float32)).save(path)
    elif path.suffix == ".npy":
        np.save(path, depth)
    elif path.suffix == ".npz":
        np.savez(path, depth=depth)
    elif path.suffix == ".pfm":
        height, width = depth.shape
        path.write_bytes(f"Pf\n{width} {height}\n-1.0\n".encode() + depth[::-1].astype("<f4").tobytes())
    else:
        openexr = pytest.importorskip("OpenEXR")
        header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
        openexr.File(header, {"Z": np.ascontiguousarray(depth, np.float32)}).write(str(path))
    return path


def seen(depth, fov):
    """All points (N, 3) of a depth map, x right, y up, z towards the viewer; fov is horizontal, pixels are centres."""
    height, width = depth.shape
    focal = (width - 1) / 2 / np.tan(np.radians(fov) / 2)
    y, x = np.mgrid[:height, :width]
    x, y = (x - (width - 1) / 2) / focal, ((height - 1) / 2 - y) / focal
    return np.stack((x * depth, y * depth, -depth), axis=-1).reshape(-1, 3)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy", ".npz", ".pfm", ".exr"])
def test_a_depth_map_becomes_the_surface_that_it_shows(suffix, tmp_path, capsys):
    depth = plane_map()
    source = write_depth(tmp_path / f"in{suffix}", depth)
    run(source, tmp_path / "a.glb", tmp_path / "a.ply", tmp_path / "a.xyz", "--fov", 50)
    expected = seen(depth, 50)
    # PNG has millimetres, the others 32-bit floats.
    tolerance = 1e-3 if suffix == ".png" else 1e-5
    for name in ("a.glb", "a.ply"):
        mesh = trimesh.load(tmp_path / name, force="mesh", process=False)
        vertices = mesh.vertices if name == "a.glb" else mesh.vertices[:, (0, 2, 1)] * (1, 1, -1)  # z up there
        np.testing.assert_allclose(vertices, expected, atol=tolerance)
        assert len(mesh.faces) == 2 * 23 * 31
        outward = mesh.face_normals if name == "a.glb" else mesh.face_normals[:, (0, 2, 1)] * (1, 1, -1)
        assert (outward[:, 2] > 0).all()
    points = read_shape(tmp_path / "a.xyz").points
    np.testing.assert_allclose(points[:, (0, 2, 1)] * (1, 1, -1), expected, atol=tolerance)
    assert ("taken as millimetres" in capsys.readouterr().err) == (suffix == ".png")


def test_a_photograph_is_the_texture_and_the_colours(tmp_path):
    depth = np.full((24, 32), 2.0)
    source = write_depth(tmp_path / "in.npy", depth)
    photo = np.zeros((48, 64, 3), np.uint8)
    photo[..., 0], photo[..., 1] = np.arange(64) * 4, np.arange(48)[:, None] * 5
    Image.fromarray(photo).save(tmp_path / "photo.png")
    names = [tmp_path / name for name in ("a.glb", "a.obj", "a.ply")]
    run(source, *names, "--photo", tmp_path / "photo.png", "--fov", 40)
    run(source, tmp_path / "cloud.ply", "--as", "cloud", "--photo", tmp_path / "photo.png", "--fov", 40)
    # Pixel (u, v) of the map covers four of the photograph, whose mean is at their common corner.
    v, u = np.mgrid[:24, :32]
    expected = np.stack(((2 * u + 0.5) * 4, (2 * v + 0.5) * 5), axis=-1).reshape(-1, 2)
    for path in (*names, tmp_path / "cloud.ply"):
        loaded = trimesh.load(path, process=False) if path.suffix == ".ply" else loaded_mesh(path)
        if path.suffix == ".ply":
            colours = np.asarray(loaded.colors if path.stem == "cloud" else loaded.visual.vertex_colors)[:, :2]
            np.testing.assert_allclose(colours, expected, atol=1)  # a byte
        else:
            places = loaded.visual.uv * (64, -48) + (0, 48)  # pixels from the photograph's corner
            np.testing.assert_allclose(places, np.stack((2 * u + 1, 2 * v + 1), axis=-1).reshape(-1, 2), atol=1e-3)
    tree = trimesh.load_scene(names[0]).geometry
    assert [mesh.visual.material.metallicFactor for mesh in tree.values()] == [0]


def loaded_mesh(path):
    (mesh,) = trimesh.load_scene(path, process=False).geometry.values()
    return mesh


def test_no_surface_where_there_is_no_depth_or_a_jump(tmp_path):
    depth = plane_map(24, 32)
    depth[0, :4], depth[1, 0], depth[2, 0] = 0, np.nan, np.inf
    near = np.zeros(depth.shape, bool)
    near[8:16, 10:20] = True
    depth[near] = 0.6
    run(write_depth(tmp_path / "in.npy", depth), tmp_path / "a.ply", tmp_path / "a.xyz", "--fov", 60)
    mesh = trimesh.load(tmp_path / "a.ply", process=False)
    labels = np.isclose(mesh.vertices[:, 1], 0.6, atol=1e-5)[mesh.faces]
    assert (labels.all(axis=1) | ~labels.any(axis=1)).all() and labels.all(axis=1).sum() == 2 * 7 * 9
    assert mesh.body_count == 2
    assert len(read_shape(tmp_path / "a.xyz").points) == depth.size - 6


def test_a_solid_of_a_depth_map_is_for_printing(tmp_path, capsys):
    source = write_depth(tmp_path / "in.png", plane_map())
    run(source, tmp_path / "a.stl", tmp_path / "a.3mf", "--fov", 30, "--height", 80)
    assert capsys.readouterr().out.count("mm, watertight") == 2
    for name in ("a.stl", "a.3mf"):
        found = read_shape(tmp_path / name)
        assert check_printable(found).printable
        low, high = found.bounds
        assert high[1] - low[1] == pytest.approx(80, rel=1e-5) and low[2] == pytest.approx(0, abs=1e-5)


def test_what_integers_mean_is_said_or_asked(tmp_path, capsys):
    source = write_depth(tmp_path / "in.png", plane_map())
    run(source, tmp_path / "a.xyz", tmp_path / "b.glb", "--depth-scale", 0.01)
    assert "millimetres" not in capsys.readouterr().err
    farthest = 10 * plane_map().max()  # a metre is 1000, of which each is 0.01
    assert read_shape(tmp_path / "a.xyz").points[:, 1].max() == pytest.approx(farthest, rel=1e-3)
    Image.fromarray(np.full((8, 8), 99, np.uint8)).save(tmp_path / "grey.png")
    run(tmp_path / "grey.png", tmp_path / "c.glb", code=2)
    assert "--depth-scale" in capsys.readouterr().err
    run(tmp_path / "grey.png", tmp_path / "c.xyz", "--depth-scale", 0.01)
    assert read_shape(tmp_path / "c.xyz").points[:, 1] == pytest.approx(0.99)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["in.npy", "a.glb", "--fov", "180"], "between 0 and 180"),
        (["in.npy", "a.glb", "--depth-scale", "0"], "a scale is above 0"),
        (["in.npy", "a.glb", "--photo", "tall.png"], "is 10 × 90, and the depth map 32 × 24"),
        (["in.npy", "a.glb", "--photo", "none.png"], "none.png: no such file"),
        (["box.stl", "a.glb", "--fov", "10"], "is no depth map"),
        (["zero.npy", "a.glb"], "holds no depth above 0"),
        (["in.npy", "zero.npy", "--to", "glb", "--photo", "tall.png"], "of one depth map"),
    ],
)
def test_what_is_wrong_with_a_depth_map_is_one_message(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("in.npy", plane_map())
    np.save("zero.npy", np.zeros((24, 32)))
    Image.new("RGB", (10, 90)).save("tall.png")
    made = trimesh.creation.box((1, 2, 3))
    write_shape("box.stl", Mesh(made.vertices, made.faces))
    run(*words, code=2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a.glb").exists()
