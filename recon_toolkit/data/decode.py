"""Rectangles of pictures, as (left, top, right, bottom) in pixels: cut out, beyond the edges too, and resized."""

from __future__ import annotations

import errno
import io
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from recon_toolkit.data.float_maps import ARRAYS, EXR, PFM, read_array, read_exr, read_float_tiff, read_pfm
from recon_toolkit.errors import DataError, ReconError
from recon_toolkit.files import printable, size_of

Rectangle = tuple[float, float, float, float]
PixelRectangle = tuple[int, int, int, int]


def covered(box: Rectangle) -> PixelRectangle:
    """The whole pixels that a rectangle covers, if only in part."""
    return int(np.floor(box[0])), int(np.floor(box[1])), int(np.ceil(box[2])), int(np.ceil(box[3]))


def within(box: PixelRectangle, image: Image.Image) -> bool:
    """Whether a rectangle lies in the image."""
    return min(box[0], box[1]) >= 0 and box[2] <= image.width and box[3] <= image.height


def extended(image: Image.Image, box: PixelRectangle) -> Image.Image:
    """A rectangle of an image whose outermost pixels are repeated beyond its edges; no more than that is ever made.

    Args:
        image: of any mode that NumPy can hold.
        box: where; it may lie beyond the image altogether.
    """
    x0, y0, x1, y1 = box
    if within(box, image) or x0 == x1 or y0 == y1:
        return image.crop(box)
    columns, rows = np.arange(x0, x1).clip(0, image.width - 1), np.arange(y0, y1).clip(0, image.height - 1)
    inner = np.asarray(image.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)))
    return Image.fromarray(inner.take(columns - columns[0], axis=1).take(rows - rows[0], axis=0))


def scaled(inner: Image.Image, box: Rectangle, size: int) -> Image.Image:
    """What a rectangle shows at ``size`` × ``size``, with antialiasing that sees nothing outside.

    Args:
        inner: the pixels that it covers (:func:`covered`).
        box: the rectangle.
        size: in pixels.
    """
    left, top, _, _ = covered(box)
    moved = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    if moved == (0, 0, size, size):
        return inner
    return inner.resize((size, size), Image.Resampling.BILINEAR, box=moved)


