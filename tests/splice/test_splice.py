"""Splice points of traced toy models: right by executing them, refused with the reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule

from interv.document.sites import SITES, Site
from interv.passes.captured.find_sites import FoundSites, find_sites
from interv.passes.captured.splice import UpdateOps, splice
from tests.splice import ops
from tests.splice.toys import (
    CACHED,
    LAYERS,
    VOCABULARY,
    Attention,
    Block,
    BorrowingBlock,
    Doubled,
    Folded,
    FourStreams,
    FromCast,
    FromEmbeddings,
    FromView,
    GatedBlock,
    H,
    InPlaceBlock,
    InPlaceSumBlock,
    LateGatedBlock,
    Looped,
    Model,
    NoAttentionBlock,
    ParallelBlock,
    PostNormBlock,
    ReusingBlock,
    SingleBlock,
    SkipModel,
    TwoStreams,
    Watched,
    edited,
    pair,
    watched_pair,
)
from tests.tolerances import FLOAT32

EVERY = tuple(Site(name, layer) for layer in range(LAYERS) for name in SITES)
SIDE_BY_SIDE = "its attention and its MLP read the same input, side by side"
# The norms of the fused pairs are written in the form that CUDA graphs have.
WHOLE: dict[str, Callable[[], Model]] = {
    "pair": lambda: pair(ops.plain),
    "pair, fused": lambda: pair(ops.functional),
    "pair, fused and donating": lambda: pair(ops.donating),
    "pair, fused in place": lambda: pair(ops.void),
    "single": lambda: Model(SingleBlock),
    "post norm": lambda: Model(PostNormBlock),
    "single, written in place": lambda: Model(InPlaceBlock),
    "single, summed in place": lambda: Model(InPlaceSumBlock),
    "single, cast and written over": lambda: Model(ReusingBlock),
    "single, with a shared block": lambda: borrowing(Attention()),
    "single from embeddings": lambda: FromEmbeddings(SingleBlock),
    "single from a cast": lambda: FromCast(SingleBlock),
    "single from a view": lambda: FromView(SingleBlock),
}


def borrowing(shared: Attention) -> Model:
    return Model(lambda: BorrowingBlock(shared))


def keeps(argument: object) -> bool:
    return argument == CACHED


def made(name: str) -> tuple[Model, Tensor]:
    torch.manual_seed(0)
    model = WHOLE[name]()
    return model, batch(model)


def batch(model: Model) -> Tensor:
    random = torch.Generator().manual_seed(1)
    if isinstance(model, FromEmbeddings):
        return torch.randn(5, H, generator=random)
    return torch.randint(0, VOCABULARY, (5,), generator=random)


def directions(site: Site) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(EVERY.index(site))
    u, v = torch.randn(2, H, generator=random)
    return u / u.norm(), v


def change(site: Site, stream: Tensor) -> Tensor:
    """Cap what the stream has along one direction and add another: no two sites commute."""
    u, v = directions(site)
    p = stream @ u
    return (p.clamp(-0.2, 0.3) - p)[:, None] * u + v


class Traced:
    """A model's graph as Dynamo captured it, spliced at some sites, and what ran."""

    def __init__(self, model: Model, ids: Tensor, sites: tuple[Site, ...] = ()) -> None:
        self.sites = sites
        self.reached: list[str] = []
        self.found = FoundSites()
        self.graph_module: GraphModule | None = None
        torch._dynamo.reset()
        torch._dynamo.mark_dynamic(ids, 0)
        with torch.no_grad():
            self.result = torch.compile(model, backend=self._backend, fullgraph=True)(ids)

    def _backend(self, graph_module: GraphModule, inputs: object) -> Callable[..., object]:
        self.found = find_sites(graph_module.graph, H, LAYERS, keeps)
        points = [self.found.points[site] for site in self.sites]
        splice(graph_module.graph, points, UpdateOps(self._update))
        graph_module.graph.lint()
        graph_module.recompile()
        self.graph_module = graph_module
        return graph_module.forward

    def _update(self, hidden: Tensor, residual: Tensor | None, site: str) -> None:
        self.reached.append(site)
        stream = hidden if residual is None else (hidden + residual).to(hidden.dtype)
        (which,) = (one for one in EVERY if str(one) == site)
        hidden += change(which, stream)


def near(got: Tensor, expected: Tensor) -> bool:
    return bool((got - expected).abs().max() <= 10 * FLOAT32 * expected.abs().max())


@pytest.mark.parametrize("name", WHOLE)
@torch.no_grad()
def test_every_site_is_found_and_edited_as_hooks_would(name: str) -> None:
    model, ids = made(name)
    traced = Traced(model, ids.clone(), EVERY)
    assert traced.found.missing == {}
    assert set(traced.found.points) == set(EVERY)
    # `post_block[L-1]` comes before `pre_attn[L]`, though both are at one place.
    assert traced.reached == [str(site) for site in EVERY]
    assert near(traced.result, edited(model, ids.clone(), change))


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("site", EVERY[:4], ids=str)
@torch.no_grad()
def test_one_site_is_edited_alone(name: str, site: Site) -> None:
    model, ids = made(name)
    traced = Traced(model, ids.clone(), (site,))

    def only(at: Site, stream: Tensor) -> Tensor:
        return change(at, stream) if at == site else torch.zeros_like(stream)

    assert traced.reached == [str(site)]
    assert near(traced.result, edited(model, ids.clone(), only))
    assert not near(traced.result, model(ids.clone()))


