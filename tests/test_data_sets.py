"""The data sets of users' own files: layouts, splits, crops, caches, and everything that may be wrong with them."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from recon_image_datasets.celeba import CelebA
from recon_image_datasets.folders import DepthPairs, ImageFolder

from recon_toolkit.data.decode import CentreCrop, DepthScale
from recon_toolkit.data.packing import DataContext, resize_depth
from recon_toolkit.errors import DataError
from recon_toolkit.progress import Progress


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (20, 20)) -> Image.Image:
    return Image.new("RGB", size, colour)


def put(path: Path, image: Image.Image | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        image.save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def context(tmp_path: Path, root: Path) -> DataContext:
    return DataContext(cache=tmp_path / "cache", root=root, progress=Progress(quiet=True, stream=io.StringIO()))


def said(context: DataContext) -> str:
    assert isinstance(context.progress.stream, io.StringIO)
    return context.progress.stream.getvalue()


def test_sub_folders_are_the_splits(root: Path, context: DataContext) -> None:
    for number, split in enumerate(("train", "val", "test")):
        put(root / split / "deep" / f"{split}.png", plain((number * 50, 0, 0)))
    for number, split in enumerate(("train", "val", "test")):
        packed = ImageFolder().open(split, 8, context)
        assert packed.names == [f"{split}/deep/{split}.png"]
        assert packed.batch([0]).image[0, 0].unique().tolist() == [pytest.approx(number * 50 / 255)]


def test_without_sub_folders_a_hash_decides_for_good(root: Path, context: DataContext) -> None:
    for number in range(60):
        put(root / f"{number}.png", plain((number, 0, 0), (4, 4)))
    splits = {split: set(ImageFolder().open(split, 8, context).names) for split in ("train", "val", "test")}
    assert set.union(*splits.values()) == {f"{number}.png" for number in range(60)}
    assert sum(map(len, splits.values())) == 60
    assert len(splits["train"]) > 40 and min(map(len, splits.values())) > 0
    for number in range(60, 70):
        put(root / f"{number}.png", plain((number, 0, 0), (4, 4)))
    assert splits["test"] <= set(ImageFolder().open("test", 8, context).names)


def test_crops(root: Path, context: DataContext) -> None:
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    image[10:30, 20:40] = 255
    put(root / "train" / "a.png", Image.fromarray(image))
    inner = ImageFolder(crop=20).open("train", 8, context).batch([0]).image
    box = ImageFolder(crop=(20, 10, 20, 20)).open("train", 8, context).batch([0]).image
    whole = ImageFolder().open("train", 8, context).batch([0]).image
    assert inner.min() == 1 and box.min() == 1
    assert whole.mean() == pytest.approx(0.25, abs=0.01)  # 20² of the centred 40²; 8-bit rounding at the edges


def test_bad_files_are_skipped_counted_and_named(root: Path, context: DataContext) -> None:
    put(root / "train" / "good.png", plain((9, 9, 9)))
    put(root / "train" / "another.jpg", plain((9, 9, 9)))
    put(root / "train" / "empty.png", b"")
    put(root / "train" / "text.jpg", b"no image")
    buffer = io.BytesIO()
    plain((1, 2, 3), (99, 99)).save(buffer, "JPEG")
    put(root / "train" / "cut.jpg", buffer.getvalue()[:300])
    put(root / "train" / "readme.txt", b"not looked at")
    packed = ImageFolder().open("train", 8, context)
    assert packed.names == ["train/another.jpg", "train/good.png"]
    skipped = {item["name"]: item["reason"] for item in packed.index.provenance["skipped"]}
    assert set(skipped) == {"train/empty.png", "train/text.jpg", "train/cut.jpg"}
    assert "empty" in skipped["train/empty.png"] and "truncated" in skipped["train/cut.jpg"]
    assert "3 files skipped" in said(context)
    ImageFolder().open("train", 8, context)  # out of the cache the files are named again
    assert said(context).count("3 files skipped") == 2


def test_nothing_but_bad_files_is_an_error_and_leaves_no_cache(root: Path, context: DataContext) -> None:
    put(root / "train" / "empty.png", b"")
    with pytest.raises(DataError, match=r"none of the 1 images.*empty\.png.*0 bytes"):
        ImageFolder().open("train", 8, context)
    assert not list(context.cache.glob("**/*.npy"))


def test_the_cache_is_used_until_something_changes(root: Path, context: DataContext) -> None:
    path = put(root / "train" / "a.png", plain((10, 10, 10)))
    first = ImageFolder().open("train", 8, context)
    stamp = (first.folder / "image.npy").stat().st_mtime_ns
    assert ImageFolder().open("train", 8, context).folder == first.folder
    assert (first.folder / "image.npy").stat().st_mtime_ns == stamp  # not decoded again
    put(path, plain((20, 20, 20)))
    os.utime(path, ns=(1, 1))
    changed = ImageFolder().open("train", 8, context)
    assert changed.folder != first.folder
    assert changed.batch([0]).image.max() == pytest.approx(20 / 255)
    assert ImageFolder(crop=10).open("train", 8, context).folder != changed.folder
    assert ImageFolder().open("train", 16, context).image_size == 16


def test_a_damaged_cache_is_made_again(root: Path, context: DataContext) -> None:
    put(root / "train" / "a.png", plain((10, 10, 10)))
    folder = ImageFolder().open("train", 8, context).folder
    os.truncate(folder / "image.npy", 130)
    assert ImageFolder().open("train", 8, context).batch([0]).image.max() == pytest.approx(10 / 255)
    assert "packed again" in said(context)


def test_a_linked_folder_is_entered_and_a_loop_ends(tmp_path: Path, root: Path, context: DataContext) -> None:
    put(tmp_path / "elsewhere" / "a.png", plain((1, 1, 1)))
    (root / "train").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere")
    assert ImageFolder().open("train", 8, context).names == ["train/a.png"]


@pytest.mark.parametrize("dataset", [ImageFolder, CelebA, DepthPairs])
def test_missing_and_empty_folders_are_named(dataset: type, root: Path, tmp_path: Path, context: DataContext) -> None:
    with pytest.raises(DataError, match="--data"):
        dataset().open("train", 8, DataContext(cache=tmp_path / "c"))
    with pytest.raises(DataError, match="no such folder") as caught:
        dataset(root=tmp_path / "nowhere").open("train", 8, DataContext(cache=tmp_path / "c"))
    assert "nowhere" in str(caught.value)
    with pytest.raises(DataError) as caught:
        dataset().open("train", 8, context)
    assert caught.value.where == str(root) and caught.value.remedy
    (root / "test").mkdir()
    with pytest.raises(DataError, match=r"none for 'train'|no folder"):
        dataset().open("train", 8, context)
    with pytest.raises(DataError, match="no split 'training'"):
        dataset().open("training", 8, context)


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(DataError, match="crop"):
        ImageFolder(crop=0)
    with pytest.raises(DataError, match="crop"):
        ImageFolder(crop=(0, 0, -5, 5))
    with pytest.raises(DataError, match="fraction"):
        ImageFolder(val_fraction=0.6, test_fraction=0.6)
    with pytest.raises(DataError, match="depth"):
        DepthPairs(depth_slope=0)


def celeba(root: Path, listed: str, sizes: dict[str, tuple[int, int]]) -> None:
    for number, (name, size) in enumerate(sizes.items()):
        v, u = np.mgrid[: size[1], : size[0]]
        image = np.stack((u % 256, v % 256, np.full_like(u, 40 * number)), axis=-1).astype(np.uint8)
        put(root / "img_celeba" / name, Image.fromarray(image))
    (root / "celeba_crop_bbox.txt").write_text(listed)


def test_celeba_by_its_crop_list(root: Path, context: DataContext) -> None:
    sizes = {name: (200, 180) for name in ("a.png", "b.png", "c.png", "d.png")}
    listed = "name split x0 y0 w h\na.png 0 30 40 64 64\nb.png 1 0 0 64 64\nc.png 2 0 0 64 64\nd.png 0 -10 -10 64 64\n"
    celeba(root, listed, sizes)
    train = CelebA().open("train", 64, context)
    assert train.names == ["a.png", "d.png"]
    images = (train.batch([0, 1]).image * 255).round()
    assert images[0, 0, 5].tolist() == list(range(30, 94))  # x0 on, pixel for pixel
    assert images[0, 1, :, 5].tolist() == list(range(40, 104))
    assert images[1, 0, 5].tolist() == [0] * 10 + list(range(54))  # the edge is repeated
    assert CelebA().open("val", 64, context).names == ["b.png"]
    assert CelebA().open("test", 64, context).names == ["c.png"]


def test_celeba_skips_missing_images_and_tiny_crops(root: Path, context: DataContext) -> None:
    celeba(root, "a.png 0 0 0 64 64\ngone.png 0 0 0 64 64\ntiny.png 0 0 0 5 64\n", {"a.png": (100, 100)})
    packed = CelebA().open("train", 8, context)
    assert packed.names == ["a.png"]
    reasons = {item["name"]: item["reason"] for item in packed.index.provenance["skipped"]}
    assert reasons == {"gone.png": "no such file", "tiny.png": "its crop is only 5×64 pixels"}


def test_celeba_names_the_line_that_is_wrong(root: Path, context: DataContext) -> None:
    celeba(root, "name split x0 y0 w h\na.png 0 0 0 64 64\nb.png 0 1 2\n", {"a.png": (100, 100)})
    with pytest.raises(DataError, match=r"celeba_crop_bbox\.txt:3"):
        CelebA().open("train", 8, context)
    with pytest.raises(DataError, match="no such crop list"):
        CelebA(crop_list=Path("other.txt")).open("train", 8, context)
    (root / "celeba_crop_bbox.txt").write_text("a.png 0 0 0 64 64\n")
    with pytest.raises(DataError, match="no images of the split 'val'"):
        CelebA().open("val", 8, context)
    shutil.rmtree(root / "img_celeba")
    with pytest.raises(DataError, match="none of the 1 images"):
        CelebA().open("train", 8, context)


def test_celeba_aligned_images_and_cropped_folders(tmp_path: Path, context: DataContext, root: Path) -> None:
    v, u = np.mgrid[:218, :178]
    put(root / "img_align_celeba" / "1.png", Image.fromarray(np.stack((u, v, u), axis=-1).astype(np.uint8)))
    (root / "list_eval_partition.txt").write_text("1.png 0\n")
    image = CelebA().open("train", 114, context).batch([0]).image * 255
    assert image[0, 0, 0, 0].round() == 32 and image[0, 1, 0, 0].round() == 64
    cropped = tmp_path / "cropped"
    put(cropped / "test" / "x.jpg", plain((5, 5, 5), (128, 128)))
    assert CelebA(root=cropped).open("test", 8, DataContext(cache=tmp_path / "c2")).names == ["test/x.jpg"]


def bump(size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """A disc of varying depth before a background: values in [0, 1] (1 is near), and the disc."""
    v, u = (np.mgrid[:size, :size] - (size - 1) / 2) / (size / 2)
    disc = u**2 + v**2 < 0.5
    return np.where(disc, 0.3 + 0.5 * (1 - u**2 - v**2), 0.0), disc


@pytest.mark.parametrize(("bits", "steps"), [(8, 255), (16, 65535)])
def test_depth_pairs(root: Path, context: DataContext, bits: int, steps: int) -> None:
    value, disc = bump()
    stored = np.rint(value * steps).astype(np.uint8 if bits == 8 else np.uint16)
    put(root / "train" / "image" / "sub" / "001_image.png", plain((7, 7, 7), (32, 32)))
    put(root / "train" / "depth" / "sub" / "001_depth.png", Image.fromarray(stored))
    batch = DepthPairs().open("train", 32, context).batch([0])
    assert batch.mask is not None and np.array_equal(batch.mask[0].numpy(), disc)
    assert batch.depth is not None
    found = batch.depth[0].numpy()[disc]
    # Half a step of the file times the slope of 0.2, and float32 twice (relief, and 1.1 − relief).
    assert np.abs(found - (1.1 - 0.2 * value[disc])).max() < 0.2 * 0.5 / steps + 3e-7


def test_depth_is_averaged_within_the_object_only() -> None:
    depth = np.full((64, 64), 5.0)  # a background far away
    depth[16:48, 17:47] = 1.0
    found, mask = resize_depth(depth, CentreCrop(), 16, Path("d"))
    assert mask[4:12, 5:11].all() and mask.sum() >= 48
    assert np.unique(found[mask]).tolist() == [1.0]
    assert np.unique(found[~mask]).tolist() == [5.0]


def test_files_without_partners_are_skipped_and_counted(root: Path, context: DataContext) -> None:
    value, _ = bump()
    stored = Image.fromarray(np.rint(value * 65535).astype(np.uint16))
    for name in ("1", "2"):
        put(root / "train" / "image" / f"image_{name}.png", plain((7, 7, 7), (32, 32)))
    put(root / "train" / "depth" / "depth_1.png", stored)
    put(root / "train" / "depth" / "depth_3.png", stored)
    packed = DepthPairs().open("train", 16, context)
    assert packed.names == ["train/image/image_1.png"]
    reasons = {item["name"]: item["reason"] for item in packed.index.provenance["skipped"]}
    assert reasons == {
        "train/image/image_2.png": "no depth map belongs to it",
        "train/depth/depth_3.png": "no image belongs to it",
    }
    (root / "train" / "depth" / "depth_1.png").unlink()
    with pytest.raises(DataError, match="none of the 2 images has a depth map") as caught:
        DepthPairs().open("train", 16, context)
    assert "depth/depth_1.png" in str(caught.value)


def test_depth_of_another_size_or_without_an_object_is_skipped(root: Path, context: DataContext) -> None:
    value, _ = bump()
    put(root / "train" / "image" / "1.png", plain((7, 7, 7), (32, 32)))
    put(root / "train" / "image" / "2.png", plain((7, 7, 7), (32, 32)))
    put(root / "train" / "depth" / "1.png", Image.fromarray(np.rint(value * 255).astype(np.uint8)).resize((16, 16)))
    put(root / "train" / "depth" / "2.png", Image.new("L", (32, 32), 9))
    with pytest.raises(DataError, match=r"16×16 pixels, its image 32×32.*constant"):
        DepthPairs().open("train", 16, context)


def test_scales_and_crops_of_depth(root: Path, context: DataContext) -> None:
    value, _ = bump()
    put(root / "train" / "image" / "1.png", plain((7, 7, 7), (32, 32)))
    np.save(root / "depth.npy", DepthScale().offset - value)
    (root / "train" / "depth").mkdir()
    shutil.move(root / "depth.npy", root / "train" / "depth" / "1.npy")
    batch = DepthPairs(crop=16).open("train", 16, context).batch([0])
    assert batch.depth is not None
    np.testing.assert_allclose(batch.depth[0].numpy(), (1.1 - value)[8:24, 8:24], atol=3e-7)  # float32 twice
