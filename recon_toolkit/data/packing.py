"""Packing: files are decoded, cropped and resized once, into a cached :class:`PackedImages`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recon_toolkit.data.decode import (
    IMAGE_SUFFIXES,
    CentreCrop,
    Crop,
    DepthScale,
    image_size,
    read_depth,
    read_image,
    resized,
)
from recon_toolkit.data.fields import FieldSpec, field_specs
from recon_toolkit.data.packed import FORMAT_VERSION, PackedImages, PackWriter
from recon_toolkit.errors import DataError
from recon_toolkit.files import cache_root, printable
from recon_toolkit.progress import QUIET, Progress
from recon_toolkit.threads import given


@dataclass(frozen=True)
class DataContext:
    """Surroundings of a data set.

    Args:
        cache: folder for packed data; each data set makes folders of its own below it.
        root: the user's data folder (``--data DIR``), or None.
        progress: where long work reports.
    """

    cache: Path = field(default_factory=lambda: cache_root() / "data")
    root: Path | None = None
    progress: Progress = QUIET


CHUNK = 256  # images decoded between two writes: 50 MB at 256 pixels
#: Endings of what lies beside images without being meant as one.
_BESIDE_IMAGES = frozenset(
    (".txt", ".md", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".html", ".db", ".ini")
)
NAMED = 3  # skipped files named in the summary; the index lists all of them


@dataclass(frozen=True)
class Source:
    """One image to pack.

    Args:
        name: its name in the data set, e.g. the path relative to the data folder.
        path: the image file.
        crop: what to cut out of it.
        depth: the file with its depth map, if the data set has them.
        group: what it belongs to, such as a person, if the data set says that.
    """

    name: str
    path: Path
    crop: Crop = field(default_factory=CentreCrop)
    depth: Path | None = None
    group: str | None = None


@dataclass(frozen=True)
class Skipped:
    """A file that was left out, and why."""

    name: str
    reason: str


def find_images(folder: Path, progress: Progress = QUIET) -> list[Path]:
    """Image files below ``folder`` by their suffix, sorted; linked folders are entered, hidden files are not.

    Files of other kinds are counted and named in a warning, apart from texts and tables.

    Raises:
        DataError: the folder is missing, or holds no image.
    """
    others: list[Path] = []
    files = find_files(folder, IMAGE_SUFFIXES, others)
    unread = [path for path in others if path.suffix.lower() not in _BESIDE_IMAGES]
    kinds = Counter(path.suffix.lower() or "no ending" for path in unread)
    unread_kinds = ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common(5))
    if not files:
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        besides = f"; what is there: {unread_kinds}" if unread else ""
        raise DataError(
            f"the folder holds no images{besides}", where=printable(folder), remedy=f"put images there ({known})"
        )
    if unread:
        progress.warn(f"{printable(folder)}: {len(unread)} files are of kinds that are not read: {unread_kinds}")
    return files


def named(root: Path, files: Sequence[Path]) -> dict[str, Path]:
    """Files by their path below ``root``, printable; two that differ only in what is not get a number."""
    found: dict[str, Path] = {}
    for path in files:
        name = plain = printable(path.relative_to(root).as_posix())
        number = 1
        while name in found:
            number += 1
            name = f"{plain}~{number}"
        found[name] = path
    return found


def find_files(folder: Path, suffixes: frozenset[str], others: list[Path] | None = None) -> list[Path]:
    """Files below ``folder`` with one of the lower-case ``suffixes``; as :func:`find_images`, but may be empty.

    Those with another suffix are added to ``others``.
    """
    if not folder.is_dir():
        problem = "is a file, not a folder" if folder.exists() else "no such folder"
        raise DataError(problem, where=str(folder), remedy="check the path, or give another with --data")
    found: list[Path] = []
    entered: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:  # a link back up: its files are listed already
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(place, name) for name in files if name[0] != "."):
            if path.suffix.lower() in suffixes:
                found.append(path)
            elif others is not None:
                others.append(path)
    return sorted(found)


def pack_sources(
    sources: Sequence[Source],
    *,
    dataset: str,
    split: str,
    size: int,
    context: DataContext,
    scale: DepthScale | None = None,
    skipped: Sequence[Skipped] = (),
) -> PackedImages:
    """The packed form of ``sources``, from the cache where nothing has changed since.

    The cache key covers every file's name, size and time of change, the crops, the depth scale and the image size.
    Files that cannot be read are left out, counted and named in a warning and in the index's provenance.

    Args:
        sources: what to pack; either all with depth or none, and all with a group or none.
        dataset: the data set's name, for the cache folder.
        split: the split's name, likewise.
        size: height and width to resize to, in pixels.
        context: where the cache is, and where progress is shown.
        scale: what integer depth files mean.
        skipped: files that were left out before.

    Raises:
        DataError: no source is left, a file vanished, or the cache cannot be written.
    """
    if not sources:
        raise DataError(f"the split '{split}' of {dataset} is empty", remedy="choose another split or folder")
    with_depth = sources[0].depth is not None
    key = _fingerprint(sources, size, scale)
    folder = context.cache / dataset / f"{split}-{size}px-{key[:16]}"
    cached = open_cached(folder, context, "packed")
    if cached is not None:
        _warn(cached.index.provenance, dataset, split, context)
        return cached
    words = sorted({source.group for source in sources if source.group is not None})
    fields = field_specs(size, ("image", "depth", "mask") if with_depth else ("image",))
    numbers = {word: number for number, word in enumerate(words)}
    if words:
        fields["group"] = FieldSpec(dtype="int32", shape=(), words=tuple(words))
    left_out = list(skipped)
    names: list[str] = []
    with (
        PackWriter(folder, len(sources), size, fields) as writer,
        context.progress.task(f"packing {dataset} {split}", len(sources), "img") as task,
    ):
        for results in _read_chunks(sources, size, scale):
            good = [result for result in results if not isinstance(result, Skipped)]
            left_out += [result for result in results if isinstance(result, Skipped)]
            if good:
                for source, entry in good:
                    if source.group is not None:
                        entry["group"] = np.array(numbers[source.group], np.int32)
                writer.write(len(names), **{name: np.stack([entry[name] for _, entry in good]) for name in fields})
                names += [source.name for source, _ in good]
            task.advance(len(results))
        if not names:
            reasons = "; ".join(f"{item.name}: {item.reason}" for item in left_out[:NAMED])
            raise DataError(
                f"none of the {len(sources)} images of {dataset} {split} can be used: {reasons}",
                remedy="fix the files or choose others",
            )
        provenance = {
            "dataset": dataset,
            "split": split,
            "sources": key,
            "skipped": [{"name": item.name, "reason": item.reason} for item in left_out],
        }
        packed = writer.finish(names, provenance)
    _warn(provenance, dataset, split, context)
    return packed


def read_source(source: Source, size: int, scale: DepthScale | None = None) -> dict[str, NDArray[Any]]:
    """One source as the entries of a packed data set: ``image`` (3, size, size) uint8 and, with depth, ``depth``
    (size, size) float32 and ``mask`` (size, size) bool.

    The mask is where depth is positive and finite; where it is so everywhere, what lies before the map's furthest
    value. Depth is averaged over the mask only, so that the
    background does not bleed into the silhouette; outside the mask it is the furthest value.
    """
    image = read_image(source.path, crop=source.crop, size=size)
    entry: dict[str, NDArray[Any]] = {"image": np.ascontiguousarray(image.transpose(2, 0, 1))}
    if source.depth is not None:
        full = read_depth(source.depth, scale=scale)
        width, height = image_size(source.path)
        if full.shape != (height, width):
            raise DataError(
                f"the depth map is {full.shape[1]}×{full.shape[0]} pixels, its image {width}×{height}",
                where=str(source.depth),
                remedy="give both at the same size",
            )
        depth, mask = resize_depth(full, source.crop, size, source.depth)
        entry |= {"depth": depth, "mask": mask}
    return entry


def resize_depth(
    depth: NDArray[np.float64], crop: Crop, size: int, path: Path
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Crop and resize a depth map (H, W) → depth and mask, each (size, size); see :func:`read_source`.

    Raises:
        DataError: the crop does not lie within the map, or the map has no object.
    """
    height, width = depth.shape
    usable = np.isfinite(depth) & (depth > 0)
    furthest = float(depth.max(where=usable, initial=0.0))
    inside = depth < furthest if usable.all() else usable
    if not inside.any():
        raise DataError(
            "the depth map is constant, or has no depth above 0", where=str(path), remedy="check that it is a depth map"
        )
    try:
        box = crop.box(width, height) if isinstance(crop, CentreCrop) else crop
    except ValueError as error:
        raise DataError(str(error), where=str(path), remedy="lower the crop option") from None
    limits = (box.x, box.y, box.x + box.width, box.y + box.height)
    if limits[0] < 0 or limits[1] < 0 or limits[2] > width or limits[3] > height:
        raise DataError(
            f"the crop {limits} reaches beyond the {width}×{height} map", where=str(path), remedy="lower it"
        )
    weight = _resized(inside.astype(np.float32), limits, size)
    # Relief below the furthest value, not depth: the sums stay small and float32 keeps its digits.
    relief = _resized(np.where(inside, furthest - depth, 0.0).astype(np.float32), limits, size)
    mask = weight > 0.5
    result = np.full((size, size), furthest, dtype=np.float32)
    result[mask] = furthest - relief[mask] / weight[mask]
    return result, mask


