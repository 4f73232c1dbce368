"""Shapes' files that claim, unpack to, or refer to more than they should, and that are no files."""

import io
import os
import struct
import time
import zipfile

import numpy as np
import pytest
import trimesh

from recon_toolkit.cli.app import execute
from recon_toolkit.data.limits import MAX_UNPACKED_BYTES
from recon_toolkit.errors import DataError
from recon_toolkit.io.shape_files import read_shape, write_shape
from recon_toolkit.shapes.forms import Mesh

BOX = trimesh.creation.box((1, 2, 3))


def run(*words, code=0):
    assert execute(["convert", *map(str, words)]) == code


def threemf(path, objects, items):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr(
            "3D/3dmodel.model",
            '<model xmlns="http://schemas.microsoft.com/3dmanufacturing/core/2015/02">'
            f"<resources>{objects}</resources><build>{items}</build></model>",
        )
    return path


def twice(number, below):
    return f'<object id="{number}"><components>' + f'<component objectid="{below}"/>' * 2 + "</components></object>"


TRIANGLE = (
    '<mesh><vertices><vertex x="0" y="0" z="0"/><vertex x="1" y="0" z="0"/><vertex x="0" y="1" z="0"/></vertices>'
    '<triangles><triangle v1="0" v2="1" v3="2"/></triangles></mesh>'
)


def test_objects_of_objects_are_counted_before_they_are_made(tmp_path):
    doubled = "".join(twice(k, k - 1) for k in range(1, 29))
    start = time.monotonic()
    for name, first, message in (("full", TRIANGLE, "805,306,368 vertices"), ("empty", "", "parts together")):
        path = threemf(tmp_path / f"{name}.3mf", f'<object id="0">{first}</object>{doubled}', '<item objectid="28"/>')
        with pytest.raises(DataError, match=message):
            read_shape(path)
    few = "".join(twice(k, k - 1) for k in range(1, 4))
    path = threemf(tmp_path / "few.3mf", f'<object id="0">{TRIANGLE}</object>{few}', '<item objectid="3"/>')
    assert len(read_shape(path).faces) == 8
    path = threemf(tmp_path / "self.3mf", twice(1, 2) + twice(2, 1), '<item objectid="1"/>')
    with pytest.raises(DataError, match="hold one another"):
        read_shape(path)
    assert time.monotonic() - start < 30  # it was without end


def packed(path, member, head):
    """A few MB that unpack to more than is read."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(member, "w", force_zip64=True) as file,
    ):
        file.write(head)
        for _ in range(MAX_UNPACKED_BYTES // (1 << 24) + 1):
            file.write(bytes(1 << 24))
    return path


def npy_head(shape):
    data = io.BytesIO()
    np.lib.format.write_array_header_1_0(data, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return data.getvalue()


@pytest.mark.parametrize(("name", "member", "head"), [
    ("a.npz", "points.npy", npy_head((10**8, 3))),
    ("a.3mf", "3D/3dmodel.model", b"<model>"),
])  # fmt: skip
def test_what_unpacks_to_more_than_is_read_is_refused(name, member, head, tmp_path):
    path = packed(tmp_path / name, member, head)
    assert path.stat().st_size < 8e6
    with pytest.raises(DataError, match=r"unpacks to 0\.8 GB"):
        read_shape(path)


def test_a_batch_goes_on_whatever_its_files_are(tmp_path, capsys):
    good = write_shape(tmp_path / "good.stl", Mesh(BOX.vertices, BOX.faces))
    bad = {
        name: tmp_path / name for name in ("loop.stl", "device.ply", "pipe.obj", "folder.glb", "rows.npy", "deep.glb")
    }
    os.symlink(bad["loop.stl"], bad["loop.stl"])
    os.symlink("/dev/zero", bad["device.ply"])
    os.mkfifo(bad["pipe.obj"])
    bad["folder.glb"].mkdir()
    bad["rows.npy"].write_bytes(npy_head((10**12, 3)))
    deep = b'{"asset":' + b"[" * 100_000
    bad["deep.glb"].write_bytes(
        struct.pack("<4sII", b"glTF", 2, 20 + len(deep)) + struct.pack("<I4s", len(deep), b"JSON") + deep
    )
    os.mkfifo(tmp_path / "pipe.png")
    inputs = [*bad.values(), tmp_path / "pipe.png", good]
    inputs[-2] = inputs[-2].rename(tmp_path / "depth.png")
    run(*inputs, "--to", "off", "--out", tmp_path / "out", code=3)
    captured = capsys.readouterr()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.off"]
    assert "1 of 8 converted" in captured.out
    for path in inputs[:-1]:
        assert captured.err.count(str(path)) == 1
    assert "Traceback" not in captured.err


def test_memory_that_is_not_there_is_one_line(tmp_path, capsys, monkeypatch):
    def none_left(*_):
        raise MemoryError

    write_shape(tmp_path / "a.stl", Mesh(BOX.vertices, BOX.faces))
    write_shape(tmp_path / "b.stl", Mesh(BOX.vertices, BOX.faces))
    monkeypatch.setattr("recon_toolkit.shapes.convert.converted", none_left)
    run(tmp_path / "a.stl", tmp_path / "b.stl", "--to", "npy", code=2)
    assert capsys.readouterr().err.count("needs more memory than there is") == 2
