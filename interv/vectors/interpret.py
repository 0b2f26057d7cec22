"""What the objects of a file mean as directions: named arrays, and what stands beside them."""

from __future__ import annotations

from interv.vectors import chatspace
from interv.vectors.held import array_of, held
from interv.vectors.objects import kind, numbers
from interv.vectors.pickle_values import Record
from interv.vectors.raw import BadFile, Contents, raw_of


def contents(loaded: object, format: str, limit: int) -> Contents:
    """Return the arrays that a file of `limit` bytes holds: one bare array (named "") or more.

    A bare array is a tensor, a list of numbers or a list of tensors. Of dicts and objects the
    arrays are taken, also out of dicts in them; chatspace's bundles and specs are read too. Raises
    BadFile for anything else.
    """
    if (found := chatspace.operations(loaded)) is not None:
        return chatspace.contents(found, [numbers(one.vector, limit) for one in found])
    if (array := array_of(loaded, limit)) is not None:
        return Contents(format, {"": raw_of(array)})
    if (named := held(loaded, limit)) is None:
        raise BadFile(f"it holds a {kind(loaded)}, not a tensor or a dict of tensors")
    return Contents(
        format,
        {name: raw_of(array) for name, array in named.arrays.items()},
        notes=(),
        reading=tuple(named.notes),
        beside=named.beside,
        of=loaded.of.path if isinstance(loaded, Record) else "",
    )
