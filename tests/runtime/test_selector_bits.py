"""Selector bits that inline programs share: each means what its slot's columns ask for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies as st

from interv.codegen.bundle import Bundle, Column
from interv.document.selectors import holds
from interv.document.spec import At, Everything, InPhase, Selector, Token
from interv.errors import IntervError
from interv.request.inline import Inline, spare_bits
from interv.runtime.choice import Choice
from interv.runtime.worker.engine import Engine, Step
from interv.runtime.worker.selector_bits import Bits
from tests.passes.small import selectors
from tests.runtime.small import CALM, OFF, SITES, bundle, engine, step

SLOTS = 4
FIXED: tuple[Selector, ...] = (InPhase(phase="generated"), Everything(), Token(ids=(1,)))


def inline(*asked: Selector) -> Choice:
    """Return a program's choice: at its first site a column a selector, at the other the last."""
    named = tuple(dict.fromkeys(asked))
    columns = [
        (0, Column(-1, 0, alpha=float(i + 1), selector=named.index(one)))
        for i, one in enumerate(asked)
    ]
    columns.append((1, Column(1, 1, strength=1.0, low=0.0, selector=len(named) - 1)))
    return Choice.brought(Inline(tuple(columns), named))


def taking(fixed: tuple[Selector, ...] = FIXED) -> Bundle:
    return replace(bundle(fixed), inline=True)


def wanted_by(choice: Choice, site: int, fixed: tuple[Selector, ...]) -> list[Selector]:
    """Return the selector of each column that a choice has at a site."""
    if choice.inline is None:
        return list(fixed) if choice.key else []
    columns = [column for index, column in choice.inline.columns if index == site]
    return [choice.inline.selectors[column.selector] for column in columns]


def check(one: Engine, made: Step, fixed: tuple[Selector, ...]) -> None:
    """Compare what every token's columns find in its mask with the definition."""
    for request, choice in enumerate(made.choices):
        for token in range(made.starts[request], made.starts[request + 1]):
            slot, mask = int(one.tokens.slot[token]), int(one.tokens.mask[token])
            assert (slot >= 0) == bool(choice.key)
            at, fed = int(made.position[token]), int(made.token_id[token])
            length = int(made.prompt_length[request])
            for site, name in enumerate(map(str, SITES)):
                wanted = wanted_by(choice, site, fixed)
                if slot < 0:
                    continue
                bits = one.sites[name].field("bit")[slot, : len(wanted)].tolist()
                assert int(one.sites[name].count[slot]) == len(wanted)
                found = [bool(mask & bit) for bit in bits]
                assert found == [holds(each, at, length, fed) for each in wanted]


fresh = st.builds(Token, ids=st.lists(st.integers(0, 40), min_size=1, max_size=2).map(tuple))
programs = st.lists(fresh | selectors, min_size=1, max_size=6).map(lambda made: inline(*made))
requests = st.tuples(
    st.integers(0, 9), st.integers(0, 3), st.integers(1, 8), programs | st.sampled_from([CALM, OFF])
)
batches = st.lists(requests, min_size=1, max_size=SLOTS)


@given(steps=st.lists(batches, min_size=1, max_size=8), spare=st.integers(24, 61))
@settings(deadline=None, max_examples=60)
def test_masks_are_what_the_selectors_say_at_every_step(
    steps: list[list[tuple[int, int, int, Choice]]], spare: int
) -> None:
    # Few bits are left, so that they change their meaning often.
    fixed = (*FIXED, *(Token(ids=(1000 + i,)) for i in range(61 - spare)))
    one = engine(taking(fixed), slots=SLOTS)
    for seed, batch in enumerate(steps):
        made = step([tuple(each[:3]) for each in batch], [each[3] for each in batch], seed)
        one.begin(made)
        check(one, made, fixed)


def test_many_more_selectors_than_bits_one_step_after_another() -> None:
    one = engine(taking(), slots=SLOTS)
    kept = inline(At(phase="prompt", index=2), Token(ids=(3,)))
    for i in range(120):
        other = inline(Token(ids=(i % 5, 10 + i)), At(phase="prompt", index=i % 4))
        # One request is there for good, one comes again, the others are new.
        again = inline(Token(ids=(i % 7, 50)))
        made = step([(0, 4, 4)] * 4, [kept, other, again, CALM], seed=i)
        one.begin(made)
        check(one, made, FIXED)
    assert one.slots.used <= SLOTS


