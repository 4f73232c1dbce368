"""Meshes to take away: finer than the depth map, trimmed, closed for printing, and read back by other programs."""

from __future__ import annotations

import json
import math
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from recon_toolkit.errors import DataError
from recon_toolkit.geometry.camera import Camera
from recon_toolkit.io.mesh_files import MESH_SUFFIXES, glb_bytes, write_mesh
from recon_toolkit.shapes.mesh import TexturedMesh, mesh_from_depth, scaled
from recon_toolkit.shapes.printable import solid
from recon_toolkit.shapes.surface import object_mask

CAMERA = Camera(10.0)
SIZE = 32
HALF = math.tan(math.radians(5))  # half the picture's width at depth 1
RADIUS = 0.2  # of a sphere about (0, 0, 1) that is larger than the picture


def rays(size: int) -> tuple[Tensor, Tensor]:
    """x/z and y/z of the pixels, (size, size) each."""
    y, x = torch.meshgrid(*(torch.linspace(-HALF, HALF, size, dtype=torch.float64),) * 2, indexing="ij")
    return x, y


def sphere(size: int = SIZE) -> Tensor:
    """Depth where each ray meets the sphere first: z with |z·(x, y, 1) − (0, 0, 1)| = radius."""
    x, y = rays(size)
    a = x**2 + y**2 + 1
    return (1 - (1 - a * (1 - RADIUS**2)).sqrt()) / a


def hill(size: int = SIZE) -> Tensor:
    """A hill left of and above the middle, its top towards the camera."""
    x, y = (values / HALF for values in rays(size))
    return 1.05 - 0.1 * torch.exp(-4 * ((x + 0.3) ** 2 + (y + 0.2) ** 2))


def disc(radius: float, size: int = SIZE) -> Tensor:
    """Pixels whose centres lie within a circle about the middle of the picture."""
    x, y = (values / HALF * (size - 1) / 2 for values in rays(size))
    return x**2 + y**2 < radius**2


def ramp(size: int) -> Tensor:
    """A texture whose red rises by 0.8 from left to right, and green downwards, between the outermost centres."""
    across = torch.linspace(0.1, 0.9, size).expand(size, size)
    return torch.stack((across, across.T, torch.full((size, size), 0.5)))


