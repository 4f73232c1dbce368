"""Exported files, read back by other programs' readers."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from torch import Tensor

from recon_toolkit.data.decode import read_depth
from recon_toolkit.errors import DataError
from recon_toolkit.files import writing
from recon_toolkit.geometry.camera import Camera, normals_from_depth
from recon_toolkit.io.contact_sheet import contact_sheet, data_overview, overview
from recon_toolkit.io.maps import depth_picture, normals_picture, to_bytes, write_dataset, write_depth_png, write_maps
from recon_toolkit.io.mesh_files import write_obj
from recon_toolkit.shapes.mesh import mesh_from_depth
from recon_toolkit.shapes.surface import object_mask
from recon_toolkit.structures import Batch, Reconstruction

CAMERA = Camera(10.0)
SIZE = 16


def hill(size: int = SIZE) -> Tensor:
    """A depth map (size, size) with a hill left of the middle, its top towards the camera."""
    v, u = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    return 1.05 - 0.1 * torch.exp(-4 * ((u + 0.3) ** 2 + v**2))


def reconstruction(count: int = 2) -> Reconstruction:
    random = torch.Generator().manual_seed(0)
    image = torch.rand(count, 3, SIZE, SIZE, generator=random)
    depth = hill().expand(count, -1, -1).clone()
    mask = torch.ones(count, SIZE, SIZE, dtype=torch.bool)
    mask[:, :3] = False
    return Reconstruction(
        image=image,
        depth=depth,
        mask=mask,
        normals=normals_from_depth(depth, CAMERA),
        albedo=image,
        shading=torch.full((count, 1, SIZE, SIZE), 1.5),
        reconstruction=image,
        canonical_depth=depth,
        canonical_albedo=image,
        light=torch.tensor([0.5, 0.6, 0.0, 0.0, 1.0]).expand(count, -1),
        view=torch.tensor([math.pi / 6, 0.0, 0.0, 0.1, 0.0, 0.0]).expand(count, -1),
    )


def test_the_mesh_reads_back_the_right_way_round(tmp_path: Path) -> None:
    depth = hill()
    texture = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    files = write_obj(tmp_path / "mesh.obj", mesh_from_depth(depth, CAMERA), texture)
    assert [path.name for path in files] == ["mesh.obj", "mesh.mtl", "mesh.png"]
    mesh = trimesh.load(tmp_path / "mesh.obj", process=False, force="mesh")
    assert mesh.vertices.shape == (SIZE**2, 3) and mesh.faces.shape == (2 * (SIZE - 1) ** 2, 3)
    assert (mesh.face_normals[:, 2] > 0).all()  # every face is seen from +z, where the viewer is
    grid = mesh.vertices.reshape(SIZE, SIZE, 3)
    assert grid[0, 0, 1] > grid[-1, 0, 1]  # the picture's upper row is up
    assert grid[0, 0, 0] < grid[0, -1, 0]  # and its left column left
    assert grid[..., 2].argmax() == int(depth.argmin())  # the nearest point is nearest to the viewer
    # Half the picture's width is the unit at depth 1; the file has six digits.
    assert grid[0, -1, 0] == pytest.approx(float(depth[0, -1]), abs=1e-6)
    np.testing.assert_allclose(mesh.vertex_normals[:, 2] > 0, True)


def test_each_vertex_wears_its_own_pixel(tmp_path: Path) -> None:
    texture = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    write_obj(tmp_path / "mesh.obj", mesh_from_depth(hill(), CAMERA), texture)
    mesh = trimesh.load(tmp_path / "mesh.obj", process=False, force="mesh")
    picture = mesh.visual.material.image
    assert picture.size == (SIZE, SIZE)
    colours = mesh.visual.to_color().vertex_colors[:, :3].reshape(SIZE, SIZE, 3)
    assert np.array_equal(colours, to_bytes(texture))


def test_a_mask_trims_the_mesh(tmp_path: Path) -> None:
    mask = object_mask(hill())
    assert mask.sum() == SIZE * (SIZE - 4)
    mesh = mesh_from_depth(hill(), CAMERA, mask=mask)
    assert len(mesh.vertices) == SIZE * (SIZE - 4) and len(mesh.faces) == 2 * (SIZE - 1) * (SIZE - 5)
    assert mesh.faces.max() == len(mesh.vertices) - 1
    with pytest.raises(DataError, match="nothing"):
        mesh_from_depth(hill(), CAMERA, mask=mask & False)
    holed = hill()
    holed[4, 4] = math.nan
    assert np.isfinite(mesh_from_depth(holed, CAMERA).vertices).all()


@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_16_bit_depth_comes_back(tmp_path: Path, spread: float) -> None:
    depth = (1 + (hill() - 1) * spread).double().numpy()  # with 4, beyond what 1.1 − 0.2 · v can say
    mask = np.ones_like(depth, dtype=bool)
    mask[:3] = False
    write_depth_png(tmp_path / "d.png", depth, mask)
    found = read_depth(tmp_path / "d.png")
    assert np.isnan(found[~mask]).all()
    reach = max(depth[mask].max(), 1.1) - min(depth[mask].min(), 0.9)
    assert np.abs(found - depth)[mask].max() <= reach / 65535 / 2 + 1e-12  # half a step
    stored = np.asarray(Image.open(tmp_path / "d.png"))
    assert stored.dtype.itemsize >= 2 and stored.max() > 255
    if spread == 1:  # other programs may rely on the usual scale
        np.testing.assert_allclose(1.1 - 0.2 * stored[mask] / 65535.0, depth[mask], atol=0.2 / 65535)


def test_maps_of_a_reconstruction(tmp_path: Path) -> None:
    found = reconstruction()
    files = {path.name for path in write_maps(tmp_path / "one", found, 1)}
    assert files == {path.name for path in (tmp_path / "one").iterdir()}
    assert {"depth.npy", "depth_16bit.png", "depth_preview.png", "normals.png", "albedo.png", "shading.png"} <= files
    depth = np.load(tmp_path / "one" / "depth.npy")
    assert np.isnan(depth[:3]).all() and np.array_equal(depth[3:], hill().numpy()[3:])
    pixels = np.asarray(Image.open(tmp_path / "one" / "reconstruction.png"))
    assert np.array_equal(pixels, to_bytes(found.image[1]))
    assert '"rotation_degrees": [\n      30.0' in (tmp_path / "one" / "factors.json").read_text()
    bare = write_maps(tmp_path / "bare", Reconstruction(image=found.image), 0)
    assert [path.name for path in bare] == ["input.png"]


def test_pictures_show_near_bright_and_normals_as_usual() -> None:
    depth = torch.tensor([[[1.0, 2.0], [3.0, 9.0]]])
    mask = torch.tensor([[[True, True], [True, False]]])
    picture = depth_picture(depth, mask)[0, 0]
    assert picture[0, 0] > picture[0, 1] > picture[1, 0] > picture[1, 1] == 0
    # A hill's right flank faces right: red; its upper flank faces up: green; level ground is (128, 128, 255).
    v, u = torch.meshgrid(torch.linspace(-1, 1, 33), torch.linspace(-1, 1, 33), indexing="ij")
    colours = normals_picture(normals_from_depth((1 - 0.05 * torch.exp(-4 * (u**2 + v**2)))[None], CAMERA))[0]
    assert colours[0, 16, 22] > 0.6 > 0.4 > colours[0, 16, 10]
    assert colours[1, 10, 16] > 0.6 > 0.4 > colours[1, 22, 16]
    assert colours[:, 16, 16].tolist() == pytest.approx([0.5, 0.5, 1.0], abs=1e-3)


def test_a_contact_sheet_holds_every_cell() -> None:
    red, grey = torch.zeros(3, 3, 40, 40), torch.full((3, 1, 20, 20), 0.5)
    red[:, 0] = 1
    sheet = np.asarray(contact_sheet({"a long label that is cut": red, "grey": grey}, rows=["x", "y", "z"], title="t"))
    assert (sheet == (255, 0, 0)).all(-1).sum() == 3 * 120 * 120  # 40 pixels are enlarged three times, to at least 96
    assert (sheet == 128).all(-1).sum() >= 3 * 120 * 120
    assert sheet[sheet.shape[0] // 2].shape[0] == 4 + 2 * 124
    wide = contact_sheet({"red": red}, blocks=3)
    assert wide.width > 3 * 120 and wide.height < 2 * 120
    with pytest.raises(ValueError, match="same number"):
        contact_sheet({"a": red, "b": grey[:2]})
    with pytest.raises(ValueError, match="labels"):
        contact_sheet({"a": red}, rows=["x"])


def test_overviews_of_reconstructions_and_data() -> None:
    found = reconstruction()
    truth = Batch(image=found.image, index=torch.arange(2), depth=found.depth, mask=found.mask, normals=found.normals)
    assert overview(found, truth=truth).width > overview(found).width
    assert data_overview(truth).size[0] > 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device that is always full")
def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    with writing(path) as file:
        file.write(b"first")
    with pytest.raises(RuntimeError), writing(path) as file:
        file.write(b"half of the sec")
        raise RuntimeError("stopped")
    assert path.read_bytes() == b"first"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]
    with pytest.raises(DataError, match="no space left"), writing(path), open("/dev/full", "wb", buffering=0) as full:
        full.write(b"x")
    assert path.read_bytes() == b"first"


def test_a_place_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written"):
        write_maps(tmp_path / "file", reconstruction(), 0)


def test_a_data_set_as_files_reads_back(tmp_path: Path) -> None:
    from recon_image_datasets.folders import DepthPairs

    from recon_toolkit.data.packed import PackWriter, field_specs
    from recon_toolkit.data.packing import DataContext

    found = reconstruction(3)
    assert found.depth is not None and found.mask is not None
    values = {
        "image": (found.image * 255).round().to(torch.uint8).numpy(),
        "depth": found.depth.numpy(),
        "mask": found.mask.numpy(),
    }
    with PackWriter(tmp_path / "pack", 3, SIZE, field_specs(SIZE, values)) as writer:
        writer.write(0, **values)
        packed = writer.finish(["a", "b", "c"], {})
    for form in (True, False):
        root = tmp_path / f"files-{form}"
        assert write_dataset(root / "test", packed, count=2, depth_as_png=form) == 2
        again = DepthPairs(root=root).open("test", SIZE, DataContext(cache=tmp_path / "cache"))
        expected, read = packed.batch([0, 1]), again.batch([0, 1])
        assert torch.equal(read.image, expected.image)
        assert read.mask is not None and read.depth is not None
        assert torch.equal(read.mask, expected.mask)
        step = 0.2 / 65535 if form else 0.0
        # Half a step of the file, and float32 at 1.
        assert (read.depth - expected.depth)[read.mask].abs().max() <= step / 2 + 2.4e-7
