"""The two formats of ``torch.save``: where a file's pickle and its tensors' numbers lie.

A pickle is a program. The one here is followed by a :class:`Machine` of our own. Whatever it names beside containers
and tensors, a class or a function, becomes an inert :class:`Foreign`: it is not imported, not called and not given a
state. Neither Python's unpickler nor ``torch.load`` takes part.
"""

from __future__ import annotations

import io
import mmap
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from recon_toolkit.errors import CheckpointError, DataError
from recon_toolkit.files import size_of
from recon_toolkit.unpickle.machine import Foreign, Machine, Refused

#: Largest file that is looked at, in bytes.
MOST_BYTES = 8 << 30

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
#: What a file that is none of ours starts with, to say what it is.
_BEGINNINGS = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89HDF": "an HDF5 file",
    b"<!DOC": "a web page",
    b"<html": "a web page",
    b"version https://git-lfs": "a pointer to a file in Git LFS",
}


def read_torch_file(path: str | Path) -> Mapping[str, Any]:
    """The dictionary in a file of ``torch.save``: of today's zip format, or of the one before PyTorch 1.6.

    Values are numbers, words, bytes, lists, tuples, sets, dictionaries and tensors on the CPU; ordered dictionaries
    come as plain ones. Everything else is a :class:`Foreign`. Entries of dictionaries whose key is neither a word nor
    a whole number are left out. No tensor has more elements than its storage.

    Args:
        path: the file.

    Raises:
        CheckpointError: it cannot be read, is of another kind, damaged, larger than :data:`MOST_BYTES`, holds an
            expanded tensor, or no dictionary with words as keys. No file, however made, ends otherwise or executes
            anything.
    """
    path = Path(path)
    try:
        size = size_of(path)  # before it is opened: to open a pipe is to wait
        with path.open("rb") as file:
            found = _read(file, size)
    except DataError as error:
        raise CheckpointError(error.message, where=error.where, remedy=error.remedy) from None
    except Refused as error:
        raise _failure(path, str(error), error.remedy) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(f"cannot be read: {reason}", where=str(path), remedy="check the path") from error
    except Exception as error:  # a damaged or hostile file can trip any of the steps above
        raise _failure(path, f"damaged ({type(error).__name__}: {str(error)[:120]})") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        what = f"a {found.name[:80]}" if isinstance(found, Foreign) else f"a {type(found).__name__}"
        raise _failure(path, f"holds {what}, not a dictionary by names")
    return found


def _failure(path: Path, reason: str, remedy: str | None = None) -> CheckpointError:
    return CheckpointError(
        f"not a readable checkpoint: {reason}; nothing in it was executed",
        where=str(path),
        remedy=remedy or "name a file that torch.save wrote; fetch it again if a copy broke off",
    )


def _read(file: IO[bytes], size: int) -> Any:
    start = file.read(512)
    file.seek(0)
    if size > MOST_BYTES:
        raise Refused(f"it is larger than {MOST_BYTES >> 30} GiB")
    if start.startswith(b"PK"):
        return _read_zip(file, size)
    if start.startswith(b"\x80"):
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return _read_legacy(mapped, size)
    if not start:
        raise Refused("it is empty")
    if start[257:262] == b"ustar":
        raise Refused("it is of a format that PyTorch gave up in 2017")
    if start[8:10] == b'{"':
        raise Refused("it is a safetensors file")
    kinds = (kind for beginning, kind in _BEGINNINGS.items() if start.startswith(beginning))
    raise Refused(f"it is {next(kinds, 'of another kind')}")


# -- storages ----------------------------------------------------------------------------------------------------------


