"""An engine's tables and steps: who is edited, by which selector bits, and what is proved."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.fx import Graph

from interv.codegen.bundle import Column
from interv.codegen.slot import signed
from interv.document.selectors import holds
from interv.document.sites import Site
from interv.document.spec import At, Everything, InPhase, Selector, Slice, Token
from interv.errors import IntervError
from interv.passes.captured.find_sites import FoundSites, SplicePoint
from interv.passes.graph.column import Kind, Mode
from interv.runtime.choice import Choice
from interv.runtime.counters import report
from interv.runtime.worker.engine import Step, unreached
from tests.passes.small import selectors
from tests.runtime.small import CALM, MAX_TOKENS, OFF, SITES, bundle, engine, step

# (first position, tokens fed, prompt length): a whole prompt, a chunk from its middle, its last
# chunk, a decode, a chunk that runs from the prompt into drafted tokens, a recompute.
MIXED = [(0, 4, 4), (3, 3, 9), (6, 3, 9), (12, 1, 5), (2, 4, 3), (0, 7, 3)]
requests = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 5), st.integers(1, 8)), min_size=1, max_size=5
)


def expected_bits(made: Step, wanted: list[Selector]) -> list[int]:
    """Evaluate the selectors token by token with the definition."""
    out = []
    for request, (start, stop) in enumerate(zip(made.starts, made.starts[1:], strict=False)):
        length = int(made.prompt_length[request])
        for token in range(start, stop):
            at, fed = int(made.position[token]), int(made.token_id[token])
            out.append(sum(1 << i for i, one in enumerate(wanted) if holds(one, at, length, fed)))
    return out


@given(
    wanted=st.lists(selectors, min_size=1, max_size=5),
    batch=requests | st.just(MIXED),
    seed=st.integers(0, 9),
)
@settings(deadline=None, max_examples=60)
def test_bits_are_what_the_selectors_say(
    wanted: list[Selector], batch: list[tuple[int, int, int]], seed: int
) -> None:
    made, one = step(batch, seed=seed), engine(bundle(wanted))
    one.begin(made)
    tokens = int(made.starts[-1])
    assert [bits % 2**64 for bits in one.tokens.mask[:tokens].tolist()] == expected_bits(
        made, wanted
    )
    assert one.tokens.slot.tolist() == [0] * tokens + [-1] * (MAX_TOKENS - tokens)


FADING = [
    Column(-1, -1, alpha=-1.0, kind=Kind.GATE, mode=Mode.DECAY),
    Column(-1, 0, alpha=1.0, gate=0),
]


@given(batch=requests | st.just(MIXED))
@settings(deadline=None, max_examples=40)
def test_what_decays_knows_how_many_generated_tokens_come_before(
    batch: list[tuple[int, int, int]],
) -> None:
    made, one = step(batch), engine(bundle(columns=FADING))
    one.tokens.index.fill_(-1)
    one.begin(made)
    expected = [max(0, at - n) for first, count, n in batch for at in range(first, first + count)]
    assert one.tokens.index[: len(expected)].tolist() == expected
    # Nobody looks where nothing decays, so that nothing is computed.
    plain = engine()
    plain.tokens.index.fill_(-1)
    plain.begin(made)
    assert (plain.tokens.index == -1).all()


def test_each_request_has_its_slot_and_padding_none() -> None:
    one = engine()
    twice, thrice = (Choice.of((("calm", m),)) for m in (2.0, 3.0))
    one.begin(step([(0, 3, 3), (7, 1, 3), (0, 2, 6), (9, 1, 2)], [CALM, OFF, twice, thrice]))
    assert one.tokens.slot.tolist() == [0, 0, 0, -1, 1, 1, 2] + [-1] * (MAX_TOKENS - 7)
    # The same again finds its slots; a fourth takes that of one that this step does not have.
    one.begin(step([(4, 1, 3), (8, 1, 3)], [thrice, Choice.of((("calm", 4.0),))]))
    assert one.tokens.slot.tolist() == [2, 0] + [-1] * (MAX_TOKENS - 2)


def test_more_configurations_than_slots_stop_the_step() -> None:
    one = engine()
    choices = [Choice.of((("calm", m),)) for m in (1.0, 2.0, 3.0, 4.0)]
    with pytest.raises(IntervError) as caught:
        one.begin(step([(0, 1, 1)] * 4, choices))
    assert str(caught.value) == (
        "error[E523]: 4 configurations are in one step, 3 slots exist\n"
        "  = a request would run unedited, so the step is stopped"
    )


@pytest.mark.parametrize("last", [Everything(), InPhase(phase="generated")])
def test_the_last_of_64_selectors_has_its_bit(last: Selector) -> None:
    wanted = [Token(ids=(100 + i,)) for i in range(63)] + [last]
    one = engine(bundle(wanted))
    one.begin(step([(5, 2, 5)]))
    assert one.tokens.mask[:2].tolist() == [signed(1 << 63)] * 2


def test_phases_follow_absolute_positions_through_chunks() -> None:
    wanted = [InPhase(phase="prompt"), At(phase="prompt", index=-1), Slice(phase="generated")]
    whole, one = engine(bundle(wanted)), engine(bundle(wanted))
    whole.begin(step([(0, 9, 6)]))
    found = []
    for first, count in ((0, 4), (4, 1), (5, 3), (8, 1)):
        one.begin(step([(first, count, 6)]))
        found += one.tokens.mask[:count].tolist()
    assert found == whole.tokens.mask[:9].tolist() == [1] * 5 + [3] + [4] * 3


def test_a_shorter_step_leaves_nothing_of_the_longer_one() -> None:
    one = engine()
    one.begin(step([(0, 20, 20)]))
    one.begin(step([(20, 1, 20)]))
    assert one.tokens.slot.tolist() == [0] + [-1] * (MAX_TOKENS - 1)
    one.clear()
    assert one.tokens.slot.tolist() == [-1] * MAX_TOKENS


@pytest.mark.parametrize("count", [2, 0])
def test_a_step_without_edits_touches_nothing(count: int) -> None:
    one = engine()
    one.begin(step([(0, 3, 3), (5, 1, 2)][:count], [OFF] * count))
    assert one.tokens.slot.tolist() == [-1] * MAX_TOKENS
    assert one.slots.used == 0


def test_the_default_is_a_choice_like_any_other() -> None:
    assert engine().default == CALM
    assert engine(bundle(default=None)).default == OFF


def test_an_update_edits_its_own_site_and_counts_by_program() -> None:
    one = engine(bundle(scale=2.0))
    half = Choice("calm*0.5", (("calm", 0.5),), report=True, seat=3, ticket=1)
    one.begin(step([(0, 2, 2), (3, 1, 2), (4, 1, 2)], [CALM, OFF, half]))
    hidden = torch.zeros(6, 16)
    one.update("post_block[2]", hidden, None)
    row = 2.0 * one.sites["post_block[2]"].bank[0]
    assert torch.equal(hidden, torch.stack([row, row, 0 * row, row / 2, 0 * row, 0 * row]))
    assert one.counters.rows().tolist() == [[0], [3]]
    assert report(one.counters.rows(3), one.bundle) == {"calm": {"post_block[2]": 1}}
    assert one.reached == {"post_block[2]"}


def test_a_seat_starts_anew_with_another_ticket() -> None:
    one = engine()
    for ticket, rows in ((1, 1), (1, 2), (2, 1)):
        asks = Choice(CALM.key, CALM.terms, report=True, seat=5, ticket=ticket)
        one.begin(step([(4, 1, 2)], [asks]))
        one.update("pre_attn[0]", torch.zeros(2, 16), None)
        assert one.counters.rows(5).tolist() == [[rows], [0]]
    one.counts.clear()
    assert not one.counters.rows(5).any()
    assert not one.counters.rows().any()


def test_a_stream_with_a_batch_dimension_is_the_flat_one() -> None:
    one = engine()
    one.begin(step([(0, 4, 4)]))
    flat, batched = torch.ones(4, 16), torch.ones(1, 4, 16)
    one.update("pre_attn[0]", flat, torch.ones(4, 16))
    one.update("pre_attn[0]", batched, torch.ones(1, 4, 16))
    assert torch.equal(batched[0], flat)
    assert not torch.equal(flat, torch.ones(4, 16))


def test_verify_passes_when_every_owned_site_was_reached() -> None:
    one = engine()
    one.reached.add("pre_attn[0]")
    one.verify(range(2))
    one.reached.add("post_block[2]")
    one.verify(range(4))


def test_a_site_that_a_graph_lacks_is_named_with_the_reason() -> None:
    missing = {SITES[0]: "two values cross here", Site("post_attn", 3): "not asked for"}
    node = Graph().placeholder("stream")
    here = [Site("post_block", 0), Site("post_block", 2)]
    points = {site: SplicePoint(site, node, None, node) for site in here}
    assert str(unreached(bundle(), [SITES[0]], FoundSites(points, missing))) == (
        "error[E521]: this model has no site pre_attn[0]\n"
        "  = pre_attn[0] is declared at calm.interv:4, calm.interv:5 and 1 more\n"
        "  = two values cross here\n"
        "  = sites of block 0: post_block"
    )


def test_verify_says_where_no_graph_holds_the_blocks() -> None:
    with pytest.raises(IntervError) as caught:
        engine().verify(range(4))
    assert str(caught.value) == (
        "error[E521]: this model has no site pre_attn[0], post_block[2]\n"
        "  = pre_attn[0] is declared at calm.interv:4, calm.interv:5 and 1 more\n"
        "  = no compiled graph of this model holds these blocks"
    )
