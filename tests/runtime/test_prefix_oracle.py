"""Hashes of blocks against what the statements of a request's programs do to every token.

The oracle reads statements and never a column: for each token, the edits that apply to it and
that some later attention sees, in order, with the bytes of their directions, their scalars, and
which of the others they read. Two requests share a block exactly if these lists and the tokens
are the same up to its end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from interv.compile import compile_documents
from interv.document import Document
from interv.runtime.config import InterventionConfig
from interv.selectors import holds, satisfiable
from interv.sites import SITES
from interv.spec import (
    Ablate,
    And,
    Cap,
    Conflict,
    Everything,
    InPhase,
    Not,
    Or,
    Program,
    Selector,
    SiteRef,
    Slice,
    Spec,
    Statement,
    Steer,
    Token,
    VectorDecl,
)
from tests.passes.small import MODEL, L, layers_of, vectors
from tests.passes.small import selectors as nested
from tests.runtime.prefixes import BLOCK, Core, keyed_hashing, shared

NAMES, VECTORS = "pqr", ("v", "w", "same", "one")
DECLARED = tuple(VectorDecl(name=name, path=f"{name}.safetensors") for name in VECTORS)
# Few different values, so that requests that do the same are drawn often.
SCALES, STRENGTHS, BOUNDS = (1.0, 2.0, -1.0, 0.0), (1.0, 0.5, 0.0), ((-1.0, 1.0), (0.0, 0.0))
MULTIPLIERS = (1.0, 2.0, 0.5, 0.0)
MULTIPLIERS_OF_ADDS = (*MULTIPLIERS, -1.0)


@pytest.fixture(autouse=True, scope="module")
def _hashing() -> Iterator[None]:
    with keyed_hashing():
        yield


@dataclass(frozen=True)
class World:
    """The programs of one engine, and what happens where two of a request meet."""

    programs: tuple[Program, ...]
    conflict: Conflict

    def core(self, folder: Path) -> Core:
        spec = Spec(vectors=DECLARED, programs=self.programs, conflict=self.conflict)
        return Core(InterventionConfig(compile_documents([Document(spec, folder)], MODEL).bundle))


@dataclass(frozen=True)
class Asked:
    """A request's terms, and its tokens."""

    terms: tuple[tuple[str, float], ...]
    prompt: tuple[int, ...]
    generated: tuple[int, ...]

    @property
    def text(self) -> str:
        return " + ".join(f"{name}*{m!r}" for name, m in self.terms) or "off"

    @property
    def tokens(self) -> tuple[int, ...]:
        return (*self.prompt, *self.generated)


def content(statement: Statement, multiplier: float, layer: int) -> tuple[Any, ...] | None:
    """Return what an edit does at a layer, None where it does nothing."""
    assert isinstance(statement, Steer | Cap | Ablate)
    direction = vectors()[statement.vector].at(layer).tobytes()
    if isinstance(statement, Steer):
        scale = statement.scale * multiplier
        return ("add", direction, scale) if scale else None
    low, high = (statement.low, statement.high) if isinstance(statement, Cap) else (0.0, 0.0)
    strength = min(statement.strength * multiplier, 1.0)
    return ("clamp", direction, low, high, strength) if strength else None


def edits_of(world: World, asked: Asked, position: int) -> list[Any]:
    """Return all that is done to a token and seen by a later attention, in order."""
    seen = (
        (name, layer) for layer in range(L) for name in SITES if name == "pre_attn" or layer < L - 1
    )
    return [(*place, one) for place in seen for one in _at_site(world, asked, position, *place)]


def _at_site(
    world: World, asked: Asked, position: int, name: str, layer: int
) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for program, multiplier in asked.terms:
        before = len(found)
        if before and world.conflict == "priority":
            break
        chosen = next(one for one in world.programs if one.name == program)
        for one in chosen.statements:
            here = one.at.name == name and layer in layers_of(one.at)
            if not here or not _holds(one, asked, position):
                continue
            done = content(one, multiplier, layer)
            if done is not None:
                others = range(before if world.conflict == "sequential" else 0)
                own = range(before, len(found) if chosen.conflict == "sequential" else before)
                found.append((*done, (*others, *own) if done[0] == "clamp" else ()))
            # Within a program even an edit without effect is one that others give way to.
            if chosen.conflict == "priority":
                break
    return found


def _holds(one: Statement, asked: Asked, position: int) -> bool:
    assert isinstance(one, Steer | Cap | Ablate)
    return holds(one.when, position, len(asked.prompt), asked.tokens[position])


def shared_by_meaning(one: tuple[World, Asked], other: tuple[World, Asked]) -> int:
    """Return how many blocks two requests have in common, one token after the other."""
    known = min(len(one[1].tokens), len(other[1].tokens))
    for i in range(known):
        if one[1].tokens[i] != other[1].tokens[i] or edits_of(*one, i) != edits_of(*other, i):
            return i // BLOCK
    return known // BLOCK


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
        Token(ids=(1,)),
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
shape: dict[str, Any] = {
    "vector": st.sampled_from(VECTORS),
    "at": places,
    "when": common | nested.filter(_allowed),
}
clamps = st.one_of(
    st.builds(Ablate, strength=st.sampled_from(STRENGTHS), **shape),
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
