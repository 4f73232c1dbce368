"""EXR files, read back by the library's own reader."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from recon_toolkit.data.float_maps import write_exr
from recon_toolkit.errors import DataError
from recon_toolkit.geometry import Camera, normals_from_depth
from recon_toolkit.io.maps import normals_picture


def depth_map() -> torch.Tensor:
    """A hill (20, 30) right of the middle."""
    v, u = torch.meshgrid(torch.linspace(-1, 1, 20), torch.linspace(-1, 1, 30), indexing="ij")
    return 1.05 - 0.1 * torch.exp(-4 * ((u - 0.3) ** 2 + v**2))


def test_depth_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    OpenEXR = pytest.importorskip("OpenEXR")
    depth = depth_map().numpy()
    depth[:3] = np.nan
    write_exr(tmp_path / "a b.exr", depth)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a b.exr"]
    with OpenEXR.File(str(tmp_path / "a b.exr")) as file:
        assert list(file.channels()) == ["Z"]
        found = file.channels()["Z"].pixels
    assert found.dtype == np.float32 and np.isinf(found[:3]).all()
    assert np.array_equal(found[3:], depth[3:])


def test_normals_are_those_of_the_normal_picture(tmp_path: Path) -> None:
    OpenEXR = pytest.importorskip("OpenEXR")
    depth = depth_map()
    normals = normals_from_depth(depth[None], Camera())[0]
    write_exr(tmp_path / "n.exr", depth.numpy(), normals=normals.numpy())
    with OpenEXR.File(str(tmp_path / "n.exr"), separate_channels=True) as file:
        found = np.stack([file.channels()[f"N.{axis}"].pixels for axis in "XYZ"])
    # What is red to the right, green up and blue to the viewer is the same direction, in [0, 1].
    np.testing.assert_allclose(found / 2 + 0.5, normals_picture(normals[None])[0].numpy(), atol=1e-6)


def test_without_the_package_the_message_tells_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(DataError, match=r"recon-toolkit\[exr\]"):
        write_exr(tmp_path / "d.exr", depth_map().numpy())
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    pytest.importorskip("OpenEXR")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written"):
        write_exr(tmp_path / "file" / "d.exr", depth_map().numpy())
    with pytest.raises(ValueError, match="depth must be"):
        write_exr(tmp_path / "d.exr", depth_map().numpy()[None])
