"""Slots under random arrivals: counted, shared by content, reused, never given twice."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from interv.runtime.slots import Slots

SIZE = 3
keys = st.sampled_from("abcdef")


class Arrivals(RuleBasedStateMachine):
    """Requests that come and go, and a plain account of who holds what."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots(SIZE)
        self.held: dict[str, int] = {}
        self.users: dict[str, int] = {}

    @rule(key=keys)
    def arrive(self, key: str) -> None:
        got = self.slots.acquire(key)
        if key in self.held:
            assert got == (self.held[key], False)
        elif len(self.held) == SIZE:
            assert got is None
            return
        else:
            assert got is not None
            slot, new = got
            assert new
            assert 0 <= slot < SIZE
            assert slot not in self.held.values()
            self.held[key] = slot
        self.users[key] = self.users.get(key, 0) + 1

    @precondition(lambda self: self.users)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.users)))
        self.slots.release(key)
        self.users[key] -= 1
        if self.users[key] == 0:
            del self.users[key], self.held[key]

    @invariant()
    def counts(self) -> None:
        assert self.slots.used == len(self.held)


TestArrivals = Arrivals.TestCase
TestArrivals.settings = settings(deadline=None, max_examples=60)


def test_a_full_table_makes_new_keys_wait_and_still_shares() -> None:
    slots = Slots(1)
    assert slots.acquire("a") == (0, True)
    assert slots.acquire("b") is None
    assert slots.acquire("a") == (0, False)
    slots.release("a")
    assert slots.acquire("b") is None
    slots.release("a")
    assert slots.acquire("b") == (0, True)


def test_giving_back_what_is_not_held_is_our_bug() -> None:
    slots = Slots(1)
    with pytest.raises(KeyError):
        slots.release("a")
    assert slots.used == 0
