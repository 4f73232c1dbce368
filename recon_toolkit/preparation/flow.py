"""From photographs to a training set: read, look, leave out, divide, pack, judge; a kill costs one chunk."""

from __future__ import annotations

import json
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from recon_toolkit.data.fields import field_specs
from recon_toolkit.data.packed import INDEX, PackWriter, evenly_spread
from recon_toolkit.data.sampling import SPLITS, divided
from recon_toolkit.detection import Detector
from recon_toolkit.errors import DataError
from recon_toolkit.files import disk_error, is_partial, make_folder, remove_partials, write_text, writing
from recon_toolkit.preparation.look import THUMB, Seen, first_alike, look
from recon_toolkit.preparation.page import Sheets, judge, write_page, write_pipeline
from recon_toolkit.preparation.record import (
    REASONS,
    RECORD,
    Picture,
    Prepared,
    PrepareOptions,
    changed,
    counted,
    read_record,
    record_text,
    said,
)
from recon_toolkit.preparation.sources import Item, Origin, digest_of, find_origins, groups_and_splits, items
from recon_toolkit.progress import QUIET, Progress
from recon_toolkit.threads import given

#: Below a prepared folder, until it is finished.
WORK, STATE = ".prepare", "state.json"
#: Pictures that are looked at between two writes.
CHUNK = 256


