"""Named arrays out of what a file's objects hold: dicts in dicts, lists, attributes of objects.

What stands beside them, numbers and texts, is kept by name: it may say which layer is meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from interv.vectors.fields import LAYER_FIELDS
from interv.vectors.objects import SHARED, is_array, kind, numbers
from interv.vectors.pickle_values import Record
from interv.vectors.raw import BadFile, raw_of
from interv.vectors.shapes import squeezed

Numbers: TypeAlias = npt.NDArray[Any]
DEEPEST = 3
DEEPEST_LIST = 4


@dataclass(slots=True)
class Held:
    """The arrays of a file of `limit` bytes by name, and what stands beside them."""

    limit: int
    arrays: dict[str, Numbers] = field(default_factory=dict)
    beside: dict[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    used: int = 0
    seen: int = 0  # entries, which a dict that holds itself has without end

    def take(self, loaded: Mapping[Any, Any], prefix: str = "", depth: int = 1) -> None:
        """Take the arrays of a dict, and those of the dicts in it behind the name of each."""
        self.seen += len(loaded)
        if self.seen > self.limit:
            raise BadFile("its dicts hold each other")
        for key, value in loaded.items():
            name = prefix + (f"layer.{key}" if type(key) is int else str(key))
            if name in self.arrays or name in self.beside:
                raise BadFile(f"it holds '{name}' twice")
            # A list of whole numbers of that name says which layers the rows of a tensor are.
            array = None if str(key) in LAYER_FIELDS else array_of(value, self.limit)
            if array is not None and array.ndim:
                self._keep(name, array)
            elif isinstance(value, Mapping) and depth < DEEPEST:
                self._inner(value, name, depth)
            else:
                self.beside[name] = _scalar(value, self.limit)

    def _inner(self, value: Mapping[Any, Any], name: str, depth: int) -> None:
        """Take a dict in a dict; one without arrays stands beside them as a whole."""
        inner = Held(self.limit, used=self.used, seen=self.seen)
        inner.take(value, f"{name}.", depth + 1)
        self.used, self.seen = inner.used, inner.seen
        if not inner.arrays:
            self.beside[name] = ...
            return
        self.arrays |= inner.arrays
        self.beside |= inner.beside

    def _keep(self, name: str, array: Numbers) -> None:
        self.used += array.nbytes
        if self.used > SHARED * self.limit:
            raise BadFile(f"its tensors are more than {SHARED} times larger than the file")
        self.arrays[name] = array

    def unwrap(self, heads: Sequence[str]) -> None:
        """Drop the name of a dict, one of `heads`, that holds all of the arrays."""
        for head in heads:
            if all(name.startswith(f"{head}.") for name in self.arrays):
                skip = len(head) + 1
                self.arrays = {name[skip:]: one for name, one in self.arrays.items()}
                self.notes.append(f"the directions are those of its entry '{head}'")
                return


def held(loaded: object, limit: int) -> Held | None:
    """Return the arrays of a dict or an object of a file of `limit` bytes; None for other things.

    Raises BadFile where there are none, and for arrays that are larger than the file.
    """
    state = loaded.state if isinstance(loaded, Record) else loaded
    if not isinstance(state, Mapping):
        return None
    found = Held(limit)
    found.take(state)
    if not found.arrays and isinstance(loaded, Record):
        return None
    if not found.arrays and state:
        key, value = next(iter(state.items()))
        raise BadFile(f"its entry '{key}' is a {kind(value)}, not a tensor")
    found.unwrap([str(name) for name, one in state.items() if isinstance(one, Mapping)])
    return found


def array_of(value: object, limit: int) -> Numbers | None:
    """Return an array, a list of numbers or a list of arrays of one shape; None for other things.

    Lists in lists are axes. Arrays in a list are rows, [L, H]. Raises BadFile for lists that are
    not rectangular.
    """
    if is_array(value):
        return numbers(value, limit)
    if not isinstance(value, list | tuple) or not value:
        return None
    if all(is_array(one) for one in value):
        return _stacked([numbers(one, limit) for one in value], limit)
    return _nested(value) if _Numbers(limit).only(value, 1) else None


def _stacked(rows: Sequence[Numbers], limit: int) -> Numbers:
    if sum(one.nbytes for one in rows) > SHARED * limit:
        raise BadFile(f"its tensors are more than {SHARED} times larger than the file")
    flat = [one.reshape(squeezed(raw_of(one)).shape) for one in rows]
    shapes = sorted({one.shape for one in flat})
    if len(shapes) > 1 or not shapes[0]:
        shown = " and ".join(str(list(shape)) for shape in shapes[:2])
        raise BadFile(f"its list holds tensors of shapes {shown}, not of one direction each")
    return np.stack(flat)


@dataclass(slots=True)
class _Numbers:
    """Looks into lists, at no more than `left` entries: lists may hold each other."""

    left: int

    def only(self, value: Sequence[object], depth: int) -> bool:
        """Say whether lists hold numbers alone, at whatever depth."""
        self.left -= len(value)
        if self.left < 0:
            raise BadFile("its lists hold each other")
        if all(type(one) in (int, float) for one in value):
            return True
        if depth == DEEPEST_LIST:
            return False
        return all(isinstance(one, list | tuple) and self.only(one, depth + 1) for one in value)


def _nested(value: Sequence[object]) -> Numbers:
    try:
        return np.array(value, np.float64)
    except ValueError as error:
        raise BadFile("its lists are not of one length") from error
    except OverflowError as error:
        raise BadFile("it holds a number beyond float64") from error


def _scalar(value: object, limit: int) -> object:
    """Return what may stand beside arrays; raise BadFile for objects that nobody can look at."""
    if is_array(value):
        found = numbers(value, limit)
        return found.item() if found.size == 1 else found.tolist()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(one, int | float | str) for one in value):
        return list(value)
    return ...
