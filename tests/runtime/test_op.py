"""The opaque op: refused outside a runner, traceable, and one write of its first argument."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from interv.errors import IntervError
from interv.runtime.worker.engine import Engine
from interv.runtime.worker.op import UPDATE, running
from tests.runtime.small import H, bundle, engine, step

SITE = "post_block[2]"


def armed(scale: float = 1.0) -> Engine:
    one = engine(bundle(scale=scale))
    one.begin(step([(0, 4, 4)]))
    return one


def layer(hidden: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    made = hidden * 2
    UPDATE.by_site(made, residual, SITE)
    return made + residual


def test_outside_a_runner_it_stops_the_step() -> None:
    with pytest.raises(IntervError) as caught:
        torch.ops.interv.update(torch.zeros(4, H), None, SITE)
    assert str(caught.value) == (
        "error[E520]: the edit at post_block[2] was reached outside a model runner that interv"
        " knows\n"
        "  = the answer would be unedited, so the step is stopped"
    )


def test_it_means_the_engine_of_the_innermost_block() -> None:
    first, second = armed(1.0), armed(-3.0)
    outer, inner, again = (torch.zeros(4, H) for _ in range(3))
    with running(first):
        UPDATE.by_site(outer, None, SITE)
        with running(second):
            UPDATE.by_site(inner, None, SITE)
        UPDATE.by_site(again, None, SITE)
    row = first.sites[SITE].bank[0]
    assert torch.equal(outer, row.expand(4, H))
    assert torch.equal(inner, -3.0 * row.expand(4, H))
    assert torch.equal(again, outer)
    with pytest.raises(IntervError, match="E520"):
        UPDATE.by_site(outer, None, SITE)


def test_a_step_that_fails_does_not_leave_its_engine_behind() -> None:
    with pytest.raises(ZeroDivisionError), running(armed()):
        raise ZeroDivisionError
    with pytest.raises(IntervError, match="E520"):
        UPDATE.by_site(torch.zeros(4, H), None, SITE)


def test_tracing_it_needs_no_engine() -> None:
    with FakeTensorMode():
        assert UPDATE.by_site(torch.empty(4, H), torch.empty(4, H), SITE) is None
    assert UPDATE.by_site(torch.empty(4, H, device="meta"), None, SITE) is None
    writes = [
        bool(one.alias_info and one.alias_info.is_write) for one in UPDATE.by_site._schema.arguments
    ]
    assert writes == [True, False, False]


@pytest.mark.parametrize("residual", [None, torch.ones(4, H)], ids=["single", "pair"])
def test_torch_finds_no_fault_with_it(residual: torch.Tensor | None) -> None:
    with running(armed()):
        found = torch.library.opcheck(UPDATE.by_site, (torch.ones(4, H), residual, SITE))
    assert set(found.values()) == {"SUCCESS"}


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_graph_edits_as_eager_does(backend: str) -> None:
    one, compiled = armed(), torch.compile(layer, backend=backend, fullgraph=True)
    made = torch.Generator().manual_seed(0)
    hidden, residual = (torch.randn(4, H, generator=made) for _ in range(2))
    with running(one):
        expected, got = layer(hidden, residual), compiled(hidden, residual)
    assert torch.equal(got, expected)
    assert not torch.equal(got, hidden * 2 + residual)
    assert one.counts.total.sum() == 8
