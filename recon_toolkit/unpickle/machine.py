"""The machine that follows a pickle: it knows numbers, words, containers and tensors, and imports and calls nothing."""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Iterable, Sequence, Sized
from typing import Any, Protocol

import torch
from torch import Tensor

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


class Refused(Exception):
    """The file asks for what is not read.

    Args:
        message: what that is.
        remedy: what can be done about it, if there is more than getting another file.
    """

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy


class Foreign:
    """Stands for a class, a function or an object that a file names. It does nothing and holds nothing but the name."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name[:80]}, not loaded>"


def _size(numbers: Any = ()) -> tuple[int, ...]:
    """A few whole numbers; anything longer is not copied."""
    if not isinstance(numbers, tuple | list) or len(numbers) > _MOST_DIMENSIONS:
        raise Refused("it has a size of more or other than a few numbers")
    if not all(type(number) is int for number in numbers):
        raise Refused("it has a size that is not of whole numbers")
    return tuple(numbers)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_rest: Any) -> Tensor:
    if not isinstance(storage, Tensor) or storage.ndim != 1:
        raise Refused("it has a tensor without storage")
    shape, strides = _size(shape), _size(strides)
    if len(shape) != len(strides) or not all(type(n) is int and 0 <= n < 2**48 for n in (offset, *shape, *strides)):
        raise Refused("it has a tensor of impossible shape")
    reach = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if 0 not in shape and reach >= len(storage):
        raise Refused("it has a tensor beyond its storage")
    if math.prod(shape) > len(storage):  # a stride of 0 makes few numbers many: whoever copies them fills the memory
        raise Refused(
            f"it has a tensor of shape {shape} made of {len(storage)} stored numbers, as Tensor.expand makes them",
            "save such tensors with .clone(), which stores every number",
        )
    return torch.as_strided(storage, shape, strides, storage.storage_offset() + offset)


def _ordered(pairs: Any = (), *_rest: Any) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    if not isinstance(pairs, tuple | list) or not all(isinstance(pair, tuple | list) for pair in pairs):
        raise Refused("it has a dictionary that is not of pairs")
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
        elif not isinstance(target, dict | Foreign):
            raise Refused("it puts a key into something that is no dictionary")


class Machine:
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
            Refused: it asks for something that is not done here; other exceptions if it is damaged.
        """
        steps: Iterable[Any] = pickletools.genops(self._file)  # type: ignore[arg-type]
        for opcode, argument, _ in steps:
            self._spend(_COSTS.get(opcode.name, 1))
            if opcode.name == "STOP":
                return self._pop()
            self._step(opcode.name, argument)
        raise Refused("its pickle is cut off")

    def _spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise Refused("its pickle is longer than that of any checkpoint")

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise Refused("its pickle takes what is not there")
        return self._stack.pop()

    def _top(self) -> Any:
        self._stack.append(found := self._pop())
        return found

    def _since_mark(self) -> list[Any]:
        if not self._marks:
            raise Refused("its pickle lacks a mark")
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
            elif not isinstance(target, Foreign):
                raise Refused("it appends to something that is no list")
        else:
            return False
        return True

    def _object(self, name: str, argument: Any) -> None:
        """Steps that in Python's unpickler import, call and fill objects."""
        if name == "GLOBAL":
            self._stack.append(Foreign(argument.replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            last, module = self._pop(), self._pop()
            if not isinstance(last, str) or not isinstance(module, str):
                raise Refused("it names something by no word")
            self._spend(len(module) + len(last))  # a word kept in the memo could be put together many times
            self._stack.append(Foreign(f"{module}.{last}"))
        elif name == "INST":
            self._since_mark()
            self._stack.append(Foreign(argument.replace(" ", ".", 1)))
        elif name == "OBJ":
            function, *arguments = self._since_mark() or [None]
            self._stack.append(self._called(function, arguments))
        elif name in ("REDUCE", "NEWOBJ", "NEWOBJ_EX"):
            if name == "NEWOBJ_EX":
                self._pop()  # keyword arguments
            arguments, function = self._pop(), self._pop()
            if not isinstance(arguments, tuple):
                raise Refused("it calls something with no list of arguments")
            self._stack.append(self._called(function, arguments))
        elif name == "BUILD":
            self._pop()  # a state: ours have none
            self._top()
        elif name == "BINPERSID" and self._storages is not None:
            self._stack.append(self._storages(self._pop()))
        else:
            raise Refused(f"its pickle has the step {name}, which checkpoints do not need")

    def _called(self, function: Any, arguments: Sequence[Any]) -> Any:
        if not isinstance(function, Foreign):
            raise Refused("it calls something that is no function")
        known = _CALLS.get(function.name)
        if known is None:  # what it is given is not looked at
            return Foreign(function.name)
        # A call may go through what it is given, or copy it, which one object kept in the memo could be many times.
        # A tensor's numbers are neither.
        self._spend(_CALL_COST + len(arguments))
        self._spend(sum(len(a) for a in arguments if isinstance(a, Sized) and not isinstance(a, Tensor)))
        return known(*arguments)
