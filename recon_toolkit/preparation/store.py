"""The work in progress of a prepared folder: chunks that appear whole or not at all; a kill costs one of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from recon_toolkit.errors import DataError
from recon_toolkit.files import disk_error, is_partial, make_folder, remove_partials, write_text, writing
from recon_toolkit.preparation.look import THUMB, Seen
from recon_toolkit.preparation.record import RECORD, Picture, Prepared, PrepareOptions, changed, read_record

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


def claim(out: Path, state: State) -> tuple[Store | None, Prepared | None]:
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
