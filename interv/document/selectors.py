"""What a selector means, and the algebra that the compiler decides conflicts with.

A token is known by its absolute position, the length of its request's original prompt and its
input id. `prompt[i]` and `prompt[i:j]` index the prompt as Python indexes a list, except that a
single index outside it matches nothing; `generated[i]` is position `prompt_length + i`.

The algebra is exact and never walks a range. Every test that a selector makes compares the
position `x` with a constant, or its distance from the prompt's end `y = x - prompt_length` with
a constant, or the id with a set. So the truth of a selector is constant on the cells between
those constants, and one token of each cell that a request can have (`x >= 0`,
`prompt_length = x - y >= 1`) decides. Reference: the small-model property of such formulas.
Selectors that follow earlier tokens add what can have come before, from `pasts`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import islice, product
from operator import and_, or_
from typing import NamedTuple

from interv.document.cells import Cells, InPlace
from interv.document.markers import Following, following, follows, single_ids, told_apart
from interv.document.pasts import pasts, truth_of_pasts
from interv.document.places import representatives
from interv.document.positions import ends_of, includes
from interv.document.spec import (
    After,
    And,
    At,
    Before,
    Between,
    Everything,
    InPhase,
    Not,
    Or,
    PositionRange,
    Positions,
    Selector,
    Slice,
    Stride,
    Token,
)
from interv.errors import IntervError

# So many tokens are tried one by one, which most questions take less than.
QUICK = 64


class Witness(NamedTuple):
    """A token that a selector holds for."""

    position: int
    prompt_length: int
    token_id: int | str  # a text where the selector names one, else an id
    earlier: tuple[int | str, ...] = ()  # the tokens before it, as far back as they matter


class Undecided(Exception):
    """A selector follows more markers together than are looked through."""


def holds(
    selector: Selector,
    position: int,
    prompt_length: int,
    token_id: int | str,
    earlier: Sequence[int | str] = (),
) -> bool:
    """Say whether `selector` holds for one token.

    `position` is absolute and 0-based, `prompt_length` counts the tokens of the original prompt,
    `token_id` is the id that is fed at `position`, `earlier` are the ids that were fed directly
    before it; none before those belongs to a marker. Raises E210 for a negative `generated` index.
    """
    match selector:
        case Everything():
            return True
        case InPhase() | At() | Slice() | Stride() | Positions():
            return _in_place(selector, position, prompt_length)
        case Token():
            return token_id in selector.ids
        case After() | Before() | Between():
            return follows(selector, (*earlier, token_id))
        case Not():
            return not holds(selector.term, position, prompt_length, token_id, earlier)
        case And(terms=terms):
            return all(holds(one, position, prompt_length, token_id, earlier) for one in terms)
        case Or(terms=terms):
            return any(holds(one, position, prompt_length, token_id, earlier) for one in terms)


def _in_place(selector: InPlace, position: int, prompt_length: int) -> bool:
    if (position < prompt_length) != (selector.phase == "prompt"):
        return False
    _refuse_negative_generated(selector)
    index = position if selector.phase == "prompt" else position - prompt_length
    match selector:
        case InPhase():
            return True
        case At():
            return index == _from_end(selector.index, prompt_length)
        case Slice(start=start, stop=stop):
            after = start is None or index >= _from_end(start, prompt_length)
            return after and (stop is None or index < _from_end(stop, prompt_length))
        case _:
            return includes(selector, index, prompt_length)


def _from_end(bound: int, length: int) -> int:
    return bound if bound >= 0 else bound + length


def satisfiable(selector: Selector) -> bool:
    """Say whether some token of some request satisfies `selector`.

    Exact, except that one which follows too many markers to look through counts as satisfiable.
    """
    try:
        return witness(selector) is not None
    except Undecided:
        return True


def overlap(a: Selector, b: Selector) -> bool:
    """Say whether both can hold for one token of some request."""
    return satisfiable(And(terms=(a, b)))


def disjoint(a: Selector, b: Selector) -> bool:
    """Say whether no token of any request satisfies both."""
    return not overlap(a, b)


def implies(a: Selector, b: Selector) -> bool:
    """Say whether every token that satisfies `a` satisfies `b`."""
    return not satisfiable(And(terms=(a, Not(term=b))))


def equivalent(a: Selector, b: Selector) -> bool:
    """Say whether `a` and `b` hold for the same tokens."""
    return implies(a, b) and implies(b, a)


def witness(selector: Selector) -> Witness | None:
    """Return a token that satisfies `selector`, or None where there is none.

    Looks at (constants on x + 1) x (constants on y + 1) x (kinds of ids + 1) tokens, whatever the
    length of a range, each with every past that matters. A text in `token(…)` counts as an id of
    its own. Raises Undecided where there are too many pasts.
    """
    leaves = tuple(atoms(selector))
    if followed := following(selector):
        return _with_pasts(selector, leaves, followed)
    places, kinds = list(_places(leaves)), _kinds_of_ids(leaves)
    if any(isinstance(leaf, Positions) for leaf in leaves):
        return _among(selector, leaves, places, kinds)  # which sorts a list once
    for (x, y), token_id in islice(product(places, kinds), QUICK):
        if holds(selector, x, x - y, token_id):
            return Witness(x, x - y, token_id)
    return None if len(places) * len(kinds) <= QUICK else _among(selector, leaves, places, kinds)


def _among(
    selector: Selector,
    leaves: Iterable[Selector],
    places: Sequence[tuple[int, int]],
    kinds: Sequence[int | str],
) -> Witness | None:
    """Return the first token that satisfies `selector`, all places looked at together.

    The truth of a part at every place is one integer, a bit a place.
    """
    cells = Cells(places)
    truth = cells.truth(leaves)
    for leaf in leaves:
        if isinstance(leaf, Token):
            truth[leaf] = frozenset(single_ids(leaf))
    every = (1 << len(places)) - 1
    found = []
    for k, token_id in enumerate(kinds):
        if bits := _bits(selector, truth, every, token_id):
            found.append(((bits & -bits).bit_length() - 1, k))
    if not found:
        return None
    place, kind = min(found)
    x, y = places[place]
    return Witness(x, x - y, kinds[kind])


def _with_pasts(
    selector: Selector, leaves: Sequence[Selector], followed: tuple[Following, ...]
) -> Witness | None:
    """Return the first token that satisfies `selector`, in the nearest place and with any past."""
    known = pasts(followed, tuple(_kinds_of_ids((*leaves, *told_apart(followed)))))
    if known is None:
        raise Undecided
    places = list(_places(leaves, max(past.least for past in known)))
    cells, every = Cells(places), (1 << len(places)) - 1
    truth = cells.truth(leaves) | truth_of_pasts(leaves, known)
    for i, past in enumerate(known):
        if bits := _bits(selector, truth, every, i) & cells.beyond(0, past.least):
            x, y = places[(bits & -bits).bit_length() - 1]
            return Witness(x, x - y, past.token_id, past.earlier)
    return None


def _bits(
    selector: Selector,
    truth: Mapping[Selector, int | frozenset[int | str]],
    every: int,
    token_id: int | str,
) -> int:
    """Return the places at which `selector` holds for an id."""
    match selector:
        case Everything():
            return every
        case Not():
            return every & ~_bits(selector.term, truth, every, token_id)
        case And():
            terms = (_bits(term, truth, every, token_id) for term in selector.terms)
            return reduce(and_, terms)
        case Or():
            terms = (_bits(term, truth, every, token_id) for term in selector.terms)
            return reduce(or_, terms)
    known = truth[selector]
    return known if isinstance(known, int) else every if token_id in known else 0


def atoms(selector: Selector) -> Iterator[Selector]:
    """Yield the leaves of `selector`, left to right."""
    match selector:
        case Not():
            yield from atoms(selector.term)
        case And() | Or():
            for term in selector.terms:
                yield from atoms(term)
        case _:
            yield selector


def _places(leaves: Sequence[Selector], least: int = 0) -> Iterable[tuple[int, int]]:
    """Return (x, y) of one token of each cell: the largest x and the smallest y in it.

    Cells without an end have one whose x is `least` or more.

    A cell holds a token exactly if those two satisfy `x - y >= 1`.
    """
    if any(isinstance(leaf, Stride | Positions) for leaf in leaves):
        for leaf in leaves:
            _refuse_negative_generated(leaf)
        return representatives([leaf for leaf in leaves if isinstance(leaf, InPlace)], least)
    on_x: set[int] = {0}
    on_y: set[int] = {0}  # the end of the prompt is always a border
    for leaf in leaves:
        _refuse_negative_generated(leaf)
        for bound in _borders(leaf):
            from_start = isinstance(leaf, At | Slice) and leaf.phase == "prompt" and bound[1]
            (on_x if from_start else on_y).add(bound[0])
    beyond = max(max(on_x), max(on_y) + 1, least)
    xs = sorted({border - 1 for border in on_x if border > 0} | {beyond})
    ys = [min(on_y) - 1, *sorted(on_y)]
    return ((x, y) for x, y in product(xs, ys) if x - y >= 1)


def _borders(leaf: Selector) -> Iterator[tuple[int, bool]]:
    """Yield each constant at which `leaf` may change, and whether it counts from the start."""
    match leaf:
        case At(index=index):
            yield index, index >= 0
            # The cell of the last prompt token ends where the next one begins.
            yield index + 1, index >= 0
        case Slice(start=start, stop=stop):
            for bound in (start, stop):
                if bound is not None:
                    yield bound, bound >= 0


def _kinds_of_ids(leaves: Iterable[Selector]) -> list[int | str]:
    """Return one id of each kind that the `token(…)` leaves can tell apart, and a fresh one."""
    sets = [frozenset(single_ids(leaf)) for leaf in leaves if isinstance(leaf, Token)]
    kinds: dict[tuple[bool, ...], int | str] = {}
    known = {one for ids in sets for one in ids}
    for one in sorted(known, key=str):
        kinds.setdefault(tuple(one in ids for ids in sets), one)
    fresh = max((one for one in known if isinstance(one, int)), default=-1) + 1
    return [*kinds.values(), fresh]


def _refuse_negative_generated(leaf: Selector) -> None:
    if isinstance(leaf, InPlace) and negative_generated(leaf):
        raise IntervError(
            "E210",
            f"'{selector_text(leaf)}' counts from an end that is not known yet",
            notes=("a request's generated tokens are indexed from 0; only 'prompt' has an end",),
        )


def negative_generated(leaf: Selector) -> bool:
    """Say whether `leaf` indexes `generated` from its end, which no running request knows."""
    match leaf:
        case At(phase="generated", index=index):
            return index < 0
        case Slice(phase="generated") | Stride(phase="generated"):
            return any(bound is not None and bound < 0 for bound in (leaf.start, leaf.stop))
        case Positions(phase="generated", items=items):
            return any(min(ends_of(one)) < 0 for one in items)
        case _:
            return False


def selector_text(selector: Selector) -> str:
    """Print a selector as the language writes it; nested groups keep their parentheses."""
    match selector:
        case Everything():
            return "all"
        case InPhase() | At() | Slice() | Stride() | Positions():
            return phase_text(selector)
        case Token():
            return f"token({', '.join(_id_text(one) for one in selector.ids)})"
        case After():
            return f"after {selector_text(selector.mark)}"
        case Before():
            return f"before {selector_text(selector.mark)}"
        case Between():
            return f"between {selector_text(selector.start)} and {selector_text(selector.end)}"
        case Not():
            return f"not {_operand(selector.term, (And, Or))}"
        case And():
            return " and ".join(_operand(term, (And, Or)) for term in selector.terms)
        case Or():
            return " or ".join(_operand(term, (Or,)) for term in selector.terms)


def phase_text(selector: InPlace) -> str:
    """Print tokens of one phase: `prompt[2:-1]`, as Python writes it if it is no list."""
    match selector:
        case InPhase(phase=phase):
            return phase
        case Positions(phase=phase, items=items):
            return f"{phase}[{', '.join(map(position_text, items))}]"
        case At():
            bounds: tuple[int | None, ...] = (selector.index,)
        case Slice():
            bounds = (selector.start, selector.stop)
        case Stride():
            bounds = (selector.start, selector.stop, selector.step)
    return f"{selector.phase}[{':'.join('' if n is None else str(n) for n in bounds)}]"


def position_text(item: int | PositionRange) -> str:
    """Print one item of a list of positions as the language writes it."""
    return str(item) if isinstance(item, int) else f"{item.first}..{item.last}"


def _id_text(one: int | str | tuple[int, ...]) -> str:
    if isinstance(one, tuple):
        return str([*one])
    return str(one) if isinstance(one, int) else json.dumps(one, ensure_ascii=False)


def _operand(selector: Selector, grouped: tuple[type, ...]) -> str:
    text = selector_text(selector)
    return f"({text})" if isinstance(selector, grouped) else text
