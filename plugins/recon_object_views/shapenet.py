"""The files of Lin, Kong and Lucey's released data (AAAI 2018): where they lie, what they hold, reading and writing.

As their code (chenhsuanlin/3D-point-cloud-generation) reads and makes them; its archive unpacks to a folder ``data``:

- ``{category}_train.list`` and ``{category}_test.list`` have a line ``{category}/{id}`` for each object; there is no
  list for validation. The category is ShapeNet's synset number;
- ``{category}_inputRGB/{id}.npy``: (24, 64, 64, 3) in 0 … 255;
- ``{category}_depth/{id}.mat``: ``Z`` (100, 128, 128) float, depth from random sides, and ``trans`` (100, 4), unit
  quaternions, scalar first, that turn the world into Blender's camera (y up, looking along −z);
- ``{category}_depth_fixed8/{id}.mat``: ``Z`` (8, 128, 128), from the eight corners of a cube. Their ``trans_fuse8.npy``
  is :data:`~recon_toolkit.geometry.orthographic.FIXED_VIEWS`;
- ``{category}_testGT/{id}.mat``, of the test objects only: ``V`` (N, 3), the model's vertices, and ``Vd`` (100000, 3),
  points added where edges were longest, without shape or order beyond that.

Depth is Blender's, of an orthographic camera of scale 1 at distance 1 from the origin, sampled at pixel centres without
antialiasing: 1 at the object's middle, and 0 for what was infinite, the background. So ours is the same number
(:mod:`recon_toolkit.geometry.orthographic`). Depth maps are in Blender's world, z up. ``V`` and ``Vd`` are in the
model's own coordinates, **y up**: their ``evaluate_dist.py`` turns a prediction (x, y, z) to (x, z, −y) before it
compares. Here they are turned back on reading, so that everything is z up. Their networks take pixel i to lie at
i / 128 − 1/2, half a pixel beside the centre that their renderings have there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_object_views.render import DEEPEST
from recon_toolkit.errors import DataError
from recon_toolkit.files import write_text, writing

SPLITS = ("train", "val", "test")
FIXED = 8
#: How far from 1 the length of a quaternion may be.
_UNIT = 1e-2
#: ShapeNetCore's synsets and what they are commonly called.
SYNSETS = {
    "02691156": "airplane", "02747177": "bin", "02773838": "bag", "02801938": "basket", "02808440": "bathtub",
    "02818832": "bed", "02828884": "bench", "02843684": "birdhouse", "02871439": "bookshelf", "02876657": "bottle",
    "02880940": "bowl", "02924116": "bus", "02933112": "cabinet", "02942699": "camera", "02946921": "can",
    "02954340": "cap", "02958343": "car", "02992529": "cellphone", "03001627": "chair", "03046257": "clock",
    "03085013": "keyboard", "03207941": "dishwasher", "03211117": "display", "03261776": "earphone",
    "03325088": "faucet", "03337140": "file", "03467517": "guitar", "03513137": "helmet", "03593526": "jar",
    "03624134": "knife", "03636649": "lamp", "03642806": "laptop", "03691459": "loudspeaker", "03710193": "mailbox",
    "03759954": "microphone", "03761084": "microwave", "03790512": "motorbike", "03797390": "mug",
    "03928116": "piano", "03938244": "pillow", "03948459": "pistol", "03991062": "flowerpot", "04004475": "printer",
    "04074963": "remote", "04090263": "rifle", "04099429": "rocket", "04225987": "skateboard", "04256520": "sofa",
    "04330267": "stove", "04379243": "table", "04401088": "telephone", "04460130": "tower", "04468005": "train",
    "04530566": "watercraft", "04554684": "washer",
}  # fmt: skip


@dataclass(frozen=True)
class ObjectFiles:
    """The files of one object, there or not.

    Attributes:
        category, name: what the list calls it.
        images: pictures to learn from.
        novel: depth from random sides.
        fixed: depth from the eight fixed sides.
        truth: points of its surface.
    """

    category: str
    name: str
    images: Path
    novel: Path
    fixed: Path
    truth: Path

    @classmethod
    def of(cls, root: Path, category: str, name: str) -> ObjectFiles:
        """Where the layout has them below ``root``."""
        return cls(
            category,
            name,
            root / f"{category}_inputRGB" / f"{name}.npy",
            root / f"{category}_depth" / f"{name}.mat",
            root / f"{category}_depth_fixed{FIXED}" / f"{name}.mat",
            root / f"{category}_testGT" / f"{name}.mat",
        )

    def paths(self) -> tuple[Path, Path, Path, Path]:
        return self.images, self.novel, self.fixed, self.truth


def list_path(root: Path, category: str, split: str) -> Path:
    """The list of a split's objects."""
    return root / f"{category}_{split}.list"


