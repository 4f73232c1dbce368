"""The packed form: what is written comes back, and a damaged or unfinished one is never taken for a good one."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recon_toolkit.data.packed import FieldSpec, PackedImages, PackWriter, field_specs
from recon_toolkit.errors import DataError, ReconError

SIZE = 6
NAMES = ("image", "depth", "mask", "normals", "albedo", "light", "view")


def arrays(count: int, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Every field, in the units of a batch where it is a float."""
    random = np.random.default_rng(seed)
    normals = random.normal(size=(count, 3, SIZE, SIZE))
    return {
        "image": random.integers(0, 256, (count, 3, SIZE, SIZE), dtype=np.uint8),
        "depth": random.uniform(0.9, 1.1, (count, SIZE, SIZE)),
        "mask": random.random((count, SIZE, SIZE)) > 0.5,
        "normals": normals / np.linalg.norm(normals, axis=1, keepdims=True),
        "albedo": random.random((count, 3, SIZE, SIZE)),
        "light": random.normal(size=(count, 5)),
        "view": random.normal(size=(count, 6)),
    }


def pack(folder: Path, values: dict[str, np.ndarray[Any, Any]], **options: Any) -> PackedImages:
    count = len(values["image"])
    with PackWriter(folder, count, SIZE, field_specs(SIZE, values, **options)) as writer:
        writer.write(0, **values)
        return writer.finish([f"{i}.png" for i in range(count)], {"from": "test"})


@pytest.mark.parametrize(("depth_range", "step"), [(None, 0.0), ((0.8, 1.2), 0.4 / 65535)])
def test_a_batch_is_what_was_written(tmp_path: Path, depth_range: tuple[float, float] | None, step: float) -> None:
    values = arrays(5)
    packed = pack(tmp_path / "p", values, depth_range=depth_range)
    rows = np.array([4, 0, 4])
    batch = packed.batch(rows)
    assert (len(packed), packed.image_size, packed.names[4]) == (5, SIZE, "4.png")
    assert torch.equal(batch.image, torch.from_numpy(values["image"][rows]).float() / 255)
    assert batch.index.tolist() == rows.tolist()
    for name, tolerance in (
        ("depth", step / 2 + 1.2e-7),  # half a step, and float32 at 1
        ("normals", 1.0e-3),  # float16: 2⁻¹¹ a component, twice that after normalising
        ("albedo", 0.5 / 255 + 1e-6),  # half a grey level
        ("light", 1e-6),  # float32
        ("view", 1e-6),
    ):
        found = getattr(batch, name)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.numpy(), values[name][rows], rtol=1e-6, atol=tolerance, err_msg=name)
    assert batch.mask is not None and np.array_equal(batch.mask.numpy(), values["mask"][rows])
    assert batch.normals is not None
    assert torch.allclose(batch.normals.norm(dim=1), torch.ones(3, SIZE, SIZE), atol=1e-6)  # float32


def test_data_in_a_devices_memory_gives_the_same_batches(tmp_path: Path) -> None:
    packed = pack(tmp_path / "p", arrays(5), depth_range=(0.8, 1.2))
    rows = torch.tensor([3, 1])
    here, there = packed.batch(rows), packed.resident("cpu").batch(rows)
    for name in (*NAMES, "index"):
        assert torch.equal(getattr(here, name), getattr(there, name)), name


