"""Programs that one request cannot have together.

A full linear map is applied before all else at its site, so another program's columns there would
read the mapped stream, whatever the policy says that they read. And two edits that each scale all
that was added before them cannot stand behind another program where neither reads the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from interv.codegen.bundle import Bundle, Column, SiteTable
from interv.document.selectors import overlap
from interv.errors import IntervError
from interv.passes.graph.column import Kind, Mode, reads


def unmappable(asked: str, programs: Sequence[str], bundle: Bundle) -> list[IntervError]:
    """Make an E418 for each pair of a request's programs, in its order, that a map keeps apart."""
    with_maps = [table for table in bundle.sites if table.maps]
    found = []
    for first, second in itertools.combinations(programs, 2):
        for table in with_maps:
            if _meet(first, second, table, bundle) or _meet(second, first, table, bundle, False):
                found.append(_error(asked, first, second, table, bundle))
                break
    return found


def _meet(
    other: str, mapping: str, table: SiteTable, bundle: Bundle, comes_after: bool = True
) -> bool:
    """Say whether a map of a program takes tokens on which it cannot meet another program."""
    maps = [one for one in table.programs.get(mapping, ()) if one.kind == Kind.LINEAR]
    columns = list(_in_the_way(table.programs.get(other, ()), bundle, comes_after))
    pairs = itertools.product(maps, columns)
    return any(
        overlap(bundle.selectors[one.selector], bundle.selectors[two.selector])
        for one, two in pairs
    )


def _in_the_way(columns: Sequence[Column], bundle: Bundle, comes_after: bool) -> Iterator[Column]:
    """Yield the columns that would not read, or leave, what the policy says."""
    match bundle.conflict:
        case "sequential":
            yield from columns if comes_after else ()
        case "sum":
            yield from columns
        case _:
            # Edits give way to the first program, or are refused as such; gates do not.
            gates = (one for one in columns if one.kind == Kind.GATE)
            yield from (one for one in gates if not one.mode & Mode.DECAY)


def _error(asked: str, first: str, second: str, table: SiteTable, bundle: Bundle) -> IntervError:
    helps = ["ask for one of them, or edit other sites or tokens"]
    # Where only the order is wrong.
    if bundle.conflict == "sequential" and not _meet(second, first, table, bundle):
        helps = [f"ask for '{second}' first: the map comes before all other edits of its site"]
    return IntervError(
        "E418",
        f"programs '{first}' and '{second}' meet at {table.site} on tokens that a full linear map"
        " takes",
        notes=[
            f"in the request: {asked}",
            "such a map is applied before all other edits of its site",
        ],
        helps=helps,
    )


def inseparable(asked: str, programs: Sequence[str], bundle: Bundle) -> list[IntervError]:
    """Make an E419 for each pair of which the second would scale the first more than once.

    Keeping the norm and replacing the stream scale what stands in it already. One such edit comes
    last among edits that all read the original (`conflict sum`), so that the others read what
    stood there. Of two, the later would read the first program scaled by the other, and not what
    took its place: both at once is no product of their scalings.
    """
    if bundle.conflict != "sequential":
        return []
    found = []
    for first, second in itertools.combinations(programs, 2):
        for table in bundle.sites:
            scaling = _scaling(table.programs.get(second, ()), bundle)
            pairs = itertools.product(table.programs.get(first, ()), scaling)
            if any(_overlap(one, two, bundle) for one, two in pairs):
                found.append(_scaled(asked, first, second, table))
                break
    return found


def _scaling(columns: Sequence[Column], bundle: Bundle) -> list[Column]:
    """Return the columns that scale what a later column reads without reading them."""
    found = []
    for j, one in enumerate(columns):
        if one.kind in _SCALING:
            later = (two for two in columns[j + 1 :] if not two.sees >> j & 1)
            reading = [two for two in later if reads(two.a, two.kind, two.mode)]
            if any(_overlap(one, two, bundle) for two in reading):
                found.append(one)
    return found


_SCALING = (Kind.KEEP_NORM, Kind.REPLACE)


def _overlap(one: Column, two: Column, bundle: Bundle) -> bool:
    return overlap(bundle.selectors[one.selector], bundle.selectors[two.selector])


def _scaled(asked: str, first: str, second: str, table: SiteTable) -> IntervError:
    return IntervError(
        "E419",
        f"program '{second}' cannot come after '{first}' at {table.site}",
        notes=[
            f"in the request: {asked}",
            f"the edits of '{second}' there do not read each other, and more than one of them"
            f" scales what '{first}' added",
        ],
        helps=[f"ask for '{second}' first, or let it say 'conflict sequential'"],
    )
