"""An engine's tables and steps: who is edited, by which selector bits, and what is proved."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx import Graph

from interv.codegen.tables import signed
from interv.errors import IntervError
from interv.passes.find_sites import FoundSites, SplicePoint
from interv.runtime.engine import Step, unreached
from interv.selectors import holds
from interv.sites import Site
from interv.spec import At, Everything, InPhase, Selector, Slice, Token
from tests.passes.small import selectors
from tests.runtime.small import MAX_TOKENS, SITES, bundle, engine, step

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
    made, one = step(batch, [0] * len(batch), seed), engine(bundle(wanted))
    one.begin(made)
    tokens = int(made.starts[-1])
    assert [bits % 2**64 for bits in one.mask[:tokens].tolist()] == expected_bits(made, wanted)
    assert one.slot.tolist() == [0] * tokens + [-1] * (MAX_TOKENS - tokens)


def test_each_request_has_its_slot_and_padding_none() -> None:
    one = engine()
    one.begin(step([(0, 3, 3), (7, 1, 3), (0, 2, 6), (9, 1, 2)], [2, -1, 0, 1]))
    assert one.slot.tolist() == [2, 2, 2, -1, 0, 0, 1] + [-1] * (MAX_TOKENS - 7)


@pytest.mark.parametrize("last", [Everything(), InPhase(phase="generated")])
def test_the_last_of_64_selectors_has_its_bit(last: Selector) -> None:
    wanted = [Token(ids=(100 + i,)) for i in range(63)] + [last]
    one = engine(bundle(wanted))
    one.begin(step([(5, 2, 5)], [0]))
    assert one.mask[:2].tolist() == [signed(1 << 63)] * 2


def test_phases_follow_absolute_positions_through_chunks() -> None:
    wanted = [InPhase(phase="prompt"), At(phase="prompt", index=-1), Slice(phase="generated")]
    whole, one = engine(bundle(wanted)), engine(bundle(wanted))
    whole.begin(step([(0, 9, 6)], [0]))
    found = []
    for first, count in ((0, 4), (4, 1), (5, 3), (8, 1)):
        one.begin(step([(first, count, 6)], [0]))
        found += one.mask[:count].tolist()
    assert found == whole.mask[:9].tolist() == [1] * 5 + [3] + [4] * 3


def test_a_shorter_step_leaves_nothing_of_the_longer_one() -> None:
    one = engine()
    one.begin(step([(0, 20, 20)], [0]))
    one.begin(step([(20, 1, 20)], [0]))
    assert one.slot.tolist() == [0] + [-1] * (MAX_TOKENS - 1)
    one.clear()
    assert one.slot.tolist() == [-1] * MAX_TOKENS


@pytest.mark.parametrize("slots", [[-1, -1], []])
def test_a_step_without_edits_touches_nothing(slots: list[int]) -> None:
    one = engine()
    one.begin(step([(0, 3, 3), (5, 1, 2)][: len(slots)], slots))
    assert one.slot.tolist() == [-1] * MAX_TOKENS


def test_no_default_means_no_edit() -> None:
    one = engine(bundle(default=None))
    assert one.default_slot == -1
    assert all(table.count.tolist() == [0, 0, 0] for table in one.tables.values())


def test_the_default_program_has_slot_0_at_every_site() -> None:
    one = engine(bundle([Everything(), InPhase(phase="prompt")]))
    assert one.default_slot == 0
    assert [table.count.tolist() for table in one.tables.values()] == [[2, 0, 0], [2, 0, 0]]


def test_an_update_edits_its_own_site_and_counts_by_slot() -> None:
    one = engine(bundle(scale=2.0))
    one.write_program(2, "calm")
    one.begin(step([(0, 2, 2), (3, 1, 2), (4, 1, 2)], [0, -1, 2]))
    hidden = torch.zeros(6, 16)
    one.update("post_block[2]", hidden, None)
    row = 2.0 * one.tables[SITES[1]].bank[0]
    assert torch.equal(hidden, torch.stack([row, row, 0 * row, row, 0 * row, 0 * row]))
    assert one.edited.tolist() == [[0, 0, 0], [2, 0, 1]]
    assert one.reached == {"post_block[2]"}


def test_a_stream_with_a_batch_dimension_is_the_flat_one() -> None:
    one = engine()
    one.begin(step([(0, 4, 4)], [0]))
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
