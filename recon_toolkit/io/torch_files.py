"""Reading files of ``torch.save`` without executing anything in them."""

from __future__ import annotations

import io
import math
import mmap
import pickletools
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import IO, Any, Protocol

import torch
from torch import Tensor

from recon_toolkit.errors import CheckpointError, DataError
from recon_toolkit.files import size_of

#: Steps of a pickle that are followed. Checkpoints take some ten thousand.
MOST_STEPS = 2_000_000
#: What steps count for whose result takes more memory than a number: sets, stand-ins for names, and storages.
_COSTS = {
    **dict.fromkeys(("EMPTY_SET", "FROZENSET"), 8),
    **dict.fromkeys(("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "REDUCE", "NEWOBJ", "NEWOBJ_EX"), 4),
    "BINPERSID": 32,
}
#: What a call that does something counts for besides: it may make a tensor.
_CALL_COST = 32
#: Dimensions that a tensor can have here.
_MOST_DIMENSIONS = 16


class Source(Protocol):
    """A file that gives no more than it has, however much is asked for, such as ``BytesIO`` and ``mmap``."""

    def read(self, n: int = ..., /) -> bytes: ...
    def readline(self) -> bytes: ...
    def tell(self) -> int: ...


class UnpicklingError(Exception):
    """The file asks for what is not read.

    Args:
        message: what that is.
        remedy: what can be done about it, if there is more than getting another file.
    """

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy


class OpaqueObject:
    """Stands for a class, a function or an object that a file names. It does nothing and holds nothing but the name."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name[:80]}, not loaded>"


def _size(numbers: Any = ()) -> tuple[int, ...]:
    """A few whole numbers; anything longer is not copied."""
    if not isinstance(numbers, tuple | list) or len(numbers) > _MOST_DIMENSIONS:
        raise UnpicklingError("it has a size of more or other than a few numbers")
    if not all(type(number) is int for number in numbers):
        raise UnpicklingError("it has a size that is not of whole numbers")
    return tuple(numbers)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_rest: Any) -> Tensor:
    if not isinstance(storage, Tensor) or storage.ndim != 1:
        raise UnpicklingError("it has a tensor without storage")
    shape, strides = _size(shape), _size(strides)
    if len(shape) != len(strides) or not all(type(n) is int and 0 <= n < 2**48 for n in (offset, *shape, *strides)):
        raise UnpicklingError("it has a tensor of impossible shape")
    reach = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if 0 not in shape and reach >= len(storage):
        raise UnpicklingError("it has a tensor beyond its storage")
    if math.prod(shape) > len(storage):  # a stride of 0 makes few numbers many: whoever copies them fills the memory
        raise UnpicklingError(
            f"it has a tensor of shape {shape} made of {len(storage)} stored numbers, as Tensor.expand makes them",
            "save such tensors with .clone(), which stores every number",
        )
    return torch.as_strided(storage, shape, strides, storage.storage_offset() + offset)


def _ordered(pairs: Any = (), *_rest: Any) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    if not isinstance(pairs, tuple | list) or not all(isinstance(pair, tuple | list) for pair in pairs):
        raise UnpicklingError("it has a dictionary that is not of pairs")
    _put_all(found, (part for key, value in pairs for part in (key, value)))
    return found


def _first(value: Any, *_rest: Any) -> Any:
    return value


#: The only names that a call does something for, and what stands in for them.
_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_ARGUMENTS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "BYTEARRAY8"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _is_key(value: Any) -> bool:
    """Whether a dictionary or a set takes it: no nested tuple, whose hash recurses, and no numbers made to collide."""
    return isinstance(value, str | bytes) or value is None or (isinstance(value, int) and -(2**53) < value < 2**53)


def _put_all(target: Any, items: Iterable[Any]) -> None:
    """Key, value, key, value, … into a dictionary."""
    steps = iter(items)
    for key, value in zip(steps, steps, strict=True):
        if isinstance(target, dict) and _is_key(key):
            target[key] = value
        elif not isinstance(target, dict | OpaqueObject):
            raise UnpicklingError("it puts a key into something that is no dictionary")


class Unpickler:
    """Follows one pickle, step by step and without recursion.

    Args:
        file: stands at its start, and at its end afterwards.
        storages: gives what a persistent id stands for; none is allowed without.
    """

    def __init__(self, file: Source, storages: Callable[[Any], Any] | None = None) -> None:
        self._file, self._storages = file, storages
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._left = MOST_STEPS

    def run(self) -> Any:
        """The object that the pickle describes.

        Raises:
            UnpicklingError: it asks for something that is not done here; other exceptions if it is damaged.
        """
        steps: Iterable[Any] = pickletools.genops(self._file)  # type: ignore[arg-type]
        for opcode, argument, _ in steps:
            self._spend(_COSTS.get(opcode.name, 1))
            if opcode.name == "STOP":
                return self._pop()
            self._step(opcode.name, argument)
        raise UnpicklingError("its pickle is cut off")

    def _spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise UnpicklingError("its pickle is longer than that of any checkpoint")

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise UnpicklingError("its pickle takes what is not there")
        return self._stack.pop()

    def _top(self) -> Any:
        self._stack.append(found := self._pop())
        return found

    def _since_mark(self) -> list[Any]:
        if not self._marks:
            raise UnpicklingError("its pickle lacks a mark")
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _ARGUMENTS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name == "POP" and self._marks and self._marks[-1] == len(stack):
            self._marks.pop()
        elif name == "POP":
            self._pop()
        elif name == "POP_MARK":
            self._since_mark()
        elif name == "DUP":
            stack.append(self._top())
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._top()
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._top()
        elif name not in ("PROTO", "FRAME") and not self._collect(name):
            self._object(name, argument)

    def _collect(self, name: str) -> bool:
        """Steps that make or fill containers; False if this is none."""
        if name in _TUPLES:
            self._stack.append(tuple(reversed([self._pop() for _ in range(_TUPLES[name])])))
        elif name == "TUPLE":
            self._stack.append(tuple(self._since_mark()))
        elif name == "LIST":
            self._stack.append(self._since_mark())
        elif name == "FROZENSET":
            self._stack.append(frozenset(filter(_is_key, self._since_mark())))
        elif name == "DICT":
            items = self._since_mark()
            self._stack.append({})
            _put_all(self._top(), items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._since_mark() if name == "SETITEMS" else [self._pop(), self._pop()][::-1]
            _put_all(self._top(), items)
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = [self._pop()] if name == "APPEND" else self._since_mark()
            target = self._top()
            if isinstance(target, list):
                target.extend(items)
            elif isinstance(target, set):
                target.update(filter(_is_key, items))
            elif not isinstance(target, OpaqueObject):
                raise UnpicklingError("it appends to something that is no list")
        else:
            return False
        return True

    def _object(self, name: str, argument: Any) -> None:
        """Steps that in Python's unpickler import, call and fill objects."""
        if name == "GLOBAL":
            self._stack.append(OpaqueObject(argument.replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            last, module = self._pop(), self._pop()
            if not isinstance(last, str) or not isinstance(module, str):
                raise UnpicklingError("it names something by no word")
            self._spend(len(module) + len(last))  # a word kept in the memo could be put together many times
            self._stack.append(OpaqueObject(f"{module}.{last}"))
        elif name == "INST":
            self._since_mark()
            self._stack.append(OpaqueObject(argument.replace(" ", ".", 1)))
        elif name == "OBJ":
            function, *arguments = self._since_mark() or [None]
            self._stack.append(self._called(function, arguments))
        elif name in ("REDUCE", "NEWOBJ", "NEWOBJ_EX"):
            if name == "NEWOBJ_EX":
                self._pop()  # keyword arguments
            arguments, function = self._pop(), self._pop()
            if not isinstance(arguments, tuple):
                raise UnpicklingError("it calls something with no list of arguments")
            self._stack.append(self._called(function, arguments))
        elif name == "BUILD":
            self._pop()  # a state: ours have none
            self._top()
        elif name == "BINPERSID" and self._storages is not None:
            self._stack.append(self._storages(self._pop()))
        else:
            raise UnpicklingError(f"its pickle has the step {name}, which checkpoints do not need")

    def _called(self, function: Any, arguments: Sequence[Any]) -> Any:
        if not isinstance(function, OpaqueObject):
            raise UnpicklingError("it calls something that is no function")
        known = _CALLS.get(function.name)
        if known is None:  # what it is given is not looked at
            return OpaqueObject(function.name)
        # A call may go through what it is given, or copy it, which one object kept in the memo could be many times.
        # A tensor's numbers are neither.
        self._spend(_CALL_COST + len(arguments))
        self._spend(sum(len(a) for a in arguments if isinstance(a, Sized) and not isinstance(a, Tensor)))
        return known(*arguments)


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
    except UnpicklingError as error:
        raise _failure(path, str(error), error.remedy) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(f"cannot be read: {reason}", where=str(path), remedy="check the path") from error
    except Exception as error:  # a damaged or hostile file can trip any of the steps above
        raise _failure(path, f"damaged ({type(error).__name__}: {str(error)[:120]})") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        what = f"a {found.name[:80]}" if isinstance(found, OpaqueObject) else f"a {type(found).__name__}"
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
        raise UnpicklingError(f"it is larger than {MOST_BYTES >> 30} GiB")
    if start.startswith(b"PK"):
        return _read_zip(file, size)
    if start.startswith(b"\x80"):
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return _read_legacy(mapped, size)
    if not start:
        raise UnpicklingError("it is empty")
    if start[257:262] == b"ustar":
        raise UnpicklingError("it is of a format that PyTorch gave up in 2017")
    if start[8:10] == b'{"':
        raise UnpicklingError("it is a safetensors file")
    kinds = (kind for beginning, kind in _BEGINNINGS.items() if start.startswith(beginning))
    raise UnpicklingError(f"it is {next(kinds, 'of another kind')}")


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
            return OpaqueObject("a module")
        if not isinstance(reference, tuple) or len(reference) not in (5, 6) or reference[0] != "storage":
            raise UnpicklingError("it refers to something that is no tensor's storage")
        _, kind, key, _, count, *view = reference
        name = kind.name.rpartition(".")[2] if isinstance(kind, OpaqueObject) else ""
        if name not in _DTYPES or not isinstance(key, str) or type(count) is not int or count < 0:
            raise UnpicklingError(f"it has a storage of a kind that is not known ({name[:40] or type(kind).__name__})")
        if key not in self.made:
            self._left -= count * _DTYPES[name].itemsize
            if self._left < 0:
                raise UnpicklingError("its tensors are larger than the file: it is cut off, or made to fill the memory")
            self.made[key] = self._make(key, _DTYPES[name], count)
        found = self.made[key]
        if found.dtype != _DTYPES[name] or len(found) != count:
            raise UnpicklingError(f"the storage '{key[:40]}' is given two sizes")
        return found if not view or view[0] is None else _part(found, view[0])


def _part(storage: Tensor, view: Any) -> Tensor:
    """The part of a storage that a view of the old format names: ``(key, offset, elements)``."""
    _, offset, count = view
    if type(offset) is not int or type(count) is not int or not 0 <= offset <= offset + count <= len(storage):
        raise UnpicklingError("it has a view beyond its storage")
    return storage[offset : offset + count]


# -- the two formats ---------------------------------------------------------------------------------------------------


def _read_zip(file: IO[bytes], size: int) -> Any:
    """A zip archive with one folder: ``data.pkl``, and the storages as ``data/KEY``, none of them compressed."""
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise UnpicklingError(f"the archive is damaged or cut off ({error})") from error
    records = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in records if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UnpicklingError("the archive has no data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in records:
        raise UnpicklingError("it is a TorchScript program")

    def record(name: str) -> bytes:
        info = records.get(folder + name)
        if info is None:
            raise UnpicklingError(f"the archive lacks {name[:60]}")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > size:
            raise UnpicklingError("the archive is compressed, which torch.save does not do")
        return archive.read(info)

    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        data = bytearray(record(f"data/{key}"))
        if len(data) != count * dtype.itemsize:
            raise UnpicklingError(f"data/{key[:40]} has {len(data)} bytes, but {count * dtype.itemsize} are asked for")
        return torch.frombuffer(data, dtype=dtype) if count else torch.empty(0, dtype=dtype)

    if f"{folder}byteorder" in records and record("byteorder") != b"little":
        raise UnpicklingError("it comes from a machine of another byte order")
    return Unpickler(io.BytesIO(record("data.pkl")), _Storages(size, storage)).run()


def _read_legacy(file: mmap.mmap, size: int) -> Any:
    """Five pickles (magic number, protocol, machine, the object, the storages' keys), then the storages."""
    storages = _Storages(size, lambda _, dtype, count: torch.empty(count, dtype=dtype))
    if Unpickler(file).run() != _MAGIC:
        raise UnpicklingError("it is a pickle, but not of torch.save")
    if Unpickler(file).run() != _PROTOCOL:
        raise UnpicklingError("it is of a protocol that is not known")
    machine = Unpickler(file).run()
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise UnpicklingError("it comes from a machine of another byte order")
    found = Unpickler(file, storages).run()
    keys = Unpickler(file).run()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise UnpicklingError("its list of storages is none")
    if len(keys) != len(storages.made) or set(keys) != storages.made.keys():
        raise UnpicklingError("its list of storages is not that of its tensors")
    for key in keys:
        storage = storages.made[key]
        count = int.from_bytes(file.read(8), "little")
        data = bytearray(file.read(len(storage) * storage.itemsize))
        if count != len(storage) or len(data) != len(storage) * storage.itemsize:
            raise UnpicklingError("a storage is cut off or of another size than its tensors")
        if count:
            storage.copy_(torch.frombuffer(data, dtype=storage.dtype))
    return found
