"""Updates that join the norm behind them: both graphs are run, and no bit differs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule

from interv.document.sites import Site
from interv.passes.captured.absorb_norm import Absorbed, NormOps, absorb_norm
from interv.passes.captured.find_sites import find_sites
from interv.passes.captured.norm_rounding import Rounding
from interv.passes.captured.splice import SITE, UpdateOps, splice
from tests.splice import ops
from tests.splice.test_splice import EVERY, batch, change, keeps
from tests.splice.toys import LAYERS, AddNorm, H, Model, SingleBlock, pair

# Where two sites are at one place, the later one joins the norm.
SHARED = [f"post_block[{layer}]" for layer in range(LAYERS - 1)]
FORMS: dict[str, AddNorm] = {
    "functional": ops.functional,
    "donating": ops.donating,
    "in place": ops.void,
}


class Run:
    """A toy's graph with updates spliced in, and with those absorbed that can be."""

    def __init__(self, model: Model, sites: tuple[Site, ...]) -> None:
        self.joined: list[tuple[str, str, Rounding]] = []
        self.apart = 0
        self.absorbed = Absorbed((), {})
        ids = batch(model)
        self.plain = self._run(model, ids, sites, absorb=False)
        self.before, self.apart = self.apart, 0
        self.result = self._run(model, ids, sites, absorb=True)

    def _run(self, model: Model, ids: Tensor, sites: tuple[Site, ...], absorb: bool) -> Tensor:
        def backend(graph_module: GraphModule, inputs: object) -> Callable[..., object]:
            graph = graph_module.graph
            found = find_sites(graph, H, LAYERS, keeps)
            update = UpdateOps(self.update)
            splice(graph, [found.points[site] for site in sites], update)
            if absorb:
                both = NormOps(UpdateOps(self.functional), UpdateOps(self.in_place))
                self.absorbed = absorb_norm(graph, update, both)
            graph.lint()
            graph_module.recompile()
            return graph_module.forward

        torch._dynamo.reset()
        own = ids.clone()
        torch._dynamo.mark_dynamic(own, 0)
        with torch.no_grad():
            result: Tensor = torch.compile(model, backend=backend, fullgraph=True)(own)
        return result

    def update(self, hidden: Tensor, residual: Tensor | None, site: str) -> None:
        self.apart += 1
        self._edit(hidden, residual, site)

    def _edit(self, hidden: Tensor, residual: Tensor | None, site: str) -> None:
        stream = hidden if residual is None else hidden + residual
        (which,) = (one for one in EVERY if str(one) == site)
        hidden += change(which, stream)

    def functional(
        self, hidden: Tensor, residual: Tensor, weight: Tensor, epsilon: float, how: int, site: str
    ) -> tuple[Tensor, Tensor]:
        self.joined.append(("functional", site, Rounding(how)))
        edited = hidden.clone()
        self._edit(edited, residual, site)
        out: tuple[Tensor, Tensor] = ops.FUNCTIONAL(edited, residual, weight, epsilon)
        return out

    def in_place(
        self, hidden: Tensor, residual: Tensor, weight: Tensor, epsilon: float, how: int, site: str
    ) -> None:
        self.joined.append(("in place", site, Rounding(how)))
        self._edit(hidden, residual, site)
        ops.VOID(hidden, residual, weight, epsilon)


def toy(add_norm: AddNorm) -> Model:
    torch.manual_seed(0)
    return pair(add_norm)


@pytest.mark.parametrize("form", FORMS)
def test_every_update_before_a_norm_joins_it(form: str) -> None:
    # The first block has nothing carried yet, so its norm adds nothing.
    alone = (Site("pre_attn", 0), Site("post_attn", 0))
    sites = tuple(site for site in EVERY if site not in alone and str(site) not in SHARED)
    done = Run(toy(FORMS[form]), sites)
    assert torch.equal(done.result, done.plain)
    assert done.absorbed == Absorbed(tuple(map(str, sites)), {})
    assert done.before == len(sites)
    assert done.apart == 0
    kind, how = ("in place", Rounding.KERNEL), Rounding.COMPILED
    expected = kind if form == "in place" else ("functional", how)
    assert done.joined == [(expected[0], str(site), expected[1]) for site in sites]


@pytest.mark.parametrize("form", FORMS)
def test_of_two_updates_at_one_place_the_second_joins(form: str) -> None:
    done = Run(toy(FORMS[form]), EVERY)
    assert torch.equal(done.result, done.plain)
    # The toy's first residual is a copy, and the edit reads what it was copied from.
    copied = {
        "post_attn[0]": "'fused_add_rms_norm_default' does not add exactly what the edit reads"
    }
    kept = copied if form == "functional" else {}
    assert done.absorbed.kept == kept | {
        "pre_attn[0]": "the stream is one tensor here, so no add-norm follows",
        **{
            f"post_block[{i}]": f"the edit at pre_attn[{i + 1}] comes between it and the norm"
            for i in range(LAYERS - 1)
        },
    }
    assert len(done.absorbed.sites) == len(EVERY) - LAYERS - len(kept)
    assert done.apart == LAYERS + len(kept)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (
            lambda: toy(ops.gemma),
            "the norm that follows is 'interv_toy::gemma_fused_add_rms_norm', "
            "not a plain add-RMSNorm",
        ),
        (
            lambda: toy(ops.partial),
            "the norm that follows takes the variance of a part of each row",
        ),
        (lambda: Model(SingleBlock), "the stream is one tensor here, so no add-norm follows"),
    ],
    ids=["another norm", "a part of each row", "one tensor"],
)
def test_another_norm_is_left_alone(model: Callable[[], Model], reason: str) -> None:
    sites = (Site("post_attn", 1), Site("post_block", 2))
    if reason.startswith("the stream"):
        sites = (Site("post_block", 1),)
    done = Run(model(), sites)
    assert torch.equal(done.result, done.plain)
    assert done.absorbed == Absorbed((), {str(site): reason for site in sites})
    assert done.apart == len(sites)