def data_folder(root: Path) -> Path:
    """The folder with the lists: ``root``, or ``data`` in it.

    Raises:
        DataError: there are none in either.
    """
    for folder in (root, root / "data"):
        if folder.is_dir() and listed_categories(folder):
            return folder
    if not root.is_dir():
        raise DataError("no such folder", where=str(root), remedy="check the path given with --data")
    raise DataError(
        "holds no lists such as 03001627_train.list, nor does a folder 'data' in it",
        where=str(root),
        remedy="give the folder that the released archive unpacks to, or that recon data render-views wrote",
    )


def listed_categories(root: Path) -> tuple[str, ...]:
    """The categories that have a list of any split, sorted."""
    lists = (path.stem.rpartition("_") for path in root.glob("*_*.list"))
    return tuple(sorted({category for category, _, split in lists if category and split in SPLITS}))


def read_list(root: Path, category: str, split: str) -> tuple[list[str], list[str]] | None:
    """The objects that a list names, in its order, and the lines that name none of this category; None without a list.

    Raises:
        DataError: the list cannot be read.
    """
    path = list_path(root, category, split)
    if not path.exists():
        return None
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path), remedy="give a text file") from None
    names: dict[str, None] = {}
    wrong = []
    for line in filter(None, lines):
        before, _, name = line.rpartition("/")
        if before not in ("", category) or name in ("", ".", ".."):
            wrong.append(line[:80])
        else:
            names[name] = None
    return list(names), wrong


def read_images(path: Path) -> NDArray[np.uint8]:
    """``{category}_inputRGB``: (N, S, S, 3) bytes.

    Raises:
        DataError: the file is missing or damaged, or holds something else.
    """
    with _reading(path):
        images = np.load(path, allow_pickle=False)
    square = images.ndim == 4 and images.shape[1] == images.shape[2] and images.shape[3] == 3 and images.size
    if not square:
        raise _wrong(path, f"holds {images.shape}, not pictures (N, S, S, 3)")
    if images.dtype != np.uint8:
        if images.dtype.kind not in "iuf" or images.min() < 0 or not images.max() <= 255:
            raise _wrong(path, f"holds {images.dtype} beyond 0 … 255, not bytes")
        images = np.rint(images).astype(np.uint8)
    return np.asarray(images, dtype=np.uint8)


