"""Hashes of blocks against what the statements of a request's programs do to every token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings, strategies as st

from interv.document.selectors import satisfiable
from interv.document.spec import (
    Ablate,
    After,
    And,
    Before,
    Between,
    Cap,
    Everything,
    Gate,
    InPhase,
    Not,
    Or,
    PositionRange,
    Positions,
    Program,
    Selector,
    SiteRef,
    Slice,
    Statement,
    Steer,
    Stride,
    Token,
)
from tests.passes.small import selectors as nested
from tests.runtime.meaning import VECTORS, Asked, World, edits_of, shared_by_meaning
from tests.runtime.prefixes import BLOCK, Core, keyed_hashing, shared

NAMES = "pqr"
# Few different values, so that requests that do the same are drawn often.
SCALES, STRENGTHS, BOUNDS = (1.0, 2.0, -1.0, 0.0), (1.0, 0.5, 0.0), ((-1.0, 1.0), (0.0, 0.0))
MULTIPLIERS = (1.0, 2.0, 0.5, 0.0)
MULTIPLIERS_OF_ADDS = (*MULTIPLIERS, -1.0)


@pytest.fixture(autouse=True, scope="module")
def _hashing() -> Iterator[None]:
    with keyed_hashing():
        yield


def _allowed(selector: Selector) -> bool:
    """Say whether a document may have it: no part that never holds."""
    match selector:
        case Not():
            parts: Sequence[Selector] = (selector.term,)
        case And() | Or():
            parts = selector.terms
        case _:
            parts = ()
    return satisfiable(selector) and all(map(_allowed, parts))


common: st.SearchStrategy[Selector] = st.sampled_from(
    [
        Everything(),
        InPhase(phase="prompt"),
        InPhase(phase="generated"),
        Slice(phase="prompt", start=5),
        Slice(phase="prompt", start=-3),
        Slice(phase="generated", start=2),
        Positions(phase="prompt", items=(0, 6, PositionRange(first=9, last=-2))),
        Stride(phase="generated", step=3),
        Token(ids=(1,)),
        After(mark=Token(ids=((1, 2), 3))),
        Before(mark=Token(ids=((0, 1),))),
        Between(start=Token(ids=(1,)), end=Token(ids=((2, 0), 3))),
        And(terms=(After(mark=Token(ids=(2,))), InPhase(phase="generated"))),
    ]
)
places = st.sampled_from(
    [
        SiteRef(name="post_block", layers=(1,)),
        SiteRef(name="post_block", layers=(0, 1)),
        SiteRef(name="post_block", layers=("*",)),
        SiteRef(name="post_attn", layers=(-1,)),
        SiteRef(name="pre_attn", layers=(1, -1)),
    ]
)
# At a site of edits, which no place above comes before, and at one without.
gates = st.builds(
    Gate,
    vector=st.sampled_from(VECTORS),
    site=st.sampled_from(
        [None, *(SiteRef(name=name, layers=(0,)) for name in ("post_block", "pre_attn"))]
    ),
    sharpness=st.sampled_from([1.0, 2.0]),
) | st.builds(
    Gate,
    vector=st.sampled_from(VECTORS),
    cosine=st.booleans(),
    absolute=st.booleans(),
    above=st.sampled_from([0.25, 0.5]),
    below=st.sampled_from([None, 0.75]),
)
shape: dict[str, Any] = {
    "vector": st.sampled_from(VECTORS),
    "gate": st.none() | gates,
    "decay": st.sampled_from([1.0, 1.0, 0.5]),
    "at": places,
    "when": common | nested.filter(_allowed),
}
clamps = st.one_of(
    st.builds(Ablate, strength=st.sampled_from(STRENGTHS), keep_norm=st.booleans(), **shape),
    st.builds(Ablate, strength=st.sampled_from([0.5, 1.5]), over=st.just(True), **shape),
    st.builds(Steer, scale=st.sampled_from(SCALES), by_norm=st.just(True), **shape),
    *(
        st.builds(
            Cap, low=st.just(low), high=st.just(high), strength=st.sampled_from(STRENGTHS), **shape
        )
        for low, high in BOUNDS
    ),
)
adds = st.builds(Steer, scale=st.sampled_from(SCALES), **shape)


@st.composite
def programs(draw: st.DrawFn, name: str) -> Program:
    # Two adds of a program may become one of another direction, to rounding: one is enough.
    statements: list[Statement] = draw(st.lists(clamps, max_size=2))
    if not statements or draw(st.booleans()):
        statements.insert(draw(st.integers(0, len(statements))), draw(adds))
    policy = draw(st.sampled_from(["sequential", "sum", "priority"]))
    return Program(name=name, statements=tuple(statements), conflict=policy)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    count = draw(st.integers(1, len(NAMES)))
    made = tuple(draw(programs(name)) for name in NAMES[:count])
    return World(made, draw(st.sampled_from(["sequential", "sum", "priority"])))


@st.composite
def others(draw: st.DrawFn, world: World) -> World:
    """The same programs under other names and with another policy, or any."""
    if draw(st.integers(0, 3)) == 0:
        return draw(worlds())
    names = draw(st.permutations([one.name for one in world.programs]))
    made = tuple(
        one.model_copy(update={"name": name})
        for one, name in zip(world.programs, names, strict=True)
    )
    return World(made, draw(st.sampled_from([world.conflict, "sequential", "priority"])))


@st.composite
def terms(draw: st.DrawFn, world: World) -> tuple[tuple[str, float], ...]:
    chosen = draw(st.lists(st.sampled_from(world.programs), unique=True, min_size=1, max_size=3))
    return tuple(
        (one.name, draw(st.sampled_from(MULTIPLIERS if _clamps(one) else MULTIPLIERS_OF_ADDS)))
        for one in chosen
    )


def _clamps(program: Program) -> bool:
    return any(not isinstance(one, Steer) for one in program.statements)


@st.composite
def tokens(draw: st.DrawFn, known: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A prompt and what was generated, which begin as `known` does."""
    least = 0 if known else 3 * BLOCK
    kept = draw(st.integers(0, len(known)) | st.just(len(known)))
    more = draw(st.lists(st.integers(0, 3), min_size=max(least, not kept), max_size=16))
    whole = (*known[:kept], *more)
    cut = draw(st.integers(1, len(whole)))
    return whole[:cut], whole[cut:]


