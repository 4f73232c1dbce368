"""Decoding every kind of image a folder may hold, good and bad, from real files made on the fly."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from recon_toolkit.data.decode import MAX_PIXELS, Box, CentreCrop, DepthScale, cut, read_depth, read_image, read_mask
from recon_toolkit.errors import DataError


def ramp(height: int = 24, width: int = 32) -> np.ndarray:
    """An RGB picture whose three channels all differ."""
    v, u = np.mgrid[:height, :width]
    return np.stack((u * 7 % 256, v * 9 % 256, (u + v) * 4 % 256), axis=-1).astype(np.uint8)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_rgb_png_is_read_as_it_is(tmp_path: Path) -> None:
    assert np.array_equal(read_image(save(tmp_path / "a.png", Image.fromarray(ramp()))), ramp())


def test_16_bit_grey_keeps_its_upper_bits(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 24 * 32).reshape(24, 32).astype(np.uint16)
    found = read_image(save(tmp_path / "a.png", Image.fromarray(values)))
    assert np.array_equal(found, np.repeat(np.rint(values / 257).astype(np.uint8)[..., None], 3, axis=2))


def test_dark_16_bit_grey_stays_dark(tmp_path: Path) -> None:
    # Values below 256 of 65535 are nearly black; a reader that takes them for 8 bits would show them at full range.
    values = np.full((8, 8), 200, dtype=np.uint16)
    assert read_image(save(tmp_path / "a.png", Image.fromarray(values))).max() == 1


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "LAB"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(ramp())
    suffix = {"CMYK": "jpg", "YCbCr": "jpg", "LAB": "tif"}.get(mode, "png")
    # Pillow converts from LAB, but to it only with a colour profile; any three planes do.
    converted = Image.merge("LAB", image.split()) if mode == "LAB" else image.convert(mode)
    found = read_image(save(tmp_path / f"a.{suffix}", converted))
    assert found.shape == (24, 32, 3)
    assert found.std() > 20  # the picture is there, not a plain plane


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_parts_are_laid_on_white(tmp_path: Path, mode: str) -> None:
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    pixels[:, 4:, 3] = 255  # left half transparent, right half opaque black
    image = Image.fromarray(pixels)
    if mode == "PA":  # a palette with a transparent entry
        image = Image.fromarray((pixels[..., 3] // 255).astype(np.uint8)).convert("P")
        image.putpalette([9, 9, 9, 0, 0, 0])
        path = save(tmp_path / "a.png", image, transparency=0)
    else:
        path = save(tmp_path / "a.png", image.convert(mode))
    found = read_image(path)
    assert (found[:, :4] == 255).all()
    assert (found[:, 4:] == 0).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((16, 32, 3), dtype=np.uint8)
    upright[:8, :8] = 255  # the mark in the upper left
    undo: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: a.transpose(1, 0, 2)[::-1],
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(undo[orientation](upright))
    path = save(tmp_path / "a.jpg", Image.fromarray(stored), exif=exif, quality=95)
    found = read_image(path).astype(int)
    assert np.abs(found - upright).max() < 30  # JPEG at quality 95 rings by less at an edge of full contrast
    assert read_image(path, crop=CentreCrop(16), size=16).shape == (16, 16, 3)


def test_jpeg_draft_keeps_the_crop_in_place(tmp_path: Path) -> None:
    # A crop of a large JPEG is decoded at a lower resolution: it must agree with the crop of the full picture.
    v, u = np.mgrid[:800, :1000] / 1000
    smooth = np.stack((u, v, 1 - u), axis=-1)
    path = save(tmp_path / "a.jpg", Image.fromarray((smooth * 255).astype(np.uint8)), quality=95)
    found = read_image(path, crop=Box(100, 200, 600, 600), size=32).astype(float)
    centres = (np.arange(32) + 0.5) / 32 * 600
    expected = np.stack(np.broadcast_arrays((100 + centres) / 1000, (200 + centres[:, None]) / 1000), axis=-1) * 255
    # A JPEG and an 8-bit rounding are worth 2 grey levels; a shift by one pixel of 32 would be 5.
    assert np.abs(found[..., :2] - expected).max() < 2.5


def test_crop_beyond_the_edge_repeats_it(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(ramp()))
    found = read_image(path, crop=Box(-4, -2, 12, 12), size=12)
    assert np.array_equal(found, np.pad(ramp(), ((2, 0), (4, 0), (0, 0)), mode="edge")[:12, :12])


def cut_from_whole(picture: np.ndarray, box: Box, size: int | None) -> np.ndarray:
    """A crop by its definition: the whole picture with its edges repeated, cut at the crop, and then resized."""
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = box.x, box.y, box.x + box.width, box.y + box.height
    left, top, right, bottom = (max(0, int(np.ceil(over))) for over in (-x0, -y0, x1 - width, y1 - height))
    padded = Image.fromarray(np.pad(picture, ((top, bottom), (left, right), (0, 0)), mode="edge"))
    x0, x1, y0, y1 = x0 + left, x1 + left, y0 + top, y1 + top
    if size is None:
        return np.asarray(padded.crop((round(x0), round(y0), round(x1), round(y1))))
    x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, padded.width), min(y1, padded.height)
    u, v = int(np.floor(x0)), int(np.floor(y0))
    inner = padded.crop((u, v, int(np.ceil(x1)), int(np.ceil(y1))))
    if (x0 - u, y0 - v, x1 - u, y1 - v) == (0, 0, size, size):
        return np.asarray(inner)
    return np.asarray(inner.resize((size, size), Image.Resampling.BILINEAR, box=(x0 - u, y0 - v, x1 - u, y1 - v)))


@pytest.mark.parametrize("size", [None, 1, 7, 32, 90])
def test_a_crop_is_that_of_the_whole_picture_with_its_edges_repeated(size: int | None) -> None:
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (40, 53, 3), dtype=np.uint8)  # noise: any pixel too many or too few would show
    free = np.column_stack([random.uniform(-50, 60, (200, 2)), random.uniform(0.3, 70, (200, 2))])
    halves = np.column_stack([random.integers(-60, 100, (200, 2)) / 2, random.integers(1, 40, (200, 2))])  # are rounded
    boxes = [Box(*map(float, numbers)) for numbers in (*free, *halves)]
    boxes += [Box(-7, -7, 32, 32), Box(-0.25, 3, 20.5, 20.5), Box(10, 30, 7, 7), Box(52.5, 39.5, 0.75, 0.75)]
    over = {"left": 0, "top": 0, "right": 0, "bottom": 0, "inside": 0, "outside": 0}
    for box in boxes:
        beyond = {
            "left": box.x < 0,
            "top": box.y < 0,
            "right": box.x + box.width > 53,
            "bottom": box.y + box.height > 40,
        }
        beyond["inside"] = not any(beyond.values())
        beyond["outside"] = box.x > 53 or box.y > 40 or box.x + box.width < 0 or box.y + box.height < 0
        over = {name: count + beyond[name] for name, count in over.items()}
        found = np.asarray(cut(Image.fromarray(picture), box, size, Path("a.png")))
        assert np.array_equal(found, cut_from_whole(picture, box, size)), box
    assert min(over.values()) >= 10, over


def test_what_is_limited_is_the_crop_and_not_the_picture_around_it() -> None:
    # 79 megapixels are read; with 200 columns more the whole picture would have more than the limit.
    picture, corner = Image.new("RGB", (10_000, 7900)), ramp(500, 300)
    assert picture.width * picture.height < MAX_PIXELS < (picture.width + 200) * picture.height
    picture.paste(Image.fromarray(corner), (0, 3000))
    found = np.asarray(cut(picture, Box(-200, 3000, 500, 500), 500, Path("a.png")))
    assert np.array_equal(found, np.pad(corner, ((0, 0), (200, 0), (0, 0)), mode="edge"))
    with pytest.raises(DataError, match=r"a\.png.*too far beyond"):
        cut(picture, Box(-200, 0, 10_200, 7900), 64, Path("a.png"))


def test_resizing_is_antialiased(tmp_path: Path) -> None:
    checker = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    found = read_image(save(tmp_path / "a.png", Image.fromarray(checker)), size=8)
    # Averaged, a checkerboard is grey; picked, it is black or white. The kernel's edge lets 3 levels through.
    assert np.abs(found.astype(int) - 127).max() <= 4


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing: a decompression bomb's header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(ramp(100, 100)).save(buffer, kind)
    return buffer.getvalue()


# Ours to silence once in a process; pytest puts warnings back after each test.
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty"),
        (b"hello, this is no image at all", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),  # would start another program
        (encoded("PNG")[: len(encoded("PNG")) // 2], "truncated"),
        (encoded("JPEG")[: len(encoded("JPEG")) // 2], "truncated"),
        (encoded("JPEG")[:20], "not an image"),
        (png_header(10_000, 10_000), "pixels"),
        (png_header(60_000, 60_000), "pixels"),
        (png_header(100, 100), "damaged"),  # complete, but its data ends after a line
    ],
)
def test_bad_files_are_named_with_what_is_wrong(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "bad file.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=problem) as caught:
        read_image(path)
    assert caught.value.where == str(path)
    assert caught.value.remedy


def test_the_limit_is_below_pillows_own() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None and Image.MAX_IMAGE_PIXELS > MAX_PIXELS


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(DataError, match="folder"):
        read_image(tmp_path)


def test_crops_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(ramp()))
    with pytest.raises(DataError, match="170 pixels does not fit into 32×24"):
        read_image(path, crop=CentreCrop(170))
    with pytest.raises(DataError, match="misses"):
        read_image(path, crop=Box(100, 0, 10, 10))


def test_depth_of_8_and_16_bits_follows_the_scale(tmp_path: Path) -> None:
    eight = np.array([[0, 255], [51, 128]], dtype=np.uint8)
    sixteen = np.array([[0, 65535], [13107, 32768]], dtype=np.uint16)
    for values, steps in ((eight, 255), (sixteen, 65535)):
        path = save(tmp_path / "d.png", Image.fromarray(values))
        # float64 throughout: only rounding of the last digits is allowed
        np.testing.assert_allclose(read_depth(path), 1.1 - 0.2 * (values / steps), rtol=0, atol=1e-12)
        np.testing.assert_allclose(read_depth(path, scale=DepthScale(2, 3)), 2 + 3 * (values / steps), atol=1e-12)


def test_depth_from_arrays_and_floating_images_is_taken_as_it_is(tmp_path: Path) -> None:
    depth = np.random.default_rng(0).uniform(0.9, 1.1, (5, 7)).astype(np.float32)
    np.save(tmp_path / "a.npy", depth)
    np.save(tmp_path / "b.npy", depth[None])
    np.savez(tmp_path / "c.npz", depth=depth, other=depth * 2)
    np.savez_compressed(tmp_path / "d.npz", only=depth)
    Image.fromarray(depth).save(tmp_path / "e.tiff")
    for name in ("a.npy", "b.npy", "c.npz", "d.npz", "e.tiff"):
        assert np.array_equal(read_depth(tmp_path / name), depth)


def test_grey_depth_stored_as_colour_counts_and_colour_does_not(tmp_path: Path) -> None:
    grey = np.full((4, 4, 3), 51, dtype=np.uint8)
    assert read_depth(save(tmp_path / "a.png", Image.fromarray(grey)))[0, 0] == pytest.approx(1.1 - 0.2 * 0.2)
    with pytest.raises(DataError, match="colour"):
        read_depth(save(tmp_path / "b.png", Image.fromarray(ramp())))


def test_bad_arrays_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="damaged"):  # a pickle: refused, not run
        read_depth(path)
    np.save(path, np.zeros((4, 4, 3)))
    with pytest.raises(DataError, match="H, W"):
        read_depth(path)
    np.save(path, np.full((4, 4), np.nan))
    with pytest.raises(DataError, match="no finite"):
        read_depth(path)
    np.save(path, np.zeros((64, 64)))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="truncated"):
        read_depth(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="empty"):
        read_depth(path)
    np.savez(tmp_path / "b.npz", one=np.zeros((4, 4)), two=np.zeros((4, 4)))
    with pytest.raises(DataError, match="one, two"):
        read_depth(tmp_path / "b.npz")
    (tmp_path / "c.npz").write_bytes(b"PK but no archive")
    with pytest.raises(DataError, match="damaged"):
        read_depth(tmp_path / "c.npz")


def test_a_text_chunk_that_is_too_large_is_an_error_like_others(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("bomb", "a" * 3_000_000, zip=True)
    path = save(tmp_path / "a.png", Image.fromarray(ramp()), pnginfo=info)
    with pytest.raises(DataError):
        read_image(path)


def test_masks_come_from_images_and_arrays(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((6, 6)) > 0.5
    np.save(tmp_path / "a.npy", mask)
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "a.png")
    assert np.array_equal(read_mask(tmp_path / "a.npy"), mask)
    assert np.array_equal(read_mask(tmp_path / "a.png"), mask)