class _Storages:
    """The flat tensors that a pickle refers to, each made once, together not larger than the file.

    Args:
        size: of the file in bytes.
        make: from the key, type and number of elements.
    """

    def __init__(self, size: int, make: Callable[[str, torch.dtype, int], Tensor]) -> None:
        self._left, self._make = size, make
        self.made: dict[str, Tensor] = {}

    def __call__(self, reference: Any) -> Any:
        """What a persistent id stands for: ``("storage", type, key, device, elements[, view])``."""
        if isinstance(reference, tuple) and reference and reference[0] == "module":
            return Foreign("a module")
        if not isinstance(reference, tuple) or len(reference) not in (5, 6) or reference[0] != "storage":
            raise Refused("it refers to something that is no tensor's storage")
        _, kind, key, _, count, *view = reference
        name = kind.name.rpartition(".")[2] if isinstance(kind, Foreign) else ""
        if name not in _DTYPES or not isinstance(key, str) or type(count) is not int or count < 0:
            raise Refused(f"it has a storage of a kind that is not known ({name[:40] or type(kind).__name__})")
        if key not in self.made:
            self._left -= count * _DTYPES[name].itemsize
            if self._left < 0:
                raise Refused("its tensors are larger than the file: it is cut off, or made to fill the memory")
            self.made[key] = self._make(key, _DTYPES[name], count)
        found = self.made[key]
        if found.dtype != _DTYPES[name] or len(found) != count:
            raise Refused(f"the storage '{key[:40]}' is given two sizes")
        return found if not view or view[0] is None else _part(found, view[0])


def _part(storage: Tensor, view: Any) -> Tensor:
    """The part of a storage that a view of the old format names: ``(key, offset, elements)``."""
    _, offset, count = view
    if type(offset) is not int or type(count) is not int or not 0 <= offset <= offset + count <= len(storage):
        raise Refused("it has a view beyond its storage")
    return storage[offset : offset + count]


# -- the two formats ---------------------------------------------------------------------------------------------------


def _read_zip(file: IO[bytes], size: int) -> Any:
    """A zip archive with one folder: ``data.pkl``, and the storages as ``data/KEY``, none of them compressed."""
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise Refused(f"the archive is damaged or cut off ({error})") from error
    records = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in records if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise Refused("the archive has no data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in records:
        raise Refused("it is a TorchScript program")

    def record(name: str) -> bytes:
        info = records.get(folder + name)
        if info is None:
            raise Refused(f"the archive lacks {name[:60]}")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > size:
            raise Refused("the archive is compressed, which torch.save does not do")
        return archive.read(info)

    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        data = bytearray(record(f"data/{key}"))
        if len(data) != count * dtype.itemsize:
            raise Refused(f"data/{key[:40]} has {len(data)} bytes, but {count * dtype.itemsize} are asked for")
        return torch.frombuffer(data, dtype=dtype) if count else torch.empty(0, dtype=dtype)

    if f"{folder}byteorder" in records and record("byteorder") != b"little":
        raise Refused("it comes from a machine of another byte order")
    return Machine(io.BytesIO(record("data.pkl")), _Storages(size, storage)).run()


def _read_legacy(file: mmap.mmap, size: int) -> Any:
    """Five pickles (magic number, protocol, machine, the object, the storages' keys), then the storages."""
    storages = _Storages(size, lambda _, dtype, count: torch.empty(count, dtype=dtype))
    if Machine(file).run() != _MAGIC:
        raise Refused("it is a pickle, but not of torch.save")
    if Machine(file).run() != _PROTOCOL:
        raise Refused("it is of a protocol that is not known")
    machine = Machine(file).run()
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise Refused("it comes from a machine of another byte order")
    found = Machine(file, storages).run()
    keys = Machine(file).run()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Refused("its list of storages is none")
    if len(keys) != len(storages.made) or set(keys) != storages.made.keys():
        raise Refused("its list of storages is not that of its tensors")
    for key in keys:
        storage = storages.made[key]
        count = int.from_bytes(file.read(8), "little")
        data = bytearray(file.read(len(storage) * storage.itemsize))
        if count != len(storage) or len(data) != len(storage) * storage.itemsize:
            raise Refused("a storage is cut off or of another size than its tensors")
        if count:
            storage.copy_(torch.frombuffer(data, dtype=storage.dtype))
    return found