#: Larger images are refused before a pixel of them is decoded (240 MB as RGB).
MAX_PIXELS = 80_000_000
#: Formats that are read. Formats that start other programs (EPS) or fetch things are not among them.
FORMATS = ("PNG", "JPEG", "MPO", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF", "HEIF")
#: Read where pillow-heif is installed, which the extra ``heic`` brings.
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
IMAGE_SUFFIXES = frozenset(
    (
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp"),
        *(".ppm", ".pgm", ".pnm", ".jp2", ".avif", *HEIF_SUFFIXES),
    )
)
DEPTH_SUFFIXES = frozenset((".png", *ARRAYS, EXR, PFM, ".tif", ".tiff"))
ORIENTATION = 0x0112  # the EXIF tag
_BITS = 258  # the TIFF tag of bits a sample
SUPPORTED = "use a PNG, JPEG, WebP, TIFF, BMP, GIF, PPM or JPEG 2000 file"


@dataclass(frozen=True)
class Box:
    """A crop in pixels of the upright image: left, top, width and height. It may reach beyond the image."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class CentreCrop:
    """A centred square of ``side`` pixels; the largest that fits where ``side`` is None."""

    side: int | None = None

    def box(self, width: int, height: int) -> Box:
        """The crop in an image of ``width`` × ``height`` pixels; ValueError where it does not fit."""
        side = min(width, height) if self.side is None else self.side
        if side > min(width, height):
            raise ValueError(f"a centre crop of {side} pixels does not fit into {width}×{height}")
        return Box((width - side) // 2, (height - side) // 2, side, side)


Crop = Box | CentreCrop


def crop_from_option(crop: int | tuple[int, int, int, int] | None, *, option: str = "crop") -> Crop:
    """A pipeline's crop option: a side in pixels, a box (x0, y0, width, height), or none.

    Raises:
        DataError: a side, width or height is not positive.
    """
    if crop is None:
        return CentreCrop()
    if isinstance(crop, int):
        valid: Crop | None = CentreCrop(crop) if crop > 0 else None
    else:
        valid = Box(*crop) if crop[2] > 0 and crop[3] > 0 else None
    if valid is None:
        raise DataError(f"{crop!r} is not a crop", where=option, remedy="give a side above 0, or x0, y0, width, height")
    return valid


def read_image(path: str | Path, *, crop: Crop | None = None, size: int | None = None) -> NDArray[np.uint8]:
    """Decode an image file as upright 8-bit RGB, optionally cropped and resized.

    16-bit images keep their upper eight bits (rounded), grey and palette images become RGB, CMYK is converted, and
    transparent parts are laid on white. The EXIF orientation is applied. Of an animation, the first frame counts.

    Args:
        path: the file.
        crop: what to cut out; beyond the image's edges the edge pixels are repeated. None keeps everything.
        size: the height and width to resize to, with antialiasing (bilinear, as in Wu et al.'s code); JPEG files
            are decoded at a lower resolution where twice this size is still kept. None keeps the crop's own size.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: the file is missing, empty, truncated, not an image, larger than :data:`MAX_PIXELS`, or smaller
            than the crop.
    """
    path = Path(path)
    with _explained(path):
        with _open(path) as image:
            rotated = _orientation(image) >= 5  # the orientations that swap width and height
            full = (image.height, image.width) if rotated else image.size
            box = _box(crop, *full, path=path)
            if size is not None and image.format == "JPEG":
                keep = 2 * size / min(box.width, box.height)
                image.draft(None, (int(image.width * keep) + 1, int(image.height * keep) + 1))
            image.load()
            upright = _rgb(_upright(image))
        if crop is None and size is None:
            return np.array(upright)
        scale_x, scale_y = upright.width / full[0], upright.height / full[1]
        box = Box(box.x * scale_x, box.y * scale_y, box.width * scale_x, box.height * scale_y)
        return np.array(cut(upright, box, size, path))


def decode_image(data: bytes, *, name: str = "the picture") -> NDArray[np.uint8]:
    """:func:`read_image` for a file that is in memory; nothing of it reaches the disk.

    Args:
        data: the file.
        name: what messages call it.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: as :func:`read_image`.
    """
    place = Path(name)
    with _explained(place), _open(place, data) as image:
        image.load()
        return np.array(_rgb(_upright(image)))


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of an image file, upright, without decoding it. Raises DataError as :func:`read_image`."""
    with _explained(Path(path)), _open(Path(path)) as image:
        return (image.height, image.width) if _orientation(image) >= 5 else image.size


@dataclass(frozen=True)
class DepthScale:
    """What the numbers of an image file mean as depth: depth = offset + slope · value, value in [0, 1].

    The defaults are those of Wu et al.'s synthetic faces, where 1 is near: depth = 1.1 − 0.2 · value.
    """

    offset: float = 1.1
    slope: float = -0.2
    sparse: bool = False  # the value 0 means that there is no depth


class UnknownScale(DataError):
    """A depth map of integers does not say what they mean."""


#: The PNG text entry in which a depth map of ours says its own scale, as "offset slope"; 0 is then no depth at all.
SCALE_ENTRY = "recon-depth"


def read_depth(path: str | Path, *, scale: DepthScale | None = None, ask: bool = False) -> NDArray[np.float64]:
    """Decode a depth map: a PNG or TIFF of 8 or 16 bits, ``.npy``, ``.npz``, PFM, OpenEXR, or a TIFF of floats.

    Integer images are read as [0, 1] (8-bit: value / 255, 16-bit: value / 65535) and go through ``scale``.
    Arrays and floating-point images are depth already. A colour image counts where its channels are equal.
    An ``.npz`` must hold one array, or one named ``depth``. Nothing is ever unpickled.

    Args:
        path: the file.
        scale: for integer images; by default what the file itself says (:data:`SCALE_ENTRY`), else
            :class:`DepthScale`'s defaults.
        ask: refuse an integer image whose scale neither ``scale`` nor the file says.

    Returns:
        (H, W) float64; may hold non-finite values where the file does.

    Raises:
        UnknownScale: with ``ask``, what the numbers mean is not known.
        DataError: the file cannot be read, is not a single-channel map, or holds no finite value; or OpenEXR is not
            installed.
    """
    path = Path(path)
    with _explained(path):
        values, integer, own = _read_depth(path)
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values.squeeze(0 if values.shape[0] == 1 else 2)
    if values.ndim != 2:
        raise DataError(
            f"a depth map is (H, W), this is {values.shape}", where=str(path), remedy="give one map per file"
        )
    if not np.isfinite(values).any():
        raise DataError("holds no finite depth", where=str(path), remedy="check how it was written")
    if not integer:
        return values
    if ask and scale is None and own is None:
        raise UnknownScale("its numbers are integers, and nothing says what depth they mean", where=printable(path))
    scale = scale or own or DepthScale()
    depth = scale.offset + scale.slope * values
    return np.where(values == 0, np.nan, depth) if own is not None and own.sparse else depth


def read_mask(path: str | Path) -> NDArray[np.bool_]:
    """A mask (H, W) from an image (above half of white is True) or a ``.npy`` (non-zero is True)."""
    path = Path(path)
    if path.suffix.lower() in ARRAYS:
        with _explained(path):
            _check_file(path)
            return np.asarray(read_array(path, limit=MAX_PIXELS) != 0)
    return np.asarray(read_image(path).mean(axis=2) > 127.5)


@cache
def _formats() -> tuple[str, ...]:
    """The formats of :data:`FORMATS` that this Pillow has; done once, at the first use."""
    # Pillow's own warning about large images starts above our limit, where an error is raised anyway.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    Image.init()
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _open(path: Path, data: bytes | None = None) -> Image.Image:
    """The image file ``path``, or one that is in memory and called so, before a pixel of it is decoded."""
    if (size_of(path) if data is None else len(data)) == 0:
        raise DataError("the file is empty (0 bytes)", where=str(path), remedy="copy or download it again")
    image = Image.open(path if data is None else io.BytesIO(data), formats=_formats())
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise DataError(
            f"{image.width}×{image.height} pixels are more than the {MAX_PIXELS:,} that are read",
            where=str(path),
            remedy="scale the image down first",
        )
    return image


class _explained:
    """Turns whatever a decoder raises into a DataError about ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> Literal[False]:
        # Decoders raise nearly anything on damaged data, so that everything but our own messages is translated.
        if error is None or isinstance(error, ReconError) or not isinstance(error, Exception):
            return False
        place = printable(self.path)
        match error:
            case FileNotFoundError():
                raise DataError("no such file", where=place, remedy="check the path") from None
            case IsADirectoryError():
                raise DataError("is a folder, not a file", where=place, remedy="name the files in it") from None
            case PermissionError():
                raise DataError("may not be read", where=place, remedy="check its permissions") from None
            case Image.DecompressionBombError():
                raise DataError(
                    f"holds more than the {MAX_PIXELS:,} pixels that are read",
                    where=place,
                    remedy="scale the image down first",
                ) from None
            case UnidentifiedImageError() if self.path.suffix.lower() in HEIF_SUFFIXES and "HEIF" not in _formats():
                raise DataError(
                    "is a HEIC file", where=place, remedy="pip install 'recon-toolkit[heic]' reads it"
                ) from None
            case UnidentifiedImageError():
                raise DataError("not an image that can be read", where=place, remedy=SUPPORTED) from None
            case OSError(errno=errno.ELOOP):
                raise DataError("is a link that leads to itself", where=place, remedy="name a file") from None
            case OSError(errno=errno.ENAMETOOLONG):
                raise DataError("the name is too long", where=place, remedy="check the path") from None
            case ValueError() if "null byte" in str(error):
                raise DataError("a name has no null byte", where=place, remedy="check the path") from None
            case MemoryError():
                raise DataError("does not fit into memory", where=place, remedy="scale it down first") from None
            case _:
                raise DataError(
                    f"damaged or truncated: {error}", where=place, remedy="copy or download it again"
                ) from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """An image as :func:`read_image` reads it: turned as its EXIF data says, 8 bits, transparent parts on white.

    Raises:
        DataError: a floating-point image, whose range is not known.
    """
    try:
        return _rgb(_upright(image))
    except ValueError as error:
        raise DataError(str(error), remedy="convert it to 8 or 16 bits") from None


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged metadata is no reason to refuse the picture
        return 1


def _upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image) if _orientation(image) != 1 else image


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode → RGB, 8 bits, transparent parts on white."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # 16 bits a pixel, whatever Pillow calls it; its own conversion clips at 255
        values = np.asarray(image)
        deep = image.mode != "I" or values.max(initial=0) > 255
        if values.dtype != np.uint16:
            values = np.clip(values, 0, 65535 if deep else 255).astype(np.uint16)
        # A table costs a byte a pixel; arithmetic on floats would cost several times eight.
        table = np.rint(np.arange(65536) / 257).astype(np.uint8) if deep else np.arange(65536).astype(np.uint8)
        return Image.fromarray(table[values]).convert("RGB")
    if image.mode == "F":
        raise ValueError("a floating-point image has no known range; convert it to 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _box(crop: Crop | None, width: int, height: int, *, path: Path) -> Box:
    if crop is None:
        return Box(0, 0, width, height)
    if isinstance(crop, CentreCrop):
        try:
            return crop.box(width, height)
        except ValueError as error:
            raise DataError(str(error), where=str(path), remedy="lower the crop option") from None
    if crop.x >= width or crop.y >= height or crop.x + crop.width <= 0 or crop.y + crop.height <= 0:
        raise DataError(
            f"the crop box ({crop.x:g}, {crop.y:g}, {crop.width:g}, {crop.height:g}) misses the {width}×{height} image",
            where=str(path),
            remedy="check that the crops belong to these images",
        )
    return crop


def cut(image: Image.Image, box: Box, size: int | None, path: Path) -> Image.Image:
    """Crop and resize in one step; the outermost pixels are repeated beyond the edges.

    Raises:
        DataError: the crop reaches beyond the edges and has more than :data:`MAX_PIXELS`.
    """
    x0, y0, x1, y1 = box.x, box.y, box.x + box.width, box.y + box.height
    left, top = max(0, int(np.ceil(-x0))), max(0, int(np.ceil(-y0)))
    right, bottom = max(0, int(np.ceil(x1 - image.width))), max(0, int(np.ceil(y1 - image.height)))
    # From here on in pixels of the image with its edges repeated, of which only the crop is ever made.
    width, height = left + image.width + right, top + image.height + bottom
    x0, x1, y0, y1 = x0 + left, x1 + left, y0 + top, y1 + top
    if size is None:
        limits: Rectangle = (round(x0), round(y0), round(x1), round(y1))
    else:
        limits = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
    pixels = covered(limits)
    pixels = (pixels[0] - left, pixels[1] - top, pixels[2] - left, pixels[3] - top)
    if (pixels[2] - pixels[0]) * (pixels[3] - pixels[1]) > MAX_PIXELS and not within(pixels, image):
        raise DataError("the crop reaches too far beyond the image", where=str(path), remedy="check the crop box")
    inner = extended(image, pixels)
    return inner if size is None else scaled(inner, limits, size)


def resized(image: Image.Image, box: Rectangle, size: int) -> Image.Image:
    """A box (left, top, right, bottom) of an image, resized to ``size`` × ``size`` with antialiasing.

    What lies outside the box has no part in it: Pillow alone would let it bleed in over the box's edges.
    """
    return scaled(image.crop(covered(box)), box, size)


def _read_depth(path: Path) -> tuple[NDArray[np.float64], bool, DepthScale | None]:
    """A file's values, whether they are integers scaled to [0, 1], and what the file says that these mean."""
    suffix = path.suffix.lower()
    _check_file(path)
    if suffix in ARRAYS:
        return np.array(read_array(path, limit=MAX_PIXELS), dtype=np.float64), False, None
    if suffix in (EXR, PFM):
        return (read_exr if suffix == EXR else read_pfm)(path, limit=MAX_PIXELS), False, None
    if suffix in (".tif", ".tiff") and _of_other_floats(path):
        return read_float_tiff(path, limit=MAX_PIXELS), False, None
    with _open(path) as image:
        image.load()
        own = _own_scale(image, path)
        if image.mode == "F":
            return np.asarray(image, dtype=np.float64), False, None
        if image.mode.startswith("I"):
            return np.asarray(image) / 65535.0, True, own
        if image.mode in ("1", "L"):
            return np.asarray(image.convert("L")) / 255.0, True, own
        channels = np.asarray(image.convert("RGB"))
    if (channels != channels[..., :1]).any():
        raise DataError("a colour image is not a depth map", where=str(path), remedy="give grey values of 8 or 16 bits")
    return channels[..., 0] / 255.0, True, own


def _of_other_floats(path: Path) -> bool:
    """Whether a TIFF holds floats of 16 bits, which Pillow does not know, or of 64, which it rounds."""
    try:
        with _open(path) as image:
            return image.mode == "F" and getattr(image, "tag_v2", {}).get(_BITS, (32,))[0] == 64
    except (UnidentifiedImageError, SyntaxError, KeyError):
        return True


def _own_scale(image: Image.Image, path: Path) -> DepthScale | None:
    entry = image.info.get(SCALE_ENTRY)
    if entry is None:
        return None
    try:
        offset, slope = (float(word) for word in str(entry).split())
    except ValueError:
        offset = slope = float("nan")
    if not np.isfinite([offset, slope]).all():
        raise DataError(f"its entry {SCALE_ENTRY} is not two numbers", where=str(path), remedy="write the file again")
    return DepthScale(offset, slope, sparse=True)


def _check_file(path: Path) -> None:
    """Raise DataError for an empty file, a pipe or a device; OSError where there is none."""
    if path.is_dir():
        raise IsADirectoryError(path)
    if size_of(path) == 0:
        raise DataError("the file is empty (0 bytes)", where=str(path), remedy="copy or download it again")
