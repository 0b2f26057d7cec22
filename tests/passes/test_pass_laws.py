"""Laws: selectors agree, every pass keeps the meaning, the fused update is the program."""

from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import assume, example, given, settings

from interv.codegen.bundle import Bundle
from interv.codegen.emit import emit
from interv.codegen.update import fused_update
from interv.document.selectors import holds
from interv.document.spec import Program, Replace, Selector, SiteRef, Steer
from interv.errors import IntervError
from interv.passes.graph.ir import execute
from interv.passes.graph.selector_masks import select
from interv.passes.pipeline import Stage
from interv.passes.place import place
from tests.passes.small import (
    MODEL,
    TOKENS,
    H,
    L,
    along,
    indices,
    programs,
    reference,
    selectors,
    stages,
    streams,
    tokens,
)
from tests.tolerances import BFLOAT16, FLOAT16, FLOAT32_BANK, FLOAT64


@given(selectors | along)
@settings(deadline=None)
def test_select_is_holds(selector: Selector) -> None:
    expected = [holds(selector, *token) for token in TOKENS]
    assert select(tokens(), selector).tolist() == expected


def passed(program: Program) -> tuple[Stage, ...]:
    try:
        return stages(program)
    except IntervError as error:
        if error.code != "E401" or program.conflict != "error":
            raise
        assume(False)
        raise


def emitted(program: Program, done: tuple[Stage, ...]) -> Bundle:
    graphs = {program.name: done[-1].graph}
    return emit(place(graphs, {program.name: program.conflict}, MODEL), None)


@given(programs)
@settings(deadline=None)
def test_each_pass_keeps_the_meaning(program: Program) -> None:
    done = passed(program)
    given_streams, batch = streams(), tokens()
    _, norms = reference(program, given_streams)
    results = [execute(stage.graph, given_streams, batch) for stage in done]
    for stage, before, after in zip(done[1:], results, results[1:], strict=False):
        if stage.name == "resolve_conflicts" and program.conflict in ("sum", "priority"):
            continue  # this is where those policies get their meaning
        for site, h in before.items():
            assert (h - after[site]).abs().max() <= FLOAT64 * norms[site], stage.name


@given(programs)
@settings(deadline=None)
def test_the_graph_is_the_program(program: Program) -> None:
    done = passed(program)
    given_streams = streams()
    result = execute(done[-1].graph, given_streams, tokens())
    expected, norms = reference(program, given_streams)
    for site, h in expected.items():
        assert (result[site] - h).abs().max() <= FLOAT64 * norms[site]


_AT = SiteRef(name="post_block", layers=(1,))
# The stream becomes zero, and then keeps its norm.
ZEROED = Program(
    name="p",
    statements=(
        Replace(vector="v", at=_AT, scale=0.0),
        Steer(vector="w", at=_AT, scale=0.0, keep_norm=True),
    ),
)


@given(programs)
@example(ZEROED)
@settings(deadline=None)
def test_the_fused_update_is_the_program(program: Program) -> None:
    bundle = emitted(program, passed(program))
    masks = torch.stack([select(tokens(), one) for one in bundle.selectors] or [torch.zeros(1)])
    tables = {table.site: table for table in bundle.sites}
    kept = torch.full((len(TOKENS), bundle.gates), float("nan"), dtype=torch.float64)
    expected, norms = reference(program, streams())
    for site, h in sorted(streams().items(), key=lambda item: item[0].order):
        if site not in tables:
            assert (expected[site] - h).abs().max() <= FLOAT64 * norms[site]
            continue
        got = fused_update(h, tables[site], program.name, masks, kept, indices())
        assert (got - expected[site]).abs().max() <= FLOAT32_BANK * norms[site]
        idle = ~masks[[c.selector for c in tables[site].programs[program.name]]].any(0)
        assert torch.equal(got[idle], h[idle])


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.bfloat16, BFLOAT16), (torch.float16, FLOAT16)]
)
@given(program=programs)
@settings(deadline=None, max_examples=20)
def test_the_update_in_a_narrow_stream_rounds_once(
    dtype: torch.dtype, tolerance: float, program: Program
) -> None:
    bundle = emitted(program, passed(program))
    kept = torch.zeros(len(TOKENS), bundle.gates, dtype=torch.float64)
    rounded = {site: h.to(dtype) for site, h in streams().items()}
    _, norms = reference(program, {site: h.double() for site, h in rounded.items()})
    for table in bundle.sites:
        h = rounded[table.site]
        masks = torch.stack([select(tokens(), one) for one in bundle.selectors])
        got = fused_update(h, table, program.name, masks, kept, indices())
        wide = fused_update(h.double(), table, program.name, masks, kept, indices())
        assert got.dtype == dtype
        assert (got.double() - wide).abs().max() <= tolerance * norms[table.site]


@given(programs)
@settings(deadline=None, max_examples=25)
def test_the_bundle_is_canonical_and_travels(program: Program) -> None:
    first, again = (emitted(program, passed(program)) for _ in range(2))
    back: Bundle = pickle.loads(pickle.dumps(first))
    for other in (again, back):
        assert (other.structure, other.contents) == (first.structure, first.contents)
        assert (other.selectors, other.programs, other.where) == (
            first.selectors,
            first.programs,
            first.where,
        )
        for one, two in zip(first.sites, other.sites, strict=True):
            assert (one.site, one.programs) == (two.site, two.programs)
            assert one.bank.tobytes() == two.bank.tobytes()
            assert one.bank.dtype == "float32"
            assert one.bank.shape[1] == H
    assert (first.hidden_size, first.num_layers) == (H, L)
    assert [table.site.order for table in first.sites] == sorted(
        table.site.order for table in first.sites
    )