@given(world=worlds(), data=st.data())
@settings(deadline=None, max_examples=200)
def test_requests_share_the_blocks_that_mean_the_same(
    folder: Path, world: World, data: st.DataObject
) -> None:
    other = data.draw(others(world), "the other's world")
    first = Asked(data.draw(terms(world)), *data.draw(tokens(()), "tokens"))
    again = (first.prompt, first.generated)
    drawn = data.draw(st.just(again) | tokens(first.tokens), "the other's tokens")
    second = Asked(data.draw(terms(other)), *drawn)
    one, two = (
        world_.core(folder).hashes(asked.text, asked.prompt, asked.generated)
        for world_, asked in ((world, first), (other, second))
    )
    expected = shared_by_meaning((world, first), (other, second))
    event(f"{expected} of at most {min(len(one), len(two))} blocks")
    assert shared(one, two) == expected
    # Behind the first block that differs, nothing is found again.
    assert {*one[expected:]}.isdisjoint(two[expected:])


@given(world=worlds(), data=st.data())
@settings(deadline=None, max_examples=100)
def test_blocks_without_an_edit_have_the_hashes_of_stock(
    folder: Path, world: World, data: st.DataObject
) -> None:
    asked = Asked(data.draw(terms(world)), *data.draw(tokens(()), "tokens"))
    made = world.core(folder).hashes(asked.text, asked.prompt, asked.generated)
    stock = Core(None).hashes(None, asked.prompt, asked.generated)
    edited = [bool(edits_of(world, asked, i)) for i in range(len(asked.tokens))]
    first = edited.index(True) if True in edited else len(edited)
    assert len(made) == len(stock)
    assert shared(made, stock) == first // BLOCK