def test_a_slot_is_filled_anew_when_its_bits_were_taken() -> None:
    fixed = tuple(Token(ids=(1000 + i,)) for i in range(62))
    one = engine(taking(fixed), slots=SLOTS)
    first, second = inline(Token(ids=(0,))), inline(Token(ids=(1,)), Token(ids=(2,)))
    for choice in (first, second, first, second):
        made = step([(0, 6, 6)], [choice])
        one.begin(made)
        check(one, made, fixed)


def test_what_is_still_there_is_not_filled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    one = engine(taking(), slots=SLOTS)
    filled: list[str] = []
    fill = Engine._fill

    def watched(self: Engine, slot: int, choice: Choice) -> None:
        filled.append(choice.key)
        fill(self, slot, choice)

    monkeypatch.setattr(Engine, "_fill", watched)
    a, b = inline(Token(ids=(0,))), inline(Token(ids=(0,)), InPhase(phase="prompt"))
    for choices in ([a, b], [b], [CALM, a], [a, b]):
        one.begin(step([(0, 2, 2)] * len(choices), choices))
    assert filled == [a.key, b.key, CALM.key]


def test_bits_are_shared_and_those_of_documents_stay() -> None:
    bits = Bits(FIXED)
    assert [bits.bit(one) for one in FIXED] == [0, 1, 2]
    new = [Token(ids=(i,)) for i in range(10, 13)]
    assert bits.place([FIXED[2], *new, new[0]]) == 0b111000
    assert bits.place([new[1], FIXED[0]]) == 0
    assert [bits.bit(one) for one in (*FIXED, *new)] == [0, 1, 2, 3, 4, 5]
    assert dict(bits.among(0b101101)) == {0: FIXED[0], 2: FIXED[2], 3: new[0], 5: new[2]}


@given(steps=st.lists(st.lists(st.integers(0, 12), max_size=4), max_size=20))
@settings(deadline=None)
def test_bits_mean_what_was_placed(steps: list[list[int]]) -> None:
    fixed = tuple(Token(ids=(100 + i,)) for i in range(60))
    bits, meaning = Bits(fixed), dict(enumerate(fixed))
    for ids in steps:
        wanted = [Token(ids=(one,)) for one in ids]
        changed = bits.place(wanted)
        found = {bits.bit(one): one for one in wanted}
        assert len(found) == len(set(ids))
        assert set(found) <= set(range(60, 64))
        # A bit that did not change means what it meant; `among` knows every one.
        for bit, one in found.items():
            assert changed >> bit & 1 or meaning.get(bit) == one
        meaning.update(found)
        assert dict(bits.among(-1 % 2**64)) == meaning


def test_more_selectors_than_bits_stop_the_step() -> None:
    bits = Bits([Token(ids=(i,)) for i in range(61)])
    kept = [Token(ids=(i,)) for i in range(100, 103)]
    assert bits.place(kept) == 0b111 << 61
    with pytest.raises(IntervError, match="E523"):
        bits.place([Token(ids=(i,)) for i in range(200, 204)])
    # Nothing was given away.
    assert bits.place(kept) == 0
    assert [bits.bit(one) for one in kept] == [61, 62, 63]


def test_rows_of_inline_programs_are_counted_under_one_name() -> None:
    one = engine(taking((Everything(),)), slots=SLOTS)
    assert spare_bits(one.bundle) == 63
    asked = [CALM, inline(InPhase(phase="prompt")), inline(InPhase(phase="generated")), OFF]
    one.begin(step([(0, 3, 2)] * 4, asked))
    hidden = torch.zeros(12, 16)
    one.update("pre_attn[0]", hidden, None)
    assert one.bundle.counted == ("calm", "<inline>")
    assert one.counters.rows().tolist() == [[3, 3], [0, 0]]
    edited = (hidden != 0).any(dim=1).tolist()
    assert edited == [True] * 3 + [True, True, False] + [False, False, True] + [False] * 3