def _resized(values: NDArray[np.float32], box: tuple[float, float, float, float], size: int) -> NDArray[np.float32]:
    return np.asarray(resized(Image.fromarray(values), box, size), dtype=np.float32)


Entry = tuple[Source, dict[str, NDArray[Any]]]


def _read_chunks(sources: Sequence[Source], size: int, scale: DepthScale | None) -> Iterator[list[Entry | Skipped]]:
    """The sources in order, decoded by threads (Pillow works outside the interpreter lock)."""

    def read(source: Source) -> Entry | Skipped:
        try:
            return source, read_source(source, size, scale)
        except DataError as error:
            return Skipped(source.name, error.message)

    with ThreadPoolExecutor(given().count) as pool:
        for start in range(0, len(sources), CHUNK):
            yield list(pool.map(read, sources[start : start + CHUNK]))


def _fingerprint(sources: Sequence[Source], size: int, scale: DepthScale | None) -> str:
    digest = hashlib.sha256(json.dumps([FORMAT_VERSION, size, repr(scale)]).encode())
    for source in sources:
        group = [source.group] if source.group is not None else []
        digest.update(json.dumps([source.name, repr(source.crop), *group]).encode())
        for path in (source.path, source.depth):
            if path is None:
                continue
            try:
                state = path.stat()
            except OSError as error:  # packing will name it as skipped; the key must only differ
                digest.update(f"{printable(path.name)}: {error.errno}".encode())
            else:
                digest.update(f"{printable(path.name)}: {state.st_size} {state.st_mtime_ns}".encode())
    return digest.hexdigest()


def open_cached(folder: Path, context: DataContext, made: str = "generated") -> PackedImages | None:
    """The packed data set in a folder of the cache; None if there is none, or a damaged one, which is removed.

    Args:
        folder: where it would be.
        context: says that a damaged one is ``made`` again.
    """
    if not folder.exists():
        return None
    try:
        return PackedImages.open(folder)
    except DataError as error:
        context.progress.warn(f"{error.message}; {folder} is {made} again")
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _warn(provenance: Mapping[str, Any], dataset: str, split: str, context: DataContext) -> None:
    left_out: list[dict[str, str]] = provenance.get("skipped", [])
    if left_out:
        named = "; ".join(f"{item['name']}: {item['reason']}" for item in left_out[:NAMED])
        more = f"; and {len(left_out) - NAMED} more (all in the pack's index.json)" if len(left_out) > NAMED else ""
        context.progress.warn(f"{dataset} {split}: {len(left_out)} files skipped: {named}{more}")