@pytest.mark.parametrize("name", WHOLE)
@torch.no_grad()
def test_without_an_edit_the_graph_is_the_model(name: str) -> None:
    model, ids = made(name)
    assert torch.equal(Traced(model, ids.clone()).result, model(ids.clone()))


@pytest.mark.parametrize("name", ["single from embeddings", "single from a view"])
@torch.no_grad()
def test_a_stream_that_is_an_input_is_copied_before_it_is_written(name: str) -> None:
    model, ids = made(name)
    given = ids.clone()
    traced = Traced(model, given, (Site("pre_attn", 0), Site("post_attn", 0)))
    assert torch.equal(given, ids)
    assert traced.graph_module is not None
    nodes = list(traced.graph_module.graph.nodes)
    (copy,) = (node for node in nodes if node.op == "call_method" and node.target == "clone")
    (source,) = copy.all_input_nodes
    order = {node: index for index, node in enumerate(nodes)}
    assert all(order[user] <= order[copy] for user in source.users)


@torch.no_grad()
def test_parallel_attention_has_no_post_attn() -> None:
    torch.manual_seed(0)
    model = Model(ParallelBlock)
    ids = batch(model)
    sites = tuple(site for site in EVERY if site.name != "post_attn")
    traced = Traced(model, ids, sites)
    assert traced.found.missing == {
        site: SIDE_BY_SIDE for site in EVERY if site.name == "post_attn"
    }
    assert traced.reached == [str(site) for site in sites]
    assert near(traced.result, edited(model, ids, change, post_attn=False))


@torch.no_grad()
def test_a_block_without_attention_has_no_post_attn() -> None:
    model = Model(NoAttentionBlock)
    missing = Traced(model, batch(model)).found.missing
    assert missing == {Site("post_attn", i): "this block has no attention" for i in range(LAYERS)}


@torch.no_grad()
def test_an_op_mixes_tokens_by_the_layer_it_is_given_and_not_by_its_name() -> None:
    graph_module = Traced(*made("single")).graph_module
    assert graph_module is not None
    missing = find_sites(graph_module.graph, H, LAYERS, lambda argument: False).missing
    assert missing == {Site("post_attn", i): "this block has no attention" for i in range(LAYERS)}


@pytest.mark.parametrize("make", [Looped, Doubled])
@torch.no_grad()
def test_blocks_that_run_twice_are_refused(make: type[Model]) -> None:
    model = make(SingleBlock)
    found = Traced(model, batch(model)).found
    assert found.points == {}
    assert found.missing == {
        site: f"block {site.layer} runs 2 times in a pass, so it is no one place" for site in EVERY
    }


@torch.no_grad()
def test_blocks_that_run_within_each_other_are_refused() -> None:
    model = Folded(SingleBlock)
    missing = Traced(model, batch(model)).found.missing
    reasons = {site.layer: reason for site, reason in missing.items() if site.name != "post_attn"}
    assert reasons == {
        0: "block 0 runs before and after something of block 1",
        1: "block 1 runs before and after something of block 0",
    }


@torch.no_grad()
def test_several_streams_side_by_side_are_refused() -> None:
    model = FourStreams(SingleBlock)
    missing = Traced(model, batch(model)).found.missing
    reason = missing[Site("post_block", 0)]
    assert reason.startswith("what crosses here is not one stream: '")
    assert reason.endswith("' is [4, T, 8]")


@pytest.mark.parametrize("make", [GatedBlock, LateGatedBlock])
@torch.no_grad()
def test_an_attention_output_that_is_read_elsewhere_is_refused(make: type[Block]) -> None:
    model = Model(make)
    missing = Traced(model, batch(model)).found.missing
    assert set(missing) == {Site("post_attn", i) for i in range(LAYERS)}
    for reason in missing.values():
        assert reason.startswith("the attention's output '")
        assert reason.endswith("' is read outside the stream too")


@torch.no_grad()
def test_more_values_than_a_pair_are_refused_by_name() -> None:
    model = SkipModel(SingleBlock)
    missing = Traced(model, batch(model)).found.missing
    reason = missing[Site("pre_attn", 1)]
    assert reason.startswith("3 values of the stream's shape cross here (first, second, ")
    assert {site.name for site in missing} >= {"pre_attn", "post_block"}


@pytest.mark.parametrize("form", ["single", "pair"])
@torch.no_grad()
def test_the_answer_is_edited_where_the_stream_of_some_layers_is_returned_too(form: str) -> None:
    torch.manual_seed(0)
    model = Watched(SingleBlock) if form == "single" else watched_pair(ops.functional)
    ids = batch(model)
    traced = Traced(model, ids.clone(), EVERY)
    assert traced.found.missing == {}
    assert traced.reached == [str(site) for site in EVERY]
    assert near(traced.result[0], edited(model, ids.clone(), change)[0])


@torch.no_grad()
def test_two_values_that_are_never_summed_are_refused() -> None:
    model = TwoStreams(SingleBlock)
    missing = Traced(model, batch(model)).found.missing
    reason = missing[Site("post_block", 1)]
    assert reason.endswith("cross here and are never summed")


@torch.no_grad()
def test_a_graph_of_another_width_or_depth_has_no_sites() -> None:
    model, ids = made("single")
    graph_module = Traced(model, ids).graph_module
    assert graph_module is not None
    assert find_sites(graph_module.graph, H + 1, LAYERS, keeps) == FoundSites()
    assert find_sites(graph_module.graph, H, LAYERS - 1, keeps) == FoundSites()
