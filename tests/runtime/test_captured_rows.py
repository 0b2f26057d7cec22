"""Rows of a request put together from steps: every position once, the last one that was fed."""

from __future__ import annotations

import torch
from hypothesis import given, settings, strategies as st

from interv.runtime.captures.rows import Joiner, RequestTaken, StepTaken, chosen

# Two groups of captures: the first two captures at 2 sites, the last one at 1.
GROUPS = (0b011, 0b100)
SITES = (2, 1)
H = 4


@st.composite
def histories(draw: st.DrawFn) -> list[list[tuple[int, int, int]]]:
    """Draw the steps of a request: (position, what was fed, hit) of each of its tokens.

    It may begin again at any time, as after a preemption, and feed other tokens, as after drafts.
    """
    steps, at, fed = [], 0, 0
    for _ in range(draw(st.integers(1, 90))):
        if draw(st.integers(0, 9)) == 0:
            at = draw(st.integers(0, at))
        step = []
        for _ in range(draw(st.integers(1, 5))):
            step.append((at, fed, draw(st.integers(0, 7))))
            at, fed = at + 1, fed + 1
        steps.append(step)
    return steps


def taken(steps: list[list[tuple[int, int, int]]], before: int, own: int) -> RequestTaken:
    """Feed a request's steps, with `before` tokens of another request in front of each."""
    request = RequestTaken(GROUPS, own, Joiner())
    for step in steps:
        every = [(0, -1, 7)] * before + step
        position, fed, hit = (torch.tensor(column) for column in zip(*every, strict=True))
        rows = {}
        for g, bits in enumerate(GROUPS):
            wanted = fed[(hit & bits) != 0]
            if len(wanted):
                # What a row holds says which token it is of, and at which site.
                site = torch.arange(SITES[g])[:, None] / 8
                rows[g] = (wanted + site)[:, :, None].expand(-1, -1, H).clone()
        request.add(StepTaken(hit, position, fed, rows), before, before + len(step))
    return request


@settings(deadline=None, max_examples=60)
@given(steps=histories(), before=st.integers(0, 3), own=st.integers(1, 7))
def test_each_position_once_and_the_last(
    steps: list[list[tuple[int, int, int]]], before: int, own: int
) -> None:
    rows = taken(steps, before, own).together()
    for bit in range(3):
        if not own >> bit & 1:
            continue
        g = 0 if bit < 2 else 1
        # A row is there where any capture of the group wanted the token: the last such counts.
        last = {p: (f, hit) for step in steps for p, f, hit in step if hit & GROUPS[g]}
        limit = max(p for step in steps for p, _, _ in step)
        expected = [(p, f) for p, (f, hit) in sorted(last.items()) if hit >> bit & 1 and p < limit]
        found = chosen(rows[g], bit, limit) if g in rows else []
        assert [int(rows[g].position[i]) for i in found] == [p for p, _ in expected]
        assert [int(rows[g].token_id[i]) for i in found] == [f for _, f in expected]
        for site in range(SITES[g]):
            values = [float(rows[g].rows[site, i, 0]) for i in found]
            assert values == [f + site / 8 for _, f in expected]
