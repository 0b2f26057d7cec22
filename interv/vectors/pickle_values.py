"""What a pickle can hold besides plain containers: arrays of numpy and torch, and attributes.

Each name of CALLS stands for the function of numpy or torch that a pickle names to rebuild an
array; ours check sizes against the bytes that are there. The forms are those which numpy 1 and 2
and torch 1 and 2 write.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from interv.vectors.raw import BadFile, Raw, decode

# The element types of numpy by the code that its pickles name, without byte order.
CODES = frozenset(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"])
# The element types of torch by the class of their storage.
STORAGES: Mapping[str, str] = MappingProxyType(
    {
        "torch.DoubleStorage": "F64",
        "torch.FloatStorage": "F32",
        "torch.HalfStorage": "F16",
        "torch.BFloat16Storage": "BF16",
        "torch.LongStorage": "I64",
        "torch.IntStorage": "I32",
        "torch.ShortStorage": "I16",
        "torch.CharStorage": "I8",
        "torch.ByteStorage": "U8",
    }
)
ITEM_BYTES = MappingProxyType(
    {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1}
)
MOST_DIMENSIONS = 4
NAME_SHOWN = 80
# One array costs up to this many times its bytes: encoded, as text, and again for each view.
SPENT = 4


@dataclass(slots=True)
class Budget:
    """How many bytes a pickle of `size` bytes may still ask for."""

    size: int
    spent: int = 0

    def spend(self, count: int) -> None:
        """Take `count` bytes; raise BadFile where the pickle asked for too many."""
        self.spent += count
        if self.spent > SPENT * self.size:
            raise BadFile(f"its arrays are more than {SPENT} times larger than the file")


@dataclass(frozen=True, slots=True)
class Name:
    """A name that a pickle says, of a function or a class: a word, not what it names."""

    module: str
    name: str

    @property
    def path(self) -> str:
        """Return the module and the name in it."""
        return f"{self.module}.{self.name}"

    def __str__(self) -> str:
        shown = self.path if self.path.isprintable() else ascii(self.path)[1:-1]
        return shown if len(shown) <= NAME_SHOWN else shown[:NAME_SHOWN] + "…"


@dataclass(slots=True, eq=False)
class Record:
    """An object of a class that is not loaded: its attributes alone."""

    of: Name
    state: dict[str, Any] = field(default_factory=dict)

    def fill(self, state: object, _: Budget) -> None:
        """Set the attributes; a class with slots saves them second, behind None."""
        if type(state) is tuple and len(state) == 2 and state[0] is None:
            state = state[1]
        if type(state) is not dict:
            raise BadFile(f"its object of '{self.of}' is not saved by its attributes")
        self.state.update(state)


@dataclass(slots=True, eq=False)
class Dtype:
    """An element type of numpy; its byte order is told after it was made."""

    code: str
    order: str = "="

    def fill(self, state: object, _: Budget) -> None:
        """Take the byte order out of what numpy saves of an element type."""
        if type(state) is not tuple or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
            raise BadFile("its pickle holds an element type that is damaged")
        if any(part is not None for part in state[2:5]):
            raise BadFile("its pickle holds an array of records, not of numbers")
        self.order = state[1]

    def exact(self) -> np.dtype[Any]:
        """Return the element type itself; what is not said is little-endian."""
        return np.dtype(self.order.replace("=", "<") + self.code)


@dataclass(slots=True, eq=False)
class Array:
    """An array of numbers, empty until its state is told."""

    values: npt.NDArray[Any] | None = None

    def fill(self, state: object, budget: Budget) -> None:
        """Take version, shape, element type, order and bytes, as numpy saves them."""
        if type(state) is not tuple or len(state) != 5:
            raise BadFile("its pickle holds an array that is damaged")
        _, shape, dtype, fortran, data = state
        self.values = _array(data, dtype, shape, "F" if fortran else "C", budget)


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """The numbers under a tensor of torch, flat."""

    values: npt.NDArray[Any]


def unpack(said: tuple[object, ...], data: bytes, budget: Budget) -> Storage:
    """Return a storage of `data`, by what torch writes of one: 'storage', class, key, place, size.

    Raises BadFile for element types that are not real numbers and for sizes that do not fit.
    """
    if len(said) < 5 or said[0] != "storage" or type(said[1]) is not Name:
        raise BadFile("its pickle holds a torch storage that is damaged")
    of, size = said[1], said[4]
    if of.path not in STORAGES:
        raise BadFile(f"its pickle holds a '{of}', which is not of real numbers")
    dtype = STORAGES[of.path]
    if type(size) is not int or size < 0 or size * ITEM_BYTES[dtype] != len(data):
        raise BadFile("its pickle holds a torch storage that is damaged")
    budget.spend(len(data))
    if dtype == "BF16":
        return Storage(decode(Raw(dtype, (size,), np.frombuffer(data, np.uint8))))
    code = f"{'uif'['UIF'.index(dtype[0])]}{ITEM_BYTES[dtype]}"
    return Storage(np.frombuffer(data, f"<{code}"))


def _array(
    data: object, dtype: object, shape: object, order: object, budget: Budget
) -> npt.NDArray[Any]:
    if not isinstance(data, bytes | bytearray) or type(dtype) is not Dtype:
        raise BadFile("its pickle holds an array that is damaged")
    if order not in ("C", "F"):
        raise BadFile("its pickle holds an array that is damaged")
    exact, sizes = dtype.exact(), _sizes(shape)
    if math.prod(sizes) * exact.itemsize != len(data):
        raise BadFile(f"an array of shape {list(sizes)} does not fit its {len(data)} bytes")
    budget.spend(len(data))
    return np.ndarray(sizes, exact, data, order="F" if order == "F" else "C")


def _sizes(shape: object) -> tuple[int, ...]:
    sizes = (shape,) if type(shape) is int else shape
    if type(sizes) is not tuple or len(sizes) > MOST_DIMENSIONS:
        raise BadFile("its pickle holds an array that is damaged")
    if any(type(size) is not int or not 0 <= size < 1 << 48 for size in sizes):
        raise BadFile("its pickle holds an array that is damaged")
    return sizes


def _blank(arguments: tuple[Any, ...], _: Budget) -> Array:
    of = arguments[0]
    if type(of) is not Name or of.path != "numpy.ndarray":
        raise BadFile(f"its pickle holds an array of class {_shown(of)}, not 'numpy.ndarray'")
    return Array()


def _dtype(arguments: tuple[Any, ...], _: Budget) -> Dtype:
    if type(arguments[0]) is not str or arguments[0] not in CODES:
        raise BadFile("its pickle holds an array of something else than real numbers")
    return Dtype(arguments[0])


def _from_buffer(arguments: tuple[Any, ...], budget: Budget) -> Array:
    data, dtype, shape, order, *axes = arguments
    if order != "K":
        return Array(_array(data, dtype, shape, order, budget))
    # Neither rows nor columns first: the bytes have an order of axes of their own.
    values = _array(data, dtype, shape, "C", budget)
    return Array(values.transpose(_sizes(axes[0])))


def _empty(arguments: tuple[Any, ...], _: Budget) -> bytes:
    """Return no bytes, which old protocols ask for by calling `bytes` with nothing."""
    if arguments:
        raise BadFile("its pickle holds an array that is damaged")
    return b""


def _scalar(arguments: tuple[Any, ...], budget: Budget) -> Array:
    dtype, data = arguments
    return Array(_array(data, dtype, (), "C", budget))


def _encode(arguments: tuple[Any, ...], budget: Budget) -> bytes:
    """Return bytes that an old protocol wrote as text, one character each."""
    text = arguments[0]
    if type(text) is not str or arguments[1:] not in ((), ("latin1",), ("latin-1",)):
        raise BadFile("its pickle holds text in place of an array")
    budget.spend(len(text))
    return text.encode("latin-1")


def _tensor(arguments: tuple[Any, ...], budget: Budget) -> Array:
    storage, offset, size, stride = arguments[:4]
    if type(storage) is not Storage:
        raise BadFile("its pickle holds a tensor that is damaged")
    sizes, strides, (offset,) = _sizes(size), _sizes(stride), _sizes(offset)
    flat = storage.values
    if len(sizes) != len(strides) or math.prod(sizes) > len(flat):
        raise BadFile(f"a tensor of shape {list(sizes)} is not stored densely in it")
    steps = zip(sizes, strides, strict=True)
    last = offset + sum((size - 1) * step for size, step in steps)
    if math.prod(sizes) and last >= len(flat):
        raise BadFile("its pickle holds a tensor that is damaged")
    budget.spend(math.prod(sizes) * flat.itemsize)
    steps_bytes = tuple(step * flat.itemsize for step in strides)
    part = flat[offset:] if math.prod(sizes) else flat
    return Array(np.array(np.lib.stride_tricks.as_strided(part, sizes, steps_bytes)))


def _same(arguments: tuple[Any, ...], _: Budget) -> Array:
    if type(arguments[0]) is not Array:
        raise BadFile("its pickle holds a tensor that is damaged")
    return arguments[0]


def _dict(arguments: tuple[Any, ...], _: Budget) -> dict[str, Any]:
    if arguments:
        raise BadFile("its pickle holds a dict that is damaged")
    return {}


def _object(arguments: tuple[Any, ...], _: Budget) -> Record:
    """Make an object as protocols 0 and 1 do: of a class, of object, of nothing."""
    of, base, rest = arguments
    if type(of) is not Name or rest is not None or base not in OBJECT:
        raise BadFile(f"its pickle asks to make a {_shown(of)}; nothing in a pickle is ever called")
    return Record(of)


def _shown(value: object) -> str:
    """Name a value without printing what it holds, which may be endless."""
    return f"'{value}'" if type(value) is Name else type(value).__name__


OBJECT = (Name("__builtin__", "object"), Name("builtins", "object"))
Call: TypeAlias = Callable[[tuple[Any, ...], Budget], object]
CALLS: Mapping[str, Call] = MappingProxyType(
    {
        "numpy._core.multiarray._reconstruct": _blank,
        "numpy.core.multiarray._reconstruct": _blank,
        "numpy._core.numeric._frombuffer": _from_buffer,
        "numpy.core.numeric._frombuffer": _from_buffer,
        "numpy._core.multiarray.scalar": _scalar,
        "numpy.core.multiarray.scalar": _scalar,
        "numpy.dtype": _dtype,
        "_codecs.encode": _encode,
        "__builtin__.bytes": _empty,
        "builtins.bytes": _empty,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_parameter": _same,
        "collections.OrderedDict": _dict,
        "copy_reg._reconstructor": _object,
        "copyreg._reconstructor": _object,
    }
)