def read_novel(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """``{category}_depth``: depth (N, S, S), 0 where the object is not, and unit quaternions (N, 4).

    Raises:
        DataError: as for :func:`read_images`.
    """
    found = _matrices(path, "Z", "trans")
    depth, views = _depth(found["Z"], path), found["trans"]
    if views.shape != (len(depth), 4):
        raise _wrong(path, f"has {views.shape} of trans for {len(depth)} depth maps, not ({len(depth)}, 4)")
    length = np.linalg.norm(views.astype(np.float64), axis=1, keepdims=True)
    if not (abs(length - 1) < _UNIT).all():
        raise _wrong(path, "has quaternions in trans whose length is not 1")
    return depth, np.asarray(views / length, dtype=np.float32)


def read_fixed(path: Path) -> NDArray[np.float32]:
    """``{category}_depth_fixed8``: depth (8, S, S) from the fixed views, 0 where the object is not.

    Raises:
        DataError: as for :func:`read_images`.
    """
    depth = _depth(_matrices(path, "Z")["Z"], path)
    if len(depth) != FIXED:
        raise _wrong(path, f"holds {len(depth)} depth maps, not {FIXED}")
    if not depth.any():
        raise _wrong(path, "shows no object in any view")
    return depth


def read_truth(path: Path) -> NDArray[np.float32]:
    """``Vd`` of ``{category}_testGT``, turned to z up: (N, 3).

    Raises:
        DataError: as for :func:`read_images`.
    """
    points = _matrices(path, "Vd")["Vd"]
    if points.ndim != 2 or points.shape[1] != 3 or not len(points) or not np.isfinite(points).all():
        raise _wrong(path, f"holds {points.shape} as Vd, not finite points (N, 3)")
    x, y, z = points.T
    return np.stack((x, -z, y), axis=1).astype(np.float32)


def shapes(files: ObjectFiles) -> tuple[int, int, int] | None:
    """How many pictures, how many random views and what depth size an object has, by its files' headers; or None."""
    from scipy.io import whosmat

    try:
        images = np.load(files.images, mmap_mode="r", allow_pickle=False)
        views, size, _ = next(shape for name, shape, _ in whosmat(files.novel) if name == "Z")
    except Exception:  # reading it for good says what is wrong
        return None
    return len(images), int(views), int(size)


def write_object(
    files: ObjectFiles,
    *,
    images: NDArray[np.uint8],
    fixed: NDArray[np.float32],
    novel: NDArray[np.float32],
    views: NDArray[np.float32],
    vertices: NDArray[np.floating],
    cloud: NDArray[np.float32],
) -> None:
    """Write an object's four files, each whole or not at all.

    Args:
        files: where.
        images: (N, 3, S, S).
        fixed, novel: depth (8, S, S) and (N, S, S), 0 where the object is not.
        views: quaternions (N, 4) of ``novel``.
        vertices, cloud: (V, 3) and (P, 3), z up; written y up, as the released files are.

    Raises:
        DiskError: the disk is full, or the place cannot be written.
    """
    from scipy.io import savemat

    with writing(files.images) as file:
        np.save(file, np.ascontiguousarray(images.transpose(0, 2, 3, 1)))
    for path, content, packed in (
        (files.fixed, {"Z": fixed}, True),  # a third of the size; points would not get smaller
        (files.novel, {"Z": novel, "trans": views}, True),
        (files.truth, {"V": _y_up(vertices), "Vd": _y_up(cloud)}, False),
    ):
        with writing(path) as file:
            savemat(file, content, do_compression=packed)


def write_list(root: Path, category: str, split: str, names: list[str]) -> None:
    """Write the list of a split's objects."""
    write_text(list_path(root, category, split), "".join(f"{category}/{name}\n" for name in names))


def _y_up(points: NDArray[np.floating]) -> NDArray[np.float32]:
    x, y, z = points.T
    return np.stack((x, z, -y), axis=1).astype(np.float32)


def _depth(stored: NDArray[Any], path: Path) -> NDArray[np.float32]:
    if stored.ndim != 3 or stored.shape[1] != stored.shape[2] or not stored.size:
        raise _wrong(path, f"holds {stored.shape} as Z, not depth maps (N, S, S)")
    if np.isnan(stored).any() or stored.min() < 0:
        raise _wrong(path, "has depths below 0 or that are no numbers")
    # Infinite, or 10^10, is Blender's background where a conversion has left it.
    return np.where(stored < DEEPEST, stored, 0).astype(np.float32)


def _matrices(path: Path, *names: str) -> dict[str, NDArray[Any]]:
    from scipy.io import loadmat

    with _reading(path):
        found: dict[str, NDArray[Any]] = loadmat(path, variable_names=names)
    for name in names:
        if name not in found:
            raise _wrong(path, f"has no '{name}'")
        if not isinstance(found[name], np.ndarray) or found[name].dtype.kind not in "iuf":
            raise _wrong(path, f"'{name}' is not an array of numbers")
    return found


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    if not path.is_file():
        raise DataError("is missing", where=str(path), remedy="add the file")
    try:
        yield
    except Exception as error:  # a damaged file takes its reader to any of them
        raise _wrong(path, f"cannot be read: {str(error) or type(error).__name__}") from error


def _wrong(path: Path, problem: str) -> DataError:
    return DataError(problem, where=str(path), remedy="make the file again")