def as_trimesh(mesh: TexturedMesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


def rim_loops(mesh: TexturedMesh) -> tuple[np.ndarray, np.ndarray]:
    """The vertices on the rim, and how many edges of the rim each has."""
    edges = np.sort(mesh.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    edges, counts = np.unique(edges, axis=0, return_counts=True)
    assert counts.max() <= 2
    return np.unique(edges[counts == 1], return_counts=True)


@pytest.mark.parametrize("detail", [1, 2, 3])
def test_detail_keeps_the_pixels_and_follows_the_surface(detail: int) -> None:
    fine = (SIZE - 1) * detail + 1
    grid = mesh_from_depth(sphere(), CAMERA, detail=detail).vertices.reshape(fine, fine, 3)
    native = mesh_from_depth(sphere(), CAMERA).vertices.reshape(SIZE, SIZE, 3)
    np.testing.assert_allclose(grid[::detail, ::detail], native, atol=1e-12)  # rounding of 1/(1/z)
    # In the mesh's frame the sphere is about the origin, of radius RADIUS/HALF. A cubic through pixels h apart is off
    # by about h⁴/100 times the fourth derivative, which is below 3/r³ here; at the picture's border by h².
    radius = np.linalg.norm(grid[2 * detail : -2 * detail, 2 * detail : -2 * detail], axis=2)
    assert np.abs(radius - RADIUS / HALF).max() < 1e-5
    assert np.abs(np.linalg.norm(grid, axis=2) - RADIUS / HALF).max() < 2e-3


def test_normals_are_the_surfaces_up_to_the_border() -> None:
    mesh = mesh_from_depth(sphere(), CAMERA, detail=2)
    angle = np.degrees(np.arccos((mesh.normals * mesh.vertices).sum(1) / np.linalg.norm(mesh.vertices, axis=1)))
    # Differences across a step h of a sphere: exact in the middle, h/2r = 1.2° off where they are one-sided.
    assert angle.max() < 2 and np.median(angle) < 0.2


def test_a_plane_stays_a_plane_at_any_detail() -> None:
    x, y = rays(SIZE)
    plane = 1 / (1 + 0.8 * x - 0.5 * y)  # z + 0.8 X − 0.5 Y = 1
    mask = disc(11)
    depth = plane.where(mask, 1.2)  # another depth beyond the mask must not bend it
    for kept in (None, mask):
        mesh = mesh_from_depth(plane if kept is None else depth, CAMERA, mask=kept, detail=3)
        places = mesh.vertices * HALF  # back in units of the object's distance: x, −y, 1 − z
        np.testing.assert_allclose(-places[:, 2] + 0.8 * places[:, 0] + 0.5 * places[:, 1], 0, atol=1e-12)
        assert np.ptp(mesh.normals, axis=0).max() < 1e-9


def test_the_outline_of_a_mask_is_smooth() -> None:
    mesh = mesh_from_depth(torch.ones(SIZE, SIZE), CAMERA, mask=disc(10.0), detail=2)
    pixels = mesh.vertices[:, :2] * (SIZE - 1) / 2
    rim, counts = rim_loops(mesh)
    assert (counts == 2).all()
    radius = np.linalg.norm(pixels[rim], axis=1)
    # Pixels are squares about their centres, so a circle of pixels is 10 ± 0.5; its steps would spread over ± 0.7.
    assert radius.min() > 9.4 and radius.max() < 10.6 and radius.std() < 0.2
    area = as_trimesh(mesh).area * ((SIZE - 1) / 2) ** 2
    assert area == pytest.approx(float(disc(10.0).sum()), rel=0.02)  # one a pixel; smoothing bends the circle inwards


def test_texture_coordinates_stay_in_the_picture() -> None:
    mesh = mesh_from_depth(sphere(), CAMERA, mask=disc(12), detail=2)
    assert mesh.texture_coordinates.min() >= 0 and mesh.texture_coordinates.max() <= 1
    whole = mesh_from_depth(sphere(), CAMERA, detail=2)
    places = whole.texture_places(256, 128)
    assert places[0].tolist() == pytest.approx([0.5 / 128, 1 - 0.5 / 256])  # the centre of the upper left texel
    assert places[-1].tolist() == pytest.approx([1 - 0.5 / 128, 0.5 / 256])


def head(size: int = 64) -> tuple[Tensor, Tensor]:
    """A head before a flat back with noise, and where the head is."""
    x, y = (values / HALF for values in rays(size))
    inside = 1 - (x / 0.7) ** 2 - (y / 0.85) ** 2
    depth = 1.08 - 0.12 * inside.clamp(min=0).sqrt()
    noise = torch.rand(size, size, generator=torch.Generator().manual_seed(3)).double()
    return depth + 0.004 * noise, inside > 0


def test_trimming_removes_the_background_and_keeps_the_head() -> None:
    depth, inside = head()
    mesh = mesh_from_depth(depth, CAMERA, detail=2, trim=True)
    pixels = mesh.vertices * (1 / (1 - mesh.vertices[:, 2:] * HALF))  # where the camera sees them, in [−1, 1]
    assert (np.abs(pixels[:, 0]) < 0.78).all() and (np.abs(pixels[:, 1]) < 0.93).all()
    share = len(mesh.vertices) / len(mesh_from_depth(depth, CAMERA, detail=2).vertices)
    assert share == pytest.approx(float(inside.double().mean()), rel=0.1)
    rim, counts = rim_loops(mesh)
    assert (counts == 2).all()
    angle = np.arctan2(pixels[rim, 1], pixels[rim, 0])
    assert np.diff(np.sort(angle)).max() < 0.2  # it runs all around, and once: no holes
    steps = np.abs(np.diff(np.hypot(pixels[rim, 0] / 0.7, pixels[rim, 1] / 0.85)[np.argsort(angle)]))
    assert steps.max() < 0.06  # a step of a pixel would be 0.04, and noise would leave spikes of several
    assert len(mesh_from_depth(depth, CAMERA, trim=True).faces) < 2 * 63**2


def test_trimming_leaves_what_has_no_background() -> None:
    flat = torch.ones(SIZE, SIZE)
    assert len(mesh_from_depth(flat, CAMERA, trim=True).faces) == 2 * (SIZE - 1) ** 2
    # A face that fills the picture loses nothing of its nearer half.
    depth, _ = head()
    near = depth < (depth.min() + depth.max()) / 2
    trimmed = mesh_from_depth(depth, CAMERA, mask=near, trim=True)
    whole = mesh_from_depth(depth, CAMERA, mask=near)
    assert len(trimmed.faces) > 0.7 * len(whole.faces)


def holed() -> Tensor:
    """A large piece with two holes, one of them no star; a small piece; and corners that only touch."""
    mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    mask[2:28, 3:25] = True
    mask[6:9, 6:9] = False
    mask[12:20, 8:10] = mask[18:20, 8:18] = mask[12:14, 8:18] = False  # a C
    mask[20:23, 20:23] = mask[23:26, 23:26] = False  # touch each other, and the second touches the rim
    mask[28:31, 25:29] = True  # touches the large piece at a corner
    mask[4:9, 27:31] = True
    return mask


def pierced() -> Tensor:
    """The same with an eighth of the pixels missing."""
    return holed() & (torch.rand(SIZE, SIZE, generator=torch.Generator().manual_seed(5)) > 0.12)


MASKS = {"whole": None, "disc": disc(11), "holed": holed(), "pierced": pierced()}


@pytest.mark.parametrize("detail", [1, 2])
@pytest.mark.parametrize("name", MASKS)
def test_solids_are_watertight(name: str, detail: int, tmp_path: Path) -> None:
    surface = mesh_from_depth(hill(), CAMERA, mask=MASKS[name], detail=detail)
    closed = solid(surface, height=60.0)
    write_mesh(tmp_path / "a.stl", closed, None)
    for mesh in (as_trimesh(closed), trimesh.load(tmp_path / "a.stl")):  # a reader of STL joins corners by their place
        assert mesh.is_watertight and mesh.is_winding_consistent and mesh.is_volume
        assert mesh.volume > 0 and mesh.euler_number == 2 and mesh.body_count == 1
        assert mesh.extents[1] == pytest.approx(60, rel=1e-6)  # float32
    bottom = closed.vertices[:, 2].min()
    resting = closed.vertices[:, 2] < bottom + 1e-9
    assert resting.sum() * 2 == len(closed.vertices)  # it lies flat on its back
    assert (as_trimesh(closed).face_normals[resting[closed.faces].all(axis=1)][:, 2] < -0.999).all()


def test_a_solids_volume_is_that_between_surface_and_back() -> None:
    # Along the lines of sight from z = 1 to 1 + t: a frustum of square sections, in units of half the width at 1.
    for detail in (1, 3):
        closed = solid(mesh_from_depth(torch.ones(SIZE, SIZE), CAMERA, detail=detail), thickness=0.5)
        back = 1 + 0.5 * HALF
        expected = 4 / 3 * (back**3 - 1) / HALF
        assert as_trimesh(closed).volume == pytest.approx(expected, rel=1e-9)


def test_holes_of_a_solid_are_filled_flat() -> None:
    full = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    full[3:28, 3:25] = True
    pierced = full.clone()
    pierced[6:9, 6:9] = False
    pierced[12:20, 8:10] = pierced[18:20, 8:18] = pierced[12:14, 8:18] = False  # a C, which is no star
    volumes = [
        as_trimesh(solid(mesh_from_depth(torch.ones(SIZE, SIZE), CAMERA, mask=mask))).volume for mask in (full, pierced)
    ]
    assert volumes[0] == pytest.approx(volumes[1], rel=1e-9)


def test_a_solid_needs_an_open_surface() -> None:
    surface = mesh_from_depth(hill(), CAMERA)
    with pytest.raises(ValueError, match="thickness"):
        solid(surface, thickness=0)
    with pytest.raises(DataError, match="closed already"):
        solid(solid(surface))
    with pytest.raises(ValueError, match="height"):
        scaled(surface, -1)
    with pytest.raises(ValueError, match="detail"):
        mesh_from_depth(hill(), CAMERA, detail=0)


def loaded(path: Path) -> trimesh.Trimesh:
    """The one mesh of a file, as it stands there (``force="mesh"`` would make normals of its own)."""
    scene = trimesh.load_scene(path, process=False)
    (mesh,) = scene.geometry.values()
    return mesh


@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
def test_files_read_back_the_right_way_round(suffix: str, tmp_path: Path) -> None:
    surface = mesh_from_depth(hill(), CAMERA, mask=disc(13), detail=2)
    path = tmp_path / f"a{suffix}"
    written = write_mesh(path, surface, ramp(64))
    assert set(written) == set(tmp_path.iterdir())
    mesh = loaded(path)
    top = mesh.vertices[mesh.vertices[:, 2].argmax()]
    assert top[0] < -0.2 and top[1] > 0.1 and top[2] > 0.4  # the hill: left, up and towards the viewer
    assert (mesh.face_normals[:, 2] > 0).all()  # anticlockwise from the viewer
    if suffix == ".stl":
        assert mesh.faces.shape == surface.faces.shape
        return
    assert np.array_equal(mesh.faces, surface.faces)
    # float32 in binary files, six digits (five for normals) in OBJ.
    np.testing.assert_allclose(mesh.vertices, surface.vertices, atol=2e-6)
    np.testing.assert_allclose(mesh.vertex_normals, surface.normals, atol=2e-5)


@pytest.mark.parametrize("size", [SIZE, 256])
@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply"])
def test_each_point_wears_its_colour(suffix: str, size: int, tmp_path: Path) -> None:
    surface = mesh_from_depth(torch.ones(SIZE, SIZE), CAMERA, mask=disc(13), detail=2)
    write_mesh(tmp_path / f"a{suffix}", surface, ramp(size))
    mesh = loaded(tmp_path / f"a{suffix}")
    colours = (mesh.visual if suffix == ".ply" else mesh.visual.to_color()).vertex_colors[:, :3] / 255
    expected = np.stack((mesh.vertices[:, 0], -mesh.vertices[:, 1]), axis=1) * 0.4 + 0.5
    # Half a step of 8 bits where colours are interpolated; trimesh takes the nearest texel of a picture, which is off
    # by half a texel, and JPEG by some levels.
    tolerance = 0.5 / 255 if suffix == ".ply" else 0.5 / 255 + 0.4 / (size - 1) + 3 / 255
    np.testing.assert_allclose(colours[:, :2], expected, atol=tolerance + 1e-6)
    assert np.abs((colours[:, :2] - expected).mean(axis=0)).max() < 1.5 / 255  # and by no shift


def test_a_glb_keeps_to_the_format(tmp_path: Path) -> None:
    """What Khronos' validator checks of such a file, in short; it found nothing when it was last asked."""
    surface = mesh_from_depth(hill(), CAMERA)
    data = write_mesh(tmp_path / "a.glb", surface, ramp(16), picture="png")[0].read_bytes()
    assert data == glb_bytes(surface, ramp(16), picture="png")  # the same every time
    assert struct.unpack("<4sII", data[:12]) == (b"glTF", 2, len(data))
    length, kind = struct.unpack("<I4s", data[12:20])
    assert kind == b"JSON" and length % 4 == 0
    tree = json.loads(data[20 : 20 + length])
    size, kind = struct.unpack("<I4s", data[20 + length : 28 + length])
    assert kind == b"BIN\0" and size == len(data) - 28 - length == tree["buffers"][0]["byteLength"]
    body = data[28 + length :]
    views = tree["bufferViews"]
    for before, after in pairwise(views):
        assert after["byteOffset"] % 4 == 0 and after["byteOffset"] >= before["byteOffset"] + before["byteLength"]
    assert views[-1]["byteOffset"] + views[-1]["byteLength"] <= size
    (primitive,) = tree["meshes"][0]["primitives"]
    position = tree["accessors"][primitive["attributes"]["POSITION"]]
    view = views[position["bufferView"]]
    points = np.frombuffer(body, "<f4", 3 * position["count"], view["byteOffset"]).reshape(-1, 3)
    assert position["min"] == points.min(axis=0).tolist() and position["max"] == points.max(axis=0).tolist()
    material = tree["materials"][primitive["material"]]
    assert material["doubleSided"] and material["pbrMetallicRoughness"]["metallicFactor"] == 0
    assert material["pbrMetallicRoughness"]["roughnessFactor"] == 1
    image = views[tree["images"][0]["bufferView"]]
    assert body[image["byteOffset"] :].startswith(b"\x89PNG")


def test_a_large_glb_counts_beyond_16_bits(tmp_path: Path) -> None:
    write_mesh(tmp_path / "a.glb", mesh_from_depth(torch.ones(257, 257), CAMERA), ramp(8))
    mesh = loaded(tmp_path / "a.glb")
    assert len(mesh.vertices) == 257**2 and mesh.faces.max() == 257**2 - 1
    assert mesh.area == pytest.approx(4, rel=1e-5)


@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
def test_a_height_is_written_in_the_formats_unit(suffix: str, tmp_path: Path) -> None:
    write_mesh(tmp_path / f"a{suffix}", mesh_from_depth(hill(), CAMERA), ramp(8), height_mm=240.0)
    expected = 0.24 if suffix == ".glb" else 240.0  # glTF counts metres
    assert loaded(tmp_path / f"a{suffix}").extents[1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["two words", "a.b.c", "портрет", "写真 1", "100%", "#1", "-o"])
@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
def test_any_name_will_do(suffix: str, name: str, tmp_path: Path) -> None:
    surface = mesh_from_depth(hill(8), CAMERA)
    write_mesh(tmp_path / f"{name}{suffix}", surface, ramp(8))
    mesh = loaded(tmp_path / f"{name}{suffix}")
    assert len(mesh.faces) == len(surface.faces)
    if suffix == ".obj":
        assert mesh.visual.material.image.size == (8, 8)  # found by the names inside
        assert (tmp_path / f"{name}{suffix}").read_bytes().isascii()
        write_mesh(tmp_path / f"{name[::-1]}x{suffix}", surface, ramp(16))
        assert loaded(tmp_path / f"{name}{suffix}").visual.material.image.size == (8, 8)  # not overwritten


@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
def test_without_a_texture_the_surface_is_plain(suffix: str, tmp_path: Path) -> None:
    surface = mesh_from_depth(hill(), CAMERA, mask=object_mask(hill()))
    write_mesh(tmp_path / f"a{suffix}", surface, None)
    assert len(loaded(tmp_path / f"a{suffix}").faces) == len(surface.faces)


def test_what_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    surface = mesh_from_depth(hill(8), CAMERA)
    with pytest.raises(DataError, match=r"'\.fbx'"):
        write_mesh(tmp_path / "a.fbx", surface, ramp(8))
    with pytest.raises(DataError, match=r"nearest is '\.glb'"):
        write_mesh(tmp_path / "a.gltb", surface, ramp(8))
    (tmp_path / "file").write_text("in the way")
    for suffix in MESH_SUFFIXES:
        with pytest.raises(DataError, match="cannot be written"):
            write_mesh(tmp_path / "file" / f"a{suffix}", surface, ramp(8))
    with pytest.raises(ValueError, match="jpeg or png"):
        write_mesh(tmp_path / "a.glb", surface, ramp(8), picture="gif")
