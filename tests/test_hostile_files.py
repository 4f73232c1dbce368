"""Files made to fill the memory, or to wait for ever: refused before anything is unpacked."""

from __future__ import annotations

import io
import os
import threading
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from recon_toolkit.data.decode import read_depth, read_image, read_mask
from recon_toolkit.engine.checkpoint import load_checkpoint
from recon_toolkit.errors import CheckpointError, DataError
from recon_toolkit.inference import batch as reading
from recon_toolkit.inference.pictures import Finder, Source
from recon_toolkit.io.torch_files import read_torch_file
from recon_toolkit.progress import QUIET


def npy_header(shape: tuple[int, ...], descr: str = "<f8") -> bytes:
    """The head of an array, whatever follows it."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def zipped(path: Path, data: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("depth.npy", data)
    return path


@pytest.mark.parametrize("read", [read_depth, read_mask])
@pytest.mark.parametrize(
    "head", [npy_header((10**12, 1)), npy_header((10**6, 80)), npy_header((9, 9), "<V1000000000")], ids="abc"
)
def test_arrays_that_claim_more_than_they_hold_are_refused_first(tmp_path: Path, read: Any, head: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(head + bytes(100))
    zipped(tmp_path / "a.npz", head + bytes(100))
    tracemalloc.start()
    for name in ("a.npy", "a.npz"):
        with pytest.raises(DataError):
            read(tmp_path / name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000  # 10^6 rows of 80 would be 640 MB


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.npz", npy_header((90_000_000,)) + bytes(20_000_000))
    tracemalloc.start()
    with pytest.raises(DataError, match="90,000,000 values"):
        read_depth(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize("suffix", [".pfm", ".exr", ".tif"])
def test_maps_that_claim_too_many_pixels_are_refused_first(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".pfm":
        path.write_bytes(b"Pf\n999999 999999\n-1\n")
    elif suffix == ".exr":
        package = pytest.importorskip("OpenEXR")
        with package.File({"compression": package.ZIP_COMPRESSION}, {"Z": np.ones((3, 5), np.float32)}) as file:
            file.write(str(path))
        size = path.read_bytes().index(b"dataWindow\0box2i\0") + len(b"dataWindow\0box2i\0") + 4 + 8
        data = bytearray(path.read_bytes())
        data[size : size + 8] = np.array([99_998, 99_998], "<i4").tobytes()
        path.write_bytes(data)
    else:
        Image.fromarray(np.ones((3, 5), np.float32)).save(path)
        data = bytearray(path.read_bytes())
        for tag in (b"\x00\x01\x04\x00", b"\x01\x01\x04\x00"):  # width and height
            data[data.index(tag) + 8 : data.index(tag) + 12] = np.array([99_999], "<u4").tobytes()
        path.write_bytes(data)
    with pytest.raises(DataError, match="pixels"):
        read_depth(path)


@pytest.mark.parametrize("content", [b"Pf\n", b"P5\n3 3\n255\n", b"Pf\n0 4\n-1\n", b"Pf\n4 4\n-1\n123", b"\x80" * 99])
@pytest.mark.parametrize("suffix", [".pfm", ".exr", ".tif", ".npz", ".npy"])
def test_what_is_no_map_is_one_message(tmp_path: Path, content: bytes, suffix: str) -> None:
    if suffix == ".exr":
        pytest.importorskip("OpenEXR")
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(DataError, match=f"a{suffix}"):
        read_depth(tmp_path / f"a{suffix}")


def test_16_bits_become_8_without_copies_of_floats(tmp_path: Path) -> None:
    pixels = 1000 * 2000
    values = np.linspace(0, 65535, pixels).astype(np.uint16).reshape(1000, 2000)
    Image.fromarray(values).save(tmp_path / "a.png")
    tracemalloc.start()
    found = read_image(tmp_path / "a.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(found[..., 0], np.rint(values / 65535 * 255))
    # Three bytes a pixel are the result; NumPy's part of the way there is two, or less. Floats took 24.
    assert peak < 7 * pixels


def test_large_pictures_are_decoded_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        Image.new("RGB", (40, 40)).save(tmp_path / f"{number}.png")
    monkeypatch.setattr(reading, "LARGE_PIXELS", 1000)
    inside: list[int] = []
    most = 0

    def watched(path: Path) -> NDArray[np.uint8]:
        nonlocal most
        inside.append(1)
        most = max(most, len(inside))
        time.sleep(0.02)
        inside.pop()
        return read_image(path)

    monkeypatch.setattr(reading, "read_image", watched)
    monkeypatch.setattr(reading, "given", lambda: type("Given", (), {"count": 4}))
    sources = [Source(tmp_path / f"{number}.png", str(number)) for number in range(4)]
    finder, video = Finder(32, None), reading.VideoFrames()
    assert len(list(reading.read_crops(sources, finder, video, ahead=4, progress=QUIET))) == 4
    assert most == 1
    monkeypatch.setattr(reading, "LARGE_PIXELS", 10_000)
    list(reading.read_crops(sources, finder, video, ahead=4, progress=QUIET))
    assert most > 1  # small ones are


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "zero.pth").symlink_to("/dev/zero")
    (tmp_path / "circle.pth").symlink_to("circle.pth")
    for read in (read_torch_file, load_checkpoint, read_image, read_depth):
        for name in ("pipe.pth", "zero.pth", "circle.pth", "a\0b", "a" * 5000):
            done: list[BaseException] = []

            def work(read: Any = read, name: str = name, done: list[BaseException] = done) -> None:
                try:
                    read(tmp_path / name)
                except Exception as error:
                    done.append(error)

            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            thread.join(10)
            assert len(done) == 1 and isinstance(done[0], CheckpointError | DataError), (read, name, done)