def test_images_of_one_object_share_what_belongs_to_it(tmp_path: Path) -> None:
    """Three pictures of each of two objects, and of a third that has only one; the cloud is the object's."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (7, 3, SIZE, SIZE), dtype=np.uint8)
    clouds = random.normal(size=(3, 5, 3)).astype(np.float32)
    specs = field_specs(SIZE) | {"cloud": FieldSpec(dtype="float32", shape=(5, 3), each=3)}
    with PackWriter(tmp_path / "pack", 9, SIZE, specs) as writer:
        writer.write(3, image=images[3:], cloud=clouds[1:])
        writer.write(0, image=images[:3], cloud=clouds[:1])
        with pytest.raises(ValueError, match=r"cloud: expected shape \(1, 5, 3\) at a multiple of 3"):
            writer.write(1, image=images[:2], cloud=clouds[:1])
        packed = writer.finish([f"{i}" for i in range(7)], {})
    assert np.load(tmp_path / "pack" / "cloud.npy").shape == (3, 5, 3)
    for source in (packed, packed.resident("cpu")):
        batch = source.batch(torch.tensor([6, 0, 5, 2]))
        np.testing.assert_array_equal(batch.extra["cloud"].numpy(), clouds[[2, 0, 1, 0]])
        assert torch.equal(batch.rows(1, 3).extra["cloud"], batch.extra["cloud"][1:3])
    assert torch.equal(batch.of("cloud", "the test"), batch.extra["cloud"])
    with pytest.raises(ReconError, match="the test needs 'depth' of every image"):
        batch.of("depth", "the test")


def test_indices_outside_are_refused(tmp_path: Path) -> None:
    packed = pack(tmp_path / "p", arrays(2))
    for rows in ([2], [-1]):
        with pytest.raises(IndexError, match=r"0\.\.1"):
            packed.batch(rows)


def test_parts_may_come_in_any_order_and_fewer_than_planned(tmp_path: Path) -> None:
    values = arrays(4)
    whole = pack(tmp_path / "whole", values)
    with PackWriter(tmp_path / "parts", 1000, SIZE, field_specs(SIZE, values)) as writer:
        for start in (2, 0):
            writer.write(start, **{name: array[start : start + 2] for name, array in values.items()})
        parts = writer.finish([f"{i}.png" for i in range(4)], {})
    assert parts.fingerprint == whole.fingerprint
    assert len(parts) == 4
    assert np.load(tmp_path / "parts" / "image.npy").shape == (4, 3, SIZE, SIZE)  # a plain .npy for anybody


def test_the_fingerprint_sees_one_grey_level(tmp_path: Path) -> None:
    values = arrays(3)
    first = pack(tmp_path / "a", values).fingerprint
    values["image"][1, 2, 3, 4] ^= 1
    assert pack(tmp_path / "b", values).fingerprint != first


def test_nothing_is_left_of_a_pack_that_broke_off(tmp_path: Path) -> None:
    values = arrays(2)
    with pytest.raises(RuntimeError), PackWriter(tmp_path / "p", 2, SIZE, field_specs(SIZE, values)) as writer:
        writer.write(0, **values)
        raise RuntimeError("the program stops here")
    assert list(tmp_path.iterdir()) == []


def test_leavings_of_killed_processes_go_after_a_day(tmp_path: Path) -> None:
    old, new = tmp_path / "p.partial-1", tmp_path / "p.partial-2"
    for folder in (old, new):
        folder.mkdir()
        (folder / "image.npy").write_bytes(b"x")
    for path in (old / "image.npy", old):
        os.utime(path, (1, 1))
    pack(tmp_path / "p", arrays(1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p", "p.partial-2"]


def test_a_second_writer_of_the_same_folder_keeps_the_first(tmp_path: Path) -> None:
    first = pack(tmp_path / "p", arrays(2, seed=1))
    second = pack(tmp_path / "p", arrays(2, seed=2))
    assert second.fingerprint == first.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device that is always full")
def test_a_full_disk_is_one_clear_message(tmp_path: Path) -> None:
    values = arrays(2)
    with PackWriter(tmp_path / "p", 2, SIZE, field_specs(SIZE, values)) as writer:
        writer._files["image"].close()
        writer._files["image"] = open("/dev/full", "r+b", buffering=0)  # noqa: SIM115 (the writer closes it)
        with pytest.raises(DataError, match="no space left") as caught:
            writer.write(0, **values)
    assert caught.value.remedy
    assert isinstance(caught.value.__cause__, OSError) and caught.value.__cause__.errno == errno.ENOSPC


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(DataError, match="lies below a file"),
        PackWriter(tmp_path / "file" / "p", 1, SIZE, field_specs(SIZE)),
    ):
        pass


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda p: (p / "index.json").unlink(), r"no index\.json"),
        (lambda p: (p / "index.json").write_text("{"), "damaged"),
        (lambda p: (p / "index.json").write_text((p / "index.json").read_text().replace("uint8", "pickle")), "damaged"),
        (lambda p: _edit(p, '"format_version": 1', '"format_version": 99'), "format 99"),
        (lambda p: _edit(p, '"count": 3', '"count": 4'), "the index says"),
        (lambda p: (p / "depth.npy").unlink(), "cannot be read"),
        (lambda p: os.truncate(p / "image.npy", 200), "cannot be read"),
        (lambda p: (p / "image.npy").write_bytes(b""), "cannot be read"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: Any, problem: str) -> None:
    pack(tmp_path / "p", arrays(3))
    damage(tmp_path / "p")
    with pytest.raises(DataError, match=problem):
        PackedImages.open(tmp_path / "p")


def _edit(folder: Path, old: str, new: str) -> None:
    text = (folder / "index.json").read_text()
    assert old in text
    (folder / "index.json").write_text(text.replace(old, new))


def test_wrong_use_is_refused(tmp_path: Path) -> None:
    values = arrays(2)
    with PackWriter(tmp_path / "p", 2, SIZE, field_specs(SIZE, values)) as writer:
        with pytest.raises(ValueError, match="outside"):
            writer.write(1, **values)
        with pytest.raises(ValueError, match="expected the fields"):
            writer.write(0, image=values["image"])
        with pytest.raises(ValueError, match="shape"):
            writer.write(0, **(values | {"depth": values["depth"][:, :2]}))
    with pytest.raises(ValueError, match="image"):
        PackWriter(tmp_path / "q", 2, SIZE, field_specs(SIZE, ["depth"]))
