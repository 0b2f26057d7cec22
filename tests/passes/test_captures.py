"""Captures on their way through the passes: the rows are those that the program means."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings, strategies as st

from interv.document.positions import merged
from interv.document.selectors import holds
from interv.document.sites import SITES, Site
from interv.document.spec import Capture, LayerRange, Program, SiteRef
from interv.errors import IntervError
from interv.passes.graph.ir import Taken, execute
from interv.passes.place import place
from tests.passes.small import (
    MODEL,
    TOKENS,
    L,
    programs,
    reference,
    selectors,
    stages,
    streams,
    tokens,
)
from tests.tolerances import FLOAT64

captures = st.builds(
    Capture,
    at=st.builds(
        SiteRef,
        name=st.sampled_from(SITES),
        layers=st.sampled_from([("*",), (0,), (-1, 1), (LayerRange(first=1, last=-1),)]),
    ),
    tokens=selectors,
    to=st.just("rows"),
    after=st.booleans(),
)


@st.composite
def capturing(draw: st.DrawFn) -> Program:
    """Draw a program with captures among its edits."""
    program = draw(programs)
    statements = list(program.statements)
    for one in draw(st.lists(captures, min_size=1, max_size=3)):
        statements.insert(draw(st.integers(0, len(statements))), one)
    return program.model_copy(update={"statements": tuple(statements)})


def layers(capture: Capture) -> list[int]:
    table = {("*",): range(L), (0,): [0], (-1, 1): [L - 1, 1]}
    return list(table.get(capture.at.layers, range(1, L)))


@given(capturing())
@settings(deadline=None)
def test_each_pass_keeps_the_captured_rows(program: Program) -> None:
    edits = tuple(one for one in program.statements if not isinstance(one, Capture))
    try:
        done = stages(program)
    except IntervError as error:
        assume(error.code == "E401" and program.conflict == "error")
        assume(False)
    found = streams()
    edited, norms = reference(program.model_copy(update={"statements": edits}), found)
    # `build` still has sites as ranges, and policies get their meaning in `resolve_conflicts`.
    for stage in done[2:]:
        taken: Taken = {}
        execute(stage.graph, found, tokens(), taken)
        for number, one in enumerate(program.statements):
            if not isinstance(one, Capture):
                continue
            wanted = [i for i, token in enumerate(TOKENS) if holds(one.tokens, *token)]
            expected = {Site(one.at.name, layer) for layer in layers(one)}
            assert taken[number].keys() == expected
            for site, rows in taken[number].items():
                exact = (edited if one.after else found)[site][wanted]
                assert rows.shape == exact.shape
                if not one.after:
                    assert torch.equal(rows, exact)
                elif len(wanted):
                    assert (rows - exact).abs().max() <= FLOAT64 * norms[site]


@given(capturing())
@settings(deadline=None, max_examples=30)
def test_captures_are_placed_as_they_are_written(program: Program) -> None:
    try:
        done = stages(program)
    except IntervError as error:
        assume(error.code == "E401" and program.conflict == "error")
        assume(False)
    plan = place({"p": done[-1].graph}, {"p": program.conflict}, MODEL)
    written = [one for one in program.statements if isinstance(one, Capture)]
    assert [one.capture for one in plan.captures] == written
    for placed, one in zip(plan.captures, written, strict=True):
        assert plan.selectors[placed.selector] == merged(one.tokens)
        assert [site.layer for site in placed.sites] == sorted(layers(one))
    edited = {placed.site for placed in plan.sites}
    taken = {site for one in plan.captures for site in one.sites}
    assert set(plan.spliced) == edited | taken
    assert list(plan.spliced) == sorted(plan.spliced, key=lambda site: site.order)


def test_more_captures_than_bits_are_refused() -> None:
    at = SiteRef(name="post_block", layers=(0,))
    program = Program(name="p", statements=tuple(Capture(at=at, to="rows") for _ in range(65)))
    with pytest.raises(IntervError) as caught:
        place({"p": stages(program)[-1].graph}, {"p": "sequential"}, MODEL)
    assert str(caught.value) == (
        "error[E420]: 65 captures are declared, 64 are possible\n"
        "  = one capture may list several layers: at post_block[10..20]"
    )
