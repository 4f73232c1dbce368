"""Packed images: a folder of memory-mapped arrays with an index, the one form in which training reads data.

``index.json`` says what is there; every field is one ``.npy`` file with a row per image, in a compact storage type.
Decoding to the ranges of :class:`recon_toolkit.structures.Batch` happens after gathering, on any device.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import secrets
import shutil
import struct
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from recon_toolkit.data.fields import FieldSpec, decode_fields, field_specs
from recon_toolkit.errors import DataError, ReconError
from recon_toolkit.files import disk_error
from recon_toolkit.structures import Batch

__all__ = ["FieldSpec", "PackIndex", "PackWriter", "PackedImages", "ResidentImages", "evenly_spread", "field_specs"]

FORMAT_VERSION = 1
INDEX = "index.json"
STALE_SECONDS = 24 * 3600.0
HEADER_BYTES = 128  # room for any shape that fits in memory, and aligned as numpy wants it


def evenly_spread(total: int, count: int) -> NDArray[np.int64]:
    """``count`` different numbers below ``total``, or all, from the first to the last: neighbours are often alike."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(np.int64)


class PackIndex(BaseModel):
    """The contents of ``index.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int
    count: int
    size: int
    fields: dict[str, FieldSpec]
    fingerprint: str
    names: list[str]
    provenance: dict[str, Any]


class PackedImages:
    """A packed data set, opened read-only. Build it with :meth:`open` or :class:`PackWriter`."""

    def __init__(self, folder: Path, index: PackIndex, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.folder = folder
        self.index = index
        self._arrays = dict(arrays)

    @classmethod
    def open(cls, folder: str | Path) -> PackedImages:
        """Memory-map the packed data set in ``folder``.

        Raises:
            DataError: the folder is not a packed data set, is of another format version, or is damaged.
        """
        folder = Path(folder)
        remedy = "delete the folder; it is packed again on the next use"
        try:
            index = PackIndex.model_validate_json((folder / INDEX).read_bytes())
        except FileNotFoundError:
            raise DataError(
                "not a packed data set: no index.json", where=str(folder), remedy="check the path"
            ) from None
        except NotADirectoryError:
            raise DataError("not a folder", where=str(folder), remedy="give the folder with index.json in it") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise DataError(
                f"index.json is damaged: {where} {first['msg']}", where=str(folder), remedy=remedy
            ) from None
        if index.format_version != FORMAT_VERSION:
            raise DataError(
                f"packed in format {index.format_version}, this version reads {FORMAT_VERSION}",
                where=str(folder),
                remedy=remedy,
            )
        arrays: dict[str, NDArray[Any]] = {}
        for name, spec in index.fields.items():
            path = folder / f"{name}.npy"
            try:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise DataError(f"the field cannot be read: {error}", where=str(path), remedy=remedy) from None
            shape = (spec.entries(index.count), *spec.shape)
            if array.shape != shape or array.dtype != spec.dtype:
                raise DataError(
                    f"holds {array.dtype} {array.shape}, the index says {spec.dtype} {shape}",
                    where=str(path),
                    remedy=remedy,
                )
            arrays[name] = array
        if "image" not in arrays:
            raise DataError("the field 'image' is missing", where=str(folder), remedy=remedy)
        return cls(folder, index, arrays)

    def __len__(self) -> int:
        return self.index.count

    @property
    def image_size(self) -> int:
        """Height and width of the images in pixels."""
        return self.index.size

    @property
    def fields(self) -> dict[str, FieldSpec]:
        return self.index.fields

    @property
    def names(self) -> list[str]:
        """One name per image, e.g. its file relative to the data folder."""
        return self.index.names

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the contents, in hexadecimal."""
        return self.index.fingerprint

    @cached_property
    def nbytes(self) -> int:
        """Size of all fields together, for deciding where they fit."""
        return sum(array.nbytes for array in self._arrays.values())

    def labels(self, name: str) -> NDArray[np.int64]:
        """A field of one whole number an image, (N,).

        Raises:
            ReconError: there is no such field.
        """
        spec = self.fields.get(name)
        if spec is None or spec.shape or spec.dtype.startswith("float"):
            known = [key for key, other in self.fields.items() if not other.shape and not other.dtype.startswith("f")]
            raise ReconError(
                f"the data set does not say the {name} of its images",
                where="dataset",
                remedy=f"it says {', '.join(known)}" if known else "use a data set with such a field",
            )
        return np.repeat(np.asarray(self._arrays[name], dtype=np.int64), spec.each)[: len(self)]

    def raw_batch(
        self, indices: NDArray[np.integer[Any]] | Tensor | Sequence[int], fields: Collection[str] | None = None
    ) -> dict[str, Tensor]:
        """Entries as stored, (B, *shape) per field, on the CPU: what to send to a GPU before decoding there."""
        rows = np.asarray(indices, dtype=np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"an index lies outside 0..{len(self) - 1}")
        return {
            name: torch.from_numpy(np.ascontiguousarray(array[rows // self.fields[name].each]))
            for name, array in self._arrays.items()
            if fields is None or name in fields
        }

    def decode(self, raw: Mapping[str, Tensor], indices: Tensor) -> Batch:
        """Stored entries on any device → a :class:`Batch` there."""
        return decode_fields(self.fields, raw, indices)

    def batch(
        self, indices: NDArray[np.integer[Any]] | Tensor | Sequence[int], fields: Collection[str] | None = None
    ) -> Batch:
        """The images at ``indices`` (B,) with their ground truth, on the CPU, in the ranges of :class:`Batch`.

        Args:
            indices: positions in the data set.
            fields: what to read, ``image`` among it; everything by default.

        Raises:
            IndexError: an index lies outside the data set.
        """
        return self.decode(self.raw_batch(indices, fields), torch.as_tensor(np.asarray(indices, dtype=np.int64)))

    def bytes_of(self, fields: Collection[str] | None = None) -> int:
        """Size of some fields, or of all."""
        return sum(array.nbytes for name, array in self._arrays.items() if fields is None or name in fields)

    def resident(self, device: torch.device | str, fields: Collection[str] | None = None) -> ResidentImages:
        """The data set's fields in a device's memory, in storage types: nothing is copied while training."""
        raw = {
            name: torch.from_numpy(np.array(array)).to(device)
            for name, array in self._arrays.items()
            if fields is None or name in fields
        }
        return ResidentImages(self.fields, raw)


class ResidentImages:
    """A packed data set held in one device's memory; gathers and decodes there."""

    def __init__(self, fields: Mapping[str, FieldSpec], raw: Mapping[str, Tensor]) -> None:
        self._fields = dict(fields)
        # Indexing is not implemented for uint16: the same bits as int16, put right after gathering.
        self._raw = {name: t.view(torch.int16) if t.dtype == torch.uint16 else t for name, t in raw.items()}

    def __len__(self) -> int:
        return int(self._raw["image"].shape[0])

    def batch(self, indices: Tensor, fields: Collection[str] | None = None) -> Batch:
        """The images at ``indices`` (B,) int64, as :meth:`PackedImages.batch` gives them, on the device."""
        rows = indices.to(self._raw["image"].device)
        raw = {
            name: tensor[rows // self._fields[name].each]
            for name, tensor in self._raw.items()
            if fields is None or name in fields
        }
        for name, tensor in raw.items():
            if self._fields[name].dtype == "uint16":
                raw[name] = tensor.to(torch.int32) & 0xFFFF
        return decode_fields(self._fields, raw, rows)


class PackWriter:
    """Writes a packed data set; nothing is visible under ``folder`` before :meth:`finish`.

    Use as a context manager: leaving it without :meth:`finish`, or by an error, removes what was written.

    Args:
        folder: where the data set will be.
        count: the most images that will be written.
        size: image height and width in pixels.
        fields: specifications by name, see :func:`field_specs`.
    """

    def __init__(self, folder: str | Path, count: int, size: int, fields: Mapping[str, FieldSpec]) -> None:
        if "image" not in fields:
            raise ValueError("a packed data set needs the field 'image'")
        self.folder = Path(folder)
        self.partial = self.folder.with_name(f"{self.folder.name}.partial-{secrets.token_hex(4)}")
        self.count = count
        self.size = size
        self.fields = dict(fields)
        self._files: dict[str, BinaryIO] = {}
        self._lock = threading.Lock()
        self._finished = False

    def __enter__(self) -> Self:
        try:
            self._remove_stale()
            self.partial.mkdir(parents=True)
            for name in self.fields:
                self._files[name] = (self.partial / f"{name}.npy").open("w+b")
        except OSError as error:
            self._discard()
            raise disk_error(error, self.folder) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._finished:
            self._discard()

    def write(self, start: int, **arrays: NDArray[Any]) -> None:
        """Write consecutive images from ``start`` on; may be called from several threads, in any order.

        Args:
            start: row of the first image.
            arrays: every field, (n, *shape), in its storage type or as floats in the units of :class:`Batch`; one that
                several images share has an entry for each group of images, which are written together.

        Raises:
            DataError: the disk is full or cannot be written.
            ValueError: fields are missing, of the wrong shape, or run beyond ``count``.
        """
        if arrays.keys() != self.fields.keys():
            raise ValueError(f"expected the fields {sorted(self.fields)}, got {sorted(arrays)}")
        rows = len(arrays["image"])
        if start < 0 or start + rows > self.count:
            raise ValueError(f"rows {start}..{start + rows} lie outside 0..{self.count}")
        for name, values in arrays.items():
            spec = self.fields[name]
            shape = (spec.entries(rows), *spec.shape)
            if values.shape != shape or start % spec.each:
                raise ValueError(f"{name}: expected shape {shape} at a multiple of {spec.each}, got {values.shape}")
            stored = np.ascontiguousarray(spec.encode(values))
            try:
                # Plain writes, not a memory map: a full disk is then an error and not a killed process.
                with self._lock:
                    self._files[name].seek(HEADER_BYTES + start // spec.each * spec.row_bytes)
                    self._files[name].write(stored.data)
            except OSError as error:
                raise disk_error(error, self.folder) from error

    def finish(self, names: Sequence[str], provenance: Mapping[str, Any]) -> PackedImages:
        """Close the files, write the index and move the folder into place; returns it opened.

        Args:
            names: one per image; fewer than ``count`` keeps only the first rows.
            provenance: what it was made from, for the index (JSON values).

        If another process has finished the same folder meanwhile, that one is kept.
        """
        if not 0 < len(names) <= self.count:
            raise ValueError(f"{len(names)} names for {self.count} images")
        try:
            digest = hashlib.sha256()
            for name in sorted(self.fields):
                self._close_field(name, len(names), digest)
            index = PackIndex(
                format_version=FORMAT_VERSION,
                count=len(names),
                size=self.size,
                fields=self.fields,
                fingerprint=digest.hexdigest(),
                names=list(names),
                provenance=dict(provenance),
            )
            (self.partial / INDEX).write_text(index.model_dump_json(indent=1), encoding="utf-8")
            try:
                self.partial.rename(self.folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not (self.folder / INDEX).exists():
                    raise
                self._discard()
        except OSError as error:
            raise disk_error(error, self.folder) from error
        self._finished = True
        return PackedImages.open(self.folder)

    def _close_field(self, name: str, count: int, digest: hashlib._Hash) -> None:
        """Give the file its header and exact length, and add its contents to the digest."""
        spec, file = self.fields[name], self._files[name]
        entries = spec.entries(count)
        header = repr(
            {
                "descr": np.dtype(spec.dtype).newbyteorder("<").str,
                "fortran_order": False,
                "shape": (entries, *spec.shape),
            }
        )
        file.seek(0)
        file.write(np.lib.format.magic(1, 0) + struct.pack("<H", HEADER_BYTES - 10))
        file.write(header.encode("latin1").ljust(HEADER_BYTES - 11) + b"\n")
        file.truncate(HEADER_BYTES + entries * spec.row_bytes)
        file.flush()
        # These came later: data without them keep the fingerprint that they had.
        later = {"each": spec.each == 1, "kind": spec.kind is None, "words": not spec.words}
        described = spec.model_dump_json(exclude={name for name, unused in later.items() if unused})
        digest.update(f"{name}:{described}".encode())
        file.seek(HEADER_BYTES)
        while chunk := file.read(1 << 22):
            digest.update(chunk)
        file.close()

    def _remove_stale(self) -> None:
        """Delete what killed processes left of this folder: what nobody touched for a day."""
        for partial in self.folder.parent.glob(f"{glob.escape(self.folder.name)}.partial-*"):
            try:
                touched = max(path.stat().st_mtime for path in (partial, *partial.iterdir()))
            except FileNotFoundError:  # another process has just finished it
                continue
            if time.time() - touched > STALE_SECONDS:
                shutil.rmtree(partial, ignore_errors=True)

    def _discard(self) -> None:
        for file in self._files.values():
            try:
                file.close()
            except OSError:  # a full disk again, on flushing: the file goes anyway
                continue
        shutil.rmtree(self.partial, ignore_errors=True)
