"""When a request is compacted, against counting token by token."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings, strategies as st

from interv.kv import schedule
from interv.kv.schedule import Schedule
from interv.kv.settings import KvSettings

SIZES = st.builds(
    KvSettings,
    budget=st.integers(9, 40),
    buffer=st.integers(1, 20),
    prefill=st.booleans(),
)


def counted(made: KvSettings, prompt: int, upto: int) -> list[tuple[bool, int]]:
    """Say of each count whether the request is compacted there, and what is dropped after it."""
    dropped, found = 0, [(False, 0)]
    for count in range(1, upto):
        held = count - dropped
        due = held >= made.limit and (made.prefill or count >= prompt)
        if due:
            dropped = count - made.budget
        found.append((due, dropped))
    return found


@settings(deadline=None)
@given(SIZES, st.integers(1, 120))
def test_a_schedule_is_what_counting_gives(made: KvSettings, prompt: int) -> None:
    one, wanted = Schedule.of(made, prompt), counted(made, prompt, 300)
    for count, (due, dropped) in enumerate(wanted):
        assert one.is_point(count) == due
        assert one.dropped(count) == dropped
        later = (c for c in range(count + 1, 300) if wanted[c][0])
        if (point := next(later, None)) is not None:
            assert one.next_point(count) == point
        if due:
            assert one.held(count) == count - wanted[count - 1][1]


@settings(deadline=None)
@given(SIZES, st.lists(st.tuples(st.integers(1, 120), st.integers(0, 290)), min_size=1))
def test_a_batch_is_its_requests(made: KvSettings, batch: list[tuple[int, int]]) -> None:
    counts = np.array([count for _, count in batch])
    ones = [Schedule.of(made, prompt) for prompt, _ in batch]
    first = np.array([one.first for one in ones])
    pairs = list(zip(ones, counts.tolist(), strict=True))
    assert schedule.dropped(made, first, counts).tolist() == [o.dropped(n) for o, n in pairs]
    assert schedule.at_point(made, first, counts).tolist() == [o.is_point(n) for o, n in pairs]
    assert schedule.next_points(made, first, counts).tolist() == [o.next_point(n) for o, n in pairs]


@settings(deadline=None)
@given(SIZES, st.integers(1, 120), st.lists(st.integers(1, 64), min_size=1, max_size=60))
def test_whatever_the_chunks_every_point_is_met(
    made: KvSettings, prompt: int, chunks: list[int]
) -> None:
    """So a request that is computed again is compacted at the same counts."""
    one, count, met = Schedule.of(made, prompt), 0, []
    for chunk in chunks:
        if one.is_point(count):
            met.append(count)
        count += one.clip(count, chunk)
        # A request never holds more than its limit once it was compacted.
        assert count - one.dropped(count - 1) <= max(one.first, made.limit)
    assert met == [c for c in range(count) if one.is_point(c)]


def test_a_long_prompt_is_compacted_when_it_is_done() -> None:
    made = KvSettings(budget=64, buffer=16)
    assert Schedule.of(made, 300).first == 300
    assert Schedule.of(made, 20).first == 80
    assert Schedule.of(KvSettings(budget=64, buffer=16, prefill=True), 300).first == 80
