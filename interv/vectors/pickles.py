"""Read a pickle as data, with an interpreter of its opcodes that imports and calls nothing.

A name in a pickle stays a word here. The few that rebuild arrays have a function of ours in their
place; a call of any other ends the reading, and the error says what was asked for. An object of a
class is read as its attributes. Opcodes: the documentation of Python's `pickletools`.
Python's own unpickler is no way, even where every name is inert: seven bytes take all memory, and
a nested key ends the process (tests/vectors/test_library_unpickler.py).
"""

from __future__ import annotations

import io
import mmap
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

from interv.vectors.pickle_values import CALLS, Array, Budget, Dtype, Name, Record, unpack
from interv.vectors.raw import BadFile

# Given what torch writes of a storage, returns it; a pickle outside torch's archives has none.
Storages: TypeAlias = Callable[[tuple[object, ...]], object]

PUSHED = frozenset(
    [
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "UNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
    ]
)
CONSTANTS = MappingProxyType({"NONE": None, "NEWTRUE": True, "NEWFALSE": False})
EMPTY: Mapping[str, Callable[[], object]] = MappingProxyType(
    {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
)
SIZED = MappingProxyType({"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3})
KEPT = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
FETCHED = frozenset({"GET", "BINGET", "LONG_BINGET"})
SKIPPED = frozenset({"PROTO", "FRAME"})
# Where the functions stand that torch calls of itself when it reads.
TORCHS = frozenset({"torch", "collections", "argparse"})


class Refused(BadFile):
    """Raised for a call that no reader of ours or of torch ever makes."""


def loads(
    data: bytes | mmap.mmap, storages: Storages | None = None, budget: Budget | None = None
) -> object:
    """Return what a pickle holds: plain containers and numbers, Array and Record.

    Nothing is imported, called or allocated beyond a few times the pickle's size, or what is left
    of the `budget` of the file around it. Raises BadFile for a pickle that is damaged, that calls
    anything or holds what is neither of these.
    """
    stream = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        return _Reader(stream, budget or Budget(len(data)), storages).read()
    except BadFile:
        raise
    except (ValueError, LookupError, TypeError, OverflowError, EOFError, AttributeError) as error:
        raise BadFile("its pickle is damaged") from error


@dataclass(slots=True)
class _Reader:
    """A pickle machine: a stack, the depths of its marks, and what is kept by number."""

    stream: io.BytesIO | mmap.mmap
    budget: Budget
    storages: Storages | None = None
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    inner: bool = False  # of the bytes in which torch packs a storage; they hold no others

    def read(self) -> object:
        for opcode, argument, _ in pickletools.genops(self.stream):  # type: ignore[arg-type]
            name = opcode.name
            if name == "STOP":
                return self.pop()
            if name in PUSHED:
                self.stack.append(argument)
            elif name in CONSTANTS:
                self.stack.append(CONSTANTS[name])
            elif name in EMPTY:
                self.stack.append(EMPTY[name]())
            elif name in SIZED:
                self.stack.append(tuple(reversed([self.pop() for _ in range(SIZED[name])])))
            elif name in FETCHED:
                self.stack.append(self.memo[int(str(argument))])
            elif name in KEPT:
                self.memo[int(str(argument))] = self.top()
            elif name in STEPS:
                STEPS[name](self, argument)
            elif name not in SKIPPED:
                raise BadFile(f"its pickle holds the opcode {name}, which arrays do not need")
        raise BadFile("its pickle is damaged")

    def pop(self) -> Any:
        self.top()
        return self.stack.pop()

    def top(self) -> Any:
        # What lies below a mark belongs to the container that is still open.
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise IndexError("pop from an empty stack")
        return self.stack[-1]

    def since_mark(self) -> list[Any]:
        at = self.marks.pop()
        found = self.stack[at:]
        del self.stack[at:]
        return found

    def mark(self, _: object) -> None:
        self.marks.append(len(self.stack))

    def drop(self, _: object) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.pop()

    def drop_marked(self, _: object) -> None:
        self.since_mark()

    def double(self, _: object) -> None:
        self.stack.append(self.top())

    def memoize(self, _: object) -> None:
        self.memo[len(self.memo)] = self.top()

    def make_list(self, _: object) -> None:
        self.stack.append(self.since_mark())

    def make_tuple(self, _: object) -> None:
        self.stack.append(tuple(self.since_mark()))

    def make_dict(self, _: object) -> None:
        made: dict[Any, Any] = {}
        _fill(made, self.since_mark())
        self.stack.append(made)

    def append(self, _: object) -> None:
        value = self.pop()
        _grow(self.top(), [value])

    def appends(self, _: object) -> None:
        items = self.since_mark()
        _grow(self.top(), items)

    def set_item(self, _: object) -> None:
        value, key = self.pop(), self.pop()
        _fill(self.top(), [key, value])

    def set_items(self, _: object) -> None:
        items = self.since_mark()
        _fill(self.top(), items)

    def name(self, argument: str) -> None:
        module, name = argument.split(" ", 1)
        self.stack.append(Name(module, name))

    def stack_name(self, _: object) -> None:
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise BadFile("its pickle is damaged")
        self.stack.append(Name(module, name))

    def call(self, _: object) -> None:
        arguments, what = self.pop(), self.pop()
        if type(arguments) is not tuple or type(what) is not Name:
            raise BadFile("its pickle is damaged")
        if what.path == "torch.storage._load_from_bytes" and not self.inner:
            self.stack.append(_storage(arguments, self.budget))
        elif what.path in CALLS:
            self.stack.append(CALLS[what.path](arguments, self.budget))
        else:
            kind = BadFile if what.module.partition(".")[0] in TORCHS else Refused
            raise kind(f"its pickle asks to call '{what}'; nothing in a pickle is ever called")

    def make_object(self, _: object) -> None:
        arguments, of = self.pop(), self.pop()
        if type(of) is not Name:
            raise BadFile("its pickle is damaged")
        if arguments != ():
            raise BadFile(f"its pickle asks to call '{of}'; nothing in a pickle is ever called")
        self.stack.append(Record(of))

    def build(self, _: object) -> None:
        state = self.pop()
        made = self.top()
        # torch notes the versions of its modules beside what `state_dict` holds.
        if type(made) is dict and type(state) is dict and list(state) == ["_metadata"]:
            return
        if not isinstance(made, Array | Dtype | Record):
            raise BadFile(f"its pickle sets the state of a {type(made).__name__}")
        made.fill(state, self.budget)

    def persistent(self, _: object) -> None:
        said = self.pop()
        if self.storages is None or type(said) is not tuple:
            raise BadFile("its pickle refers to something outside it")
        self.stack.append(self.storages(said))


Step: TypeAlias = Callable[[_Reader, Any], None]
STEPS: Mapping[str, Step] = MappingProxyType(
    {
        "MARK": _Reader.mark,
        "POP": _Reader.drop,
        "POP_MARK": _Reader.drop_marked,
        "DUP": _Reader.double,
        "MEMOIZE": _Reader.memoize,
        "LIST": _Reader.make_list,
        "TUPLE": _Reader.make_tuple,
        "DICT": _Reader.make_dict,
        "APPEND": _Reader.append,
        "APPENDS": _Reader.appends,
        "SETITEM": _Reader.set_item,
        "SETITEMS": _Reader.set_items,
        "GLOBAL": _Reader.name,
        "STACK_GLOBAL": _Reader.stack_name,
        "REDUCE": _Reader.call,
        "NEWOBJ": _Reader.make_object,
        "BUILD": _Reader.build,
        "BINPERSID": _Reader.persistent,
    }
)


def _grow(target: object, items: list[Any]) -> None:
    if type(target) is not list:
        raise BadFile("its pickle is damaged")
    target.extend(items)


def _fill(target: object, items: list[Any]) -> None:
    """Set the items of a dict, given as keys and values in turn."""
    if type(target) is not dict or len(items) % 2:
        raise BadFile("its pickle is damaged")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Other keys can be nested so that taking their hash never ends.
        if type(key) not in (str, int):
            raise BadFile(f"its pickle holds a {type(key).__name__} as a key")
        target[key] = value


def _storage(arguments: tuple[object, ...], budget: Budget) -> object:
    """Return the storage that torch packed into bytes, in its format from before version 1.6.

    Five pickles (a magic number, a version, the system, the storage, the keys), then for each
    key an int64 count and the values.
    """
    if len(arguments) != 1 or not isinstance(arguments[0], bytes | bytearray):
        raise BadFile("its pickle holds a torch storage that is damaged")
    stream, told = io.BytesIO(arguments[0]), []

    def note(said: tuple[object, ...]) -> object:
        told.append(said)
        return said

    parts = [_Reader(stream, budget, note, inner=True).read() for _ in range(5)]
    system, keys = parts[2], parts[4]
    if type(system) is not dict or system.get("little_endian") is not True:
        raise BadFile("its pickle holds a torch storage of a big-endian machine")
    if len(told) != 1 or parts[3] is not told[0] or type(keys) is not list or len(keys) != 1:
        raise BadFile("its pickle holds a torch storage that is damaged")
    return unpack(told[0], stream.read()[8:], budget)