def by_hand(build: Callable[[torch.fx.Graph, list[torch.fx.Node]], object]) -> Absorbed:
    """Absorb in a graph of an update and what `build` puts behind it; run it before and after."""
    updates: list[str] = []

    def update(hidden: Tensor, residual: Tensor | None, site: str) -> None:
        updates.append(site)
        hidden += 1.0

    def joined(hidden: Tensor, residual: Tensor, *rest: object) -> tuple[Tensor, Tensor]:
        out: tuple[Tensor, Tensor] = ops.FUNCTIONAL(hidden + 1.0, residual, *rest[:2])
        return out

    def written(hidden: Tensor, residual: Tensor, *rest: object) -> None:
        hidden += 1.0
        ops.VOID(hidden, residual, *rest[:2])

    def graph() -> torch.fx.Graph:
        made = torch.fx.Graph()
        given = [made.placeholder(name) for name in ("x", "residual", "weight")]
        own = made.call_method("mul", (given[0], 2.0))
        flat = made.call_method("clone", (own,))
        view = made.call_method("view", (flat, -1, H))
        made.call_function(update, (view, given[1], "post_block[1]")).meta[SITE] = "post_block[1]"
        made.output(build(made, [view, *given[1:], flat]))
        return made

    plain, after = graph(), graph()
    found = absorb_norm(after, UpdateOps(update), NormOps(UpdateOps(joined), UpdateOps(written)))
    results = []
    for one in (plain, after):
        random = torch.Generator().manual_seed(0)
        inputs = [torch.randn(3, H, generator=random) for _ in range(2)]
        one.lint()
        module = GraphModule(torch.nn.Module(), one)
        results.append(module(*inputs, torch.full((H,), 1.5)))
    for left, right in zip(*results, strict=True):
        assert torch.equal(left, right)
    assert len(updates) == 1 + len(found.kept)
    return found


def _norm(made: torch.fx.Graph, x: object, residual: object, weight: object) -> torch.fx.Node:
    return made.call_function(ops.FUNCTIONAL, (x, residual, weight, 1e-5))


def _first(made: torch.fx.Graph, pair: torch.fx.Node) -> torch.fx.Node:
    return made.call_method("__getitem__", (pair, 0))


def test_a_keyword_is_an_argument_too() -> None:
    def build(made: torch.fx.Graph, v: list[torch.fx.Node]) -> object:
        named = {"x": v[0], "x_residual": v[1], "weight": v[2], "epsilon": 1e-5}
        return made.call_function(ops.FUNCTIONAL, (), named)

    assert by_hand(build) == Absorbed(("post_block[1]",), {})


def test_what_an_in_place_norm_wrote_may_be_read() -> None:
    def build(made: torch.fx.Graph, v: list[torch.fx.Node]) -> object:
        made.call_function(ops.VOID, (v[0], v[1], v[2], 1e-5))
        return (made.call_method("view", (v[3], -1)), v[1])

    assert by_hand(build) == Absorbed(("post_block[1]",), {})


REFUSED: dict[str, tuple[Callable[[torch.fx.Graph, list[torch.fx.Node]], object], str]] = {
    "read before": (
        lambda g, v: (g.call_method("sin", (v[0],)), *[_first(g, _norm(g, *v[:3]))]),
        "'sin' reads the edited value before the norm",
    ),
    "memory read before": (
        lambda g, v: (g.call_method("sin", (v[3],)), *[_first(g, _norm(g, *v[:3]))]),
        "'sin' reads the edited value before the norm",
    ),
    "read behind": (
        lambda g, v: (_first(g, _norm(g, *v[:3])), g.call_method("cos", (v[0],))),
        "'cos' reads the edited value behind the norm too",
    ),
    "memory read behind": (
        lambda g, v: (_first(g, _norm(g, *v[:3])), v[3]),
        "'output' reads the edited value behind the norm too",
    ),
    "residual written": (
        lambda g, v: (g.call_method("add_", (v[1], 1.0)), _first(g, _norm(g, *v[:3]))),
        "'add_' uses the residual between it and the norm",
    ),
    "other residual": (
        lambda g, v: (_first(g, _norm(g, v[0], g.call_method("neg", (v[2],)), v[2])),),
        "'fused_add_rms_norm_default' does not add exactly what the edit reads",
    ),
    "no norm": (lambda g, v: (v[2],), "no add-norm follows in this graph"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_joined_is_left_with_the_reason(name: str) -> None:
    build, reason = REFUSED[name]
    assert by_hand(build) == Absorbed((), {"post_block[1]": reason})
