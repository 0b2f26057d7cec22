"""Slots under random steps: shared by content, reused, and never taken from a running request."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from interv.errors import IntervError
from interv.runtime.worker.slots import Slots

SIZE = 3
steps = st.lists(st.lists(st.sampled_from(["", *"abcdef"]), max_size=6), max_size=30)


@given(batches=steps)
@settings(deadline=None)
def test_slots_hold_what_the_steps_need(batches: list[list[str]]) -> None:
    slots, filled = Slots(SIZE), {}
    for keys in batches:
        needed = {key for key in keys if key}
        if len(needed) > SIZE:
            with pytest.raises(IntervError, match="E523"):
                slots.place(keys)
            continue
        given_, new = slots.place(keys)
        filled.update({slot: key for key, slot in new})
        # What lies in a request's slot is its own key: written now, or before and not since.
        assert [filled.get(slot, "") for slot in given_.tolist()] == keys
        assert all(0 <= slot < SIZE for _, slot in new)
        assert {key for key, _ in new} <= needed
        assert slots.used == len(set(filled)) <= SIZE


def test_a_slot_is_kept_until_another_key_needs_it() -> None:
    slots = Slots(2)
    assert slots.place(["a", "b", "a"])[0].tolist() == [0, 1, 0]
    assert slots.place(["b"])[1] == []
    assert slots.place(["a", ""])[1] == []
    assert slots.place(["b", "c"])[1] == [("c", 0)]
    assert slots.place(["a", "c"])[1] == [("a", 1)]


def test_a_refused_step_leaves_the_slots_as_they_were() -> None:
    slots = Slots(1)
    slots.place(["a"])
    with pytest.raises(IntervError, match="E523"):
        slots.place(["b", "c"])
    assert slots.place(["a"])[1] == []