class State(BaseModel):
    """What the work in progress is for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    options: PrepareOptions
    inputs: str


@dataclass(frozen=True)
class Chunk:
    """Some pictures in the order in which they were read.

    Attributes:
        pictures: their records.
        position: (origin, number in it) of what comes after them.
        last: nothing does.
        kept: indices into ``pictures`` of those that are not left out yet, (K,).
        pixels: their crops, (K, 3, S, S) uint8.
        hashes, small: their measures, (K, 2) uint64 and (K, 16, 16) uint8.
        shown: indices into ``pictures`` of those that have a picture, (T,).
        thumbs: these pictures, (T, 96, 96, 3) uint8.
    """

    pictures: list[Picture]
    position: tuple[int, int]
    last: bool
    kept: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    hashes: NDArray[np.uint64]
    small: NDArray[np.uint8]
    shown: NDArray[np.int64]
    thumbs: NDArray[np.uint8]


class Store:
    """The chunks of a prepared folder."""

    def __init__(self, folder: Path) -> None:
        self.work = folder / WORK

    def _path(self, number: int) -> Path:
        return self.work / f"chunk-{number:06d}.npz"

    @property
    def count(self) -> int:
        """How many chunks there are."""
        count = 0
        while self._path(count).is_file():
            count += 1
        return count

    def write(self, number: int, seen: Sequence[Seen], position: tuple[int, int], last: bool, size: int) -> None:
        """Write a chunk, whole or not at all. Raises DataError on a full disk."""
        kept = [index for index, one in enumerate(seen) if one.pixels is not None]
        shown = [index for index, one in enumerate(seen) if one.thumb is not None]
        chosen = [(seen[index].pixels, seen[index].measures) for index in kept]
        about = {
            "pictures": [one.picture.model_dump(exclude_defaults=True) for one in seen],
            "position": position,
            "last": last,
        }
        arrays: dict[str, NDArray[Any]] = {
            "about": np.frombuffer(json.dumps(about).encode(), dtype=np.uint8),
            "kept": np.array(kept, dtype=np.int64),
            "pixels": _stacked([p.transpose(2, 0, 1) for p, _ in chosen if p is not None], (3, size, size), np.uint8),
            "hashes": _stacked([m.hash for _, m in chosen if m is not None], (2,), np.uint64),
            "small": _stacked([m.small for _, m in chosen if m is not None], (16, 16), np.uint8),
            "shown": np.array(shown, dtype=np.int64),
            "thumbs": _stacked([one.thumb for one in seen if one.thumb is not None], (THUMB, THUMB, 3), np.uint8),
        }
        with writing(self._path(number)) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    def read(self, number: int, *, light: bool = False) -> Chunk:
        """A chunk; without its pictures where ``light``. Raises DataError where it is damaged."""
        path = self._path(number)
        empty = np.empty(0, dtype=np.uint8)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                about = json.loads(arrays["about"].tobytes())
                return Chunk(
                    [Picture.model_validate(entry) for entry in about["pictures"]],
                    (int(about["position"][0]), int(about["position"][1])),
                    bool(about["last"]),
                    arrays["kept"],
                    empty if light else arrays["pixels"],
                    arrays["hashes"],
                    arrays["small"],
                    arrays["shown"],
                    empty if light else arrays["thumbs"],
                )
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise DataError(
                f"the work in progress is damaged: {error}", where=str(path), remedy="delete the folder and start again"
            ) from None

    def chunks(self, *, light: bool = False) -> Iterator[Chunk]:
        """All chunks in order."""
        for number in range(self.count):
            yield self.read(number, light=light)

    def remove(self) -> None:
        """The work is done, or in vain."""
        shutil.rmtree(self.work, ignore_errors=True)


def _stacked(entries: Sequence[NDArray[Any]], shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    return np.stack(entries) if entries else np.empty((0, *shape), dtype=dtype)


def open_store(out: Path, state: State) -> tuple[Store | None, Prepared | None]:
    """Take a folder for this work: its store, or what was finished there by the same command.

    Raises:
        DataError: it holds other files, or work of other options or inputs; or it cannot be written.
    """
    made = make_folder(out)
    store = Store(out)
    if (out / RECORD).is_file():
        finished = read_record(out)
        _same(out, State(options=finished.options, inputs=finished.inputs), state)
        store.remove()
        return None, finished
    try:
        before = State.model_validate_json((store.work / STATE).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        before = None
    except (OSError, ValidationError):
        raise DataError(
            "the work in progress cannot be read", where=str(out), remedy="delete the folder and start again"
        ) from None
    if before is not None:
        _same(out, before, state)
    else:
        others = [] if made else [path for path in out.iterdir() if not is_partial(path) and path.name != WORK]
        if others:
            raise DataError(
                "the folder holds other files", where=str(out), remedy="choose a new or an empty one with --out"
            )
    try:
        for partial in out.glob("*.partial-*"):  # packs that a killed process has begun
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise disk_error(error, out) from error
    remove_partials(out)
    remove_partials(store.work)
    if before is None:
        write_text(store.work / STATE, state.model_dump_json(indent=1) + "\n")
    return store, None


def _same(out: Path, before: State, now: State) -> None:
    remedy = "choose another --out, or delete the folder"
    if differing := changed(before.options, now.options):
        raise DataError(f"was begun with other options: {'; '.join(differing)}", where=str(out), remedy=remedy)
    if before.inputs != now.inputs:
        raise DataError("was begun with other pictures, or they have changed since", where=str(out), remedy=remedy)


#: Most pictures on one contact sheet.
SHEET = 100


@dataclass(frozen=True)
class _Found:
    """Everything that was looked at.

    Attributes:
        pictures: all records, in order.
        kept: indices of those that are not left out yet, (K,).
        hashes, small: their measures, (K, 2) and (K, 16, 16).
    """

    pictures: list[Picture]
    kept: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    small: NDArray[np.uint8]


def prepare(
    arguments: Sequence[str | Path],
    out: str | Path,
    options: PrepareOptions | None = None,
    *,
    detector: Detector | None = None,
    progress: Progress = QUIET,
) -> Prepared:
    """Make a training set of photographs: packed crops by split, their record, a page, and a pipeline that reads them.

    A picture that cannot be used is left out, counted and listed, and the others go on. A call that is killed at any
    moment goes on where it was when it is made again, and comes to the same files.

    Args:
        arguments: image files, folders, patterns, videos, and archives (tar, zip).
        out: the folder to write: new, empty, or of the same call before.
        options: what is cut out, left out and how it is split; the default ones if None.
        detector: finds the objects, where ``options.detector`` is not None; it must be the one of that name.
        progress: where to show progress.

    Raises:
        DataError: no picture remains, ``out`` holds other files or work of other options or inputs, or it cannot be
            written.
    """
    out, options = Path(out), options or PrepareOptions()
    options.check()
    if (detector is None) != (options.detector is None):
        raise ValueError("options.detector names the detector that is given, and is None without one")
    origins, unread = find_origins(arguments, out)
    if not origins:
        said_of = "; ".join(f"{item.name}: {item.reason}" for item in unread[:3]) or "there are no pictures"
        raise DataError(f"nothing to prepare: {said_of}", remedy="give images, folders, patterns, videos or archives")
    inputs = digest_of(origins)
    store, finished = open_store(out, State(options=options, inputs=inputs))
    if finished is not None or store is None:
        assert finished is not None
        progress.say(f"{out} is prepared already, by the same command")
        return finished
    _look_at_all(origins, options, detector, store, progress)
    with progress.task("sorting", None, "img"):
        found = _loaded(store)
        pictures = _sorted_out(found, options)
    kept, left_out = counted(pictures)
    if not any(kept.values()):
        store.remove()
        if not any(out.iterdir()):
            out.rmdir()
        raise _nothing(pictures, left_out)
    verdict = judge(pictures, kept, left_out, options, _mean_crop(found, pictures))
    prepared = Prepared(
        options=options,
        inputs=inputs,
        kept=kept,
        left_out=left_out,
        unread=unread,
        verdict=verdict,
        pictures=pictures,
    )
    _write(out, prepared, store, progress)
    return prepared


def _look_at_all(
    origins: Sequence[Origin], options: PrepareOptions, detector: Detector | None, store: Store, progress: Progress
) -> None:
    """Fill the store, from where it ends."""
    number, start = store.count, (0, 0)
    done = 0
    for position in range(number):
        chunk = store.read(position, light=True)
        start, done = chunk.position, done + len(chunk.pictures)
        if chunk.last:
            return
    if number:
        progress.say(f"{done:,} pictures were looked at before; going on after them")
    total = None if any(origin.kind != "image" for origin in origins) else len(origins)
    with progress.task("preparing", total, "img") as task:
        task.advance(start[0] if total is not None else done)
        remaining = _looked(items(origins, options, start), options, detector)
        while True:
            some = list(islice(remaining, CHUNK))
            last = len(some) < CHUNK
            seen = [one for _, answers in some for one in answers]
            store.write(number, seen, some[-1][0].position if some else start, last, options.size)
            task.advance(len(some))
            if last:
                return
            number += 1


def _looked(
    remaining: Iterator[Item], options: PrepareOptions, detector: Detector | None
) -> Iterator[tuple[Item, list[Seen]]]:
    """Items in order with what was seen in them, by threads that work some way ahead."""
    threads = given().count
    pool = ThreadPoolExecutor(threads)
    try:
        waiting: deque[tuple[Item, Future[list[Seen]]]] = deque()
        while True:
            for item in islice(remaining, 3 * threads - len(waiting)):
                waiting.append((item, pool.submit(look, item, options, detector)))
            if not waiting:
                return
            item, future = waiting.popleft()
            yield item, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _loaded(store: Store) -> _Found:
    pictures: list[Picture] = []
    kept, hashes, small = [], [], []
    for chunk in store.chunks(light=True):
        kept.append(chunk.kept + len(pictures))
        hashes.append(chunk.hashes)
        small.append(chunk.small)
        pictures += chunk.pictures
    return _Found(pictures, np.concatenate(kept), np.concatenate(hashes), np.concatenate(small))


def _sorted_out(found: _Found, options: PrepareOptions) -> list[Picture]:
    """The records with doubles left out, and with the group and the split of what is kept."""
    pictures = list(found.pictures)
    places = groups_and_splits(pictures)
    usable = []
    for row, index in enumerate(found.kept):
        if places[index][1] == "none":
            pictures[index] = pictures[index].model_copy(update={"reason": "no split"})
        else:
            usable.append(row)
    rows = np.array(usable, dtype=np.int64)
    alike = first_alike(found.hashes[rows], found.small[rows])
    kept: list[int] = []
    for position, index in enumerate(int(each) for each in found.kept[rows]):
        if alike[position] < 0:
            kept.append(index)
            continue
        other = pictures[int(found.kept[rows[alike[position]]])]
        pictures[index] = pictures[index].model_copy(update={"reason": "double", "detail": f"of {other.name}"})
    free = list(dict.fromkeys(places[index][0] for index in kept if places[index][1] is None))
    split_of = divided(free, {"val": options.val, "test": options.test})
    if free and "train" not in split_of.values():  # one video, say, whose hash fell to a small split
        split_of = dict.fromkeys(split_of, "train")
    for index in kept:
        group, split = places[index]
        pictures[index] = pictures[index].model_copy(update={"group": group, "split": split or split_of[group]})
    return pictures


def _mean_crop(found: _Found, pictures: Sequence[Picture]) -> NDArray[np.float64]:
    """The mean of all kept crops in grey, (16, 16)."""
    chosen = [row for row, index in enumerate(found.kept) if pictures[index].reason is None]
    return np.asarray(found.small[chosen].mean(axis=0), dtype=np.float64)


def _nothing(pictures: Sequence[Picture], left_out: dict[str, int]) -> DataError:
    first = next((picture for picture in pictures if picture.reason is not None), None)
    example = f"; e.g. {first.name}: {first.detail or REASONS[first.reason]}" if first and first.reason else ""
    remedies = {
        "nothing found": "add --no-detect if the pictures are crops already, or name another --detector",
        "too small": "lower --min-side",
        "blurred": "lower --min-sharpness",
        "cut off": "raise --max-outside",
        "unreadable": "check the files",
        "grey": "leave out --drop-grey",
        "turned": "raise --max-yaw",
        "several": "choose another --several",
    }
    most = max(left_out, key=lambda reason: left_out[reason], default="unreadable")
    return DataError(
        f"no picture remains of {len(pictures):,}: {said(left_out)}{example}",
        remedy=remedies.get(most, "give other pictures"),
    )


def _write(out: Path, prepared: Prepared, store: Store, progress: Progress) -> None:
    """Packs, sheets, page, pipeline and, last of all, the record; then the work in progress goes."""
    size, pictures = prepared.options.size, prepared.pictures
    writers = {
        split: PackWriter(out / split, count, size, field_specs(size))
        for split, count in prepared.kept.items()
        if count and not (out / split / INDEX).is_file()
    }
    names: dict[str, list[str]] = {split: [] for split in SPLITS}
    sheets = _chosen(prepared)
    with progress.task("writing", len(pictures), "img") as task:
        try:
            for writer in writers.values():
                writer.__enter__()
            offset = 0
            for chunk in store.chunks():
                for split in SPLITS:
                    rows = [row for row, index in enumerate(chunk.kept) if pictures[offset + index].split == split]
                    if not rows:
                        continue
                    if split in writers:
                        writers[split].write(len(names[split]), image=chunk.pixels[rows])
                    names[split] += [pictures[offset + chunk.kept[row]].name for row in rows]
                for row, index in enumerate(chunk.shown):
                    sheets.offer(offset + int(index), chunk.thumbs[row])
                offset += len(chunk.pictures)
                task.advance(len(chunk.pictures))
            for split, writer in writers.items():
                writer.finish(names[split], {"dataset": "prepared", "split": split, "inputs": prepared.inputs})
        finally:
            for writer in writers.values():
                writer.__exit__(None, None, None)
        write_page(out, prepared, sheets)
        write_pipeline(out, prepared)
        write_text(out / RECORD, record_text(prepared), durable=True)
    store.remove()


def _chosen(prepared: Prepared) -> Sheets:
    """Which pictures are shown: evenly spread ones of what is kept, and of what was left out by each reason."""
    wanted: dict[str, list[int]] = {}
    for index, picture in enumerate(prepared.pictures):
        wanted.setdefault(picture.reason or "kept", []).append(index)
    chosen = {name: [each[i] for i in evenly_spread(len(each), SHEET)] for name, each in wanted.items()}
    if "double" in chosen:
        index_of = {picture.name: index for index, picture in enumerate(prepared.pictures) if picture.reason is None}
        originals = ((prepared.pictures[index].detail or "").removeprefix("of ") for index in chosen["double"])
        chosen["double of"] = [index_of[name] for name in originals]
    return Sheets(chosen)
