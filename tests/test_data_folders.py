"""Folders of photographs as people have them: small, unsplit, split under other names, in other formats."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from recon_image_datasets.celeba import CelebA
from recon_image_datasets.folders import SPLITS, ImageFolder, split_folder

from recon_toolkit.data.decode import read_image
from recon_toolkit.data.packed import PackedImages
from recon_toolkit.data.packing import DataContext
from recon_toolkit.errors import DataError, MissingSplit
from recon_toolkit.progress import Progress

Make = Callable[[Sequence[str]], Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a folder of small images of these names."""

    def made(names: Sequence[str]) -> Path:
        root = tmp_path / "data"
        for number, name in enumerate(names):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (number % 256, 100, 50)).save(path)
        return root

    return made


def opened(dataset: ImageFolder | CelebA, root: Path, split: str) -> PackedImages:
    return dataset.open(split, 8, DataContext(cache=root.parent / "cache", root=root, progress=Progress()))


def names_of(root: Path, dataset: ImageFolder | CelebA | None = None) -> dict[str, set[str]]:
    return {split: set(opened(dataset or ImageFolder(), root, split).index.names) for split in SPLITS}


@pytest.mark.parametrize("count", [3, 8, 16, 51])
def test_a_small_folder_has_images_in_every_split(make: Make, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    every = [f"{number}.png" for number in range(count)]
    found = names_of(make(every))
    assert all(found.values()) and sorted(name for names in found.values() for name in names) == sorted(every)
    assert len(found["train"]) >= count / 2 or count == 3
    assert f"{len(found['train'])} images to train on are few" in capsys.readouterr().err


def test_images_stay_in_their_split_when_others_come(make: Make) -> None:
    first = names_of(make([f"{number}.png" for number in range(40)]))
    second = names_of(make([f"{number}.png" for number in range(120)]))
    assert all(first[split] <= second[split] for split in SPLITS)


def test_two_images_are_not_divided_into_three(make: Make) -> None:
    root = make(["a.png", "b.png"])
    assert len(opened(ImageFolder(), root, "train")) == 1
    with pytest.raises(MissingSplit, match="split=all"):
        opened(ImageFolder(), root, "val")


def test_all_images_can_be_trained_on(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    found = names_of(make(["a.png", "train/b.png", "c/d.png"]), ImageFolder(split="all"))
    assert found["train"] == found["val"] == found["test"] == {"a.png", "train/b.png", "c/d.png"}
    assert "no score is of unseen ones" in capsys.readouterr().err


def test_a_person_with_a_folder_is_in_one_split(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    people = [f"person{person}/{photo}.png" for person in range(12) for photo in range(4)]
    found = names_of(make(people))
    groups = {split: {name.partition("/")[0] for name in names} for split, names in found.items()}
    assert sum(map(len, groups.values())) == 12 and all(groups.values())
    assert "split by its 12 sub-folders" in capsys.readouterr().err


def test_three_people_are_one_for_each_split(make: Make) -> None:
    found = names_of(make([f"{person}/{photo}.png" for person in "abc" for photo in range(5)]))
    assert sorted(len(names) for names in found.values()) == [5, 5, 5]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("Train", "Val", "Test"), ("training", "valid", "testing"), ("TRAIN", "validation", "test")],
)
def test_splits_under_other_names_are_taken(make: Make, train: str, val: str, test: str) -> None:
    found = names_of(make([f"{train}/a.png", f"{train}/b.png", f"{val}/c.png", f"{test}/x/d.png"]))
    assert found == {
        "train": {f"{train}/a.png", f"{train}/b.png"},
        "val": {f"{val}/c.png"},
        "test": {f"{test}/x/d.png"},
    }


def test_near_names_are_warned_of_and_two_of_one_split_refused(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    root = make(["trian/a.png", "test_images/b.png", "portraits/c.png", "strain/d.png"])
    context = DataContext(cache=root.parent / "cache", root=root, progress=Progress())
    assert split_folder(root, "train", context) is None
    warned = capsys.readouterr().err
    assert "trian" in warned and "test_images" in warned and "portraits" not in warned and "strain" not in warned
    make(["valid/a.png", "val/b.png"])
    with pytest.raises(DataError, match=r"val and valid|valid and val"):
        split_folder(root, "val")


def test_formats_of_cameras_and_telephones_are_read(make: Make, tmp_path: Path) -> None:
    root = make(["a.png"])
    picture = Image.new("RGB", (32, 32), (200, 40, 90))
    picture.save(root / "b.jfif", format="JPEG")
    picture.save(root / "c.JPE", format="JPEG")
    picture.save(root / "d.avif")
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(picture).save(root / "e.HEIC")
    packed = opened(ImageFolder(split="all"), root, "train")
    assert packed.index.names == ["a.png", "b.jfif", "c.JPE", "d.avif", "e.HEIC"]
    found = read_image(root / "e.HEIC")
    assert np.abs(found.astype(int) - (200, 40, 90)).max() <= 6  # lossy, of a single colour


def test_what_is_not_read_is_counted_and_named(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    root = make([f"{number}.png" for number in range(5)])
    for name in ("x.cr2", "y.CR2", "z.psd", "notes.txt", "labels.csv", ".hidden"):
        (root / name).write_bytes(b"?")
    opened(ImageFolder(), root, "train")
    warned = capsys.readouterr().err
    assert "3 files are of kinds that are not read: .cr2 (2), .psd (1)" in warned


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_names_that_are_no_unicode_are_taken(make: Make, tmp_path: Path) -> None:
    root = make(["good.png", "other.png", "more.png"])
    data = io.BytesIO()
    Image.new("RGB", (16, 16)).save(data, format="PNG")
    for raw in (b"caf\xe9.png", b"caf\xe8.png"):
        Path(os.fsdecode(os.fsencode(root) + b"/" + raw)).write_bytes(data.getvalue())
    packed = opened(ImageFolder(split="all"), root, "train")
    assert sorted(packed.index.names) == ["caf\ufffd.png", "caf\ufffd.png~2", "good.png", "more.png", "other.png"]
    assert opened(ImageFolder(split="all"), root, "train").fingerprint == packed.fingerprint


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_pipes_and_devices_are_not_waited_for(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    root = make(["a.png", "b.png", "c.png"])
    os.mkfifo(root / "pipe.png")
    (root / "endless.png").symlink_to("/dev/zero")
    assert len(opened(ImageFolder(split="all"), root, "train")) == 3
    assert "pipe.png: is a pipe or a device" in capsys.readouterr().err


def test_celeba_as_it_is_redistributed(make: Make) -> None:
    root = make([f"img_align_celeba/img_align_celeba/{number:06d}.jpg" for number in range(1, 5)])
    for path in (root / "img_align_celeba" / "img_align_celeba").iterdir():
        Image.new("RGB", (178, 218), (90, 80, 70)).save(path)
    lines = ["image_id,partition", "000001.jpg,0", "000002.jpg,0", "000003.jpg,1", "000004.jpg,2"]
    (root / "list_eval_partition.csv").write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    assert names_of(root, CelebA()) == {
        "train": {"000001.jpg", "000002.jpg"}, "val": {"000003.jpg"}, "test": {"000004.jpg"},
    }  # fmt: skip
