"""A small model, its vectors and tokens, random programs, and a plain program that means them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from interv.document.document import Document
from interv.document.selectors import holds
from interv.document.sites import SITES, Site
from interv.document.spec import (
    Ablate,
    AdapterDecl,
    And,
    Apply,
    At,
    Cap,
    Everything,
    Gate,
    InPhase,
    LayerRange,
    Not,
    Or,
    Positions,
    Program,
    Replace,
    Rotate,
    Selector,
    SiteRef,
    Slice,
    Spec,
    Statement,
    Steer,
    Stride,
    Token,
    VectorDecl,
)
from interv.model import ModelFacts
from interv.passes.build import build
from interv.passes.graph.along import Whole
from interv.passes.graph.context import Context
from interv.passes.graph.directions import Adapter, Vector
from interv.passes.graph.ops import Streams
from interv.passes.graph.selector_masks import Tokens
from interv.passes.pipeline import Stage, run_passes
from interv.vectors.directions import Directions, make_directions
from interv.vectors.updates import EVERY, Adapter as LoadedAdapter, LinearParts, LowRankParts
from tests.passes.lengths import kept, opened, openings
from tests.passes.planes import turned
from tests.strategies import followers

H, L = 16, 4
MODEL = ModelFacts("small", "SmallForCausalLM", H, L)

Fed: TypeAlias = tuple[int, int, int, tuple[int, ...]]
REQUESTS = {
    length: tuple((7 * position + length) % 5 for position in range(length + 4))
    for length in (1, 3, 6)
}
# (position, prompt length, token id, the ids before it): prompts of 1, 3 and 6 tokens, their ends,
# and beyond.
TOKENS = tuple(
    (position, length, token_id, ids[:position])
    for length, ids in REQUESTS.items()
    for position, token_id in enumerate(ids)
)


@cache
def tokens() -> Tokens:
    columns = [torch.tensor(one) for one in zip(*(token[:3] for token in TOKENS), strict=True)]
    first = torch.arange(len(TOKENS)) - columns[0]
    return Tokens(*columns, Whole(columns[2], first))


def streams(seed: int = 0) -> Streams:
    made = torch.Generator().manual_seed(seed)
    return {
        Site(name, layer): torch.randn(len(TOKENS), H, dtype=torch.float64, generator=made)
        for layer in range(L)
        for name in SITES
    }


def directions(name: str, rows: np.ndarray) -> Directions:
    found = {i: row.astype(np.float32) for i, row in enumerate(rows)} if rows.ndim == 2 else rows
    return make_directions(name, Path(f"{name}.safetensors"), "safetensors", found)


@cache
def vectors() -> dict[str, Vector]:
    """Make directions that are repeated, parallel, antiparallel, skew and nearly the same."""
    rng = np.random.default_rng(0)
    v, w = rng.normal(size=(2, L, H))
    rows = {
        "v": v,
        "w": w,
        "same": v,
        "longer": 3 * v,
        "against": -2 * v,
        "skew": v + 0.5 * w,
        "close": v + 1e-3 * w,
        "one": rng.normal(size=H).astype(np.float32),
    }
    return {name: Vector(name, directions(name, row)) for name, row in rows.items()}


@cache
def adapters() -> dict[str, Adapter]:
    """Make one adapter of rank 3 for every layer."""
    rng = np.random.default_rng(1)
    read, write = rng.normal(size=(2, 3, H)).astype(np.float32) / 4
    parts = {EVERY: LowRankParts(read, rng.normal(size=3).astype(np.float32), write)}
    loaded = LoadedAdapter("low", Path("low"), "plain", "low_rank", H, 3, parts)
    return {"low": Adapter("low", loaded), **linear_maps()}


def linear_maps() -> dict[str, Adapter]:
    """Make one full linear map for every layer, and one that differs from layer to layer."""
    rng = np.random.default_rng(2)
    near = np.eye(H) + rng.normal(size=(L, H, H)) / 8
    offset = rng.normal(size=(L, H))
    each = zip(near.astype(np.float32), offset.astype(np.float32), strict=True)
    parts = {layer: LinearParts(*one) for layer, one in enumerate(each)}
    found = {"each": parts, "full": {EVERY: LinearParts(parts[0].weight, None)}}
    return {
        name: Adapter(name, LoadedAdapter(name, Path(name), "plain", "linear", H, None, part))
        for name, part in found.items()
    }


def indices() -> Tensor:
    """Return how many generated tokens come before each token."""
    return torch.tensor([max(0, position - length) for position, length, *_ in TOKENS])


def document(program: Program) -> Document:
    decls = tuple(VectorDecl(name=name, path=f"{name}.safetensors") for name in vectors())
    known = tuple(AdapterDecl(name=name, path=name) for name in adapters())
    return Document(Spec(vectors=decls, adapters=known, programs=(program,)), Path())


def stages(program: Program) -> tuple[Stage, ...]:
    graph = build(document(program), 0, vectors(), L, adapters())
    return run_passes(graph, Context(program.name, program.conflict, MODEL))


def layers_of(at: SiteRef) -> list[int]:
    found: list[int] = []
    for item in at.layers:
        match item:
            case LayerRange():
                found += range(item.first % L, item.last % L + 1)
            case "*":
                found += range(L)
            case _:
                found.append(int(item) % L)
    return found


def reference(program: Program, given: Streams) -> tuple[Streams, dict[Site, float]]:
    """Run a program on every site's stream, token by token, with no code of the compiler.

    Returns the streams [T, H] and for each the largest norm on the way, for tolerances.
    """
    rows: dict[Site, list[Tensor]] = {site: [] for site in given}
    norms = {site: float(h.norm(dim=-1).max()) for site, h in given.items()}
    for i, token in enumerate(TOKENS):
        made = _Token(program, {site: h[i] for site, h in given.items()}, token)
        for site in given:
            rows[site].append(made.after[site])
            norms[site] = max(norms[site], made.norms.get(site, 0.0))
    return {site: torch.stack(found) for site, found in rows.items()}, norms


class _Token:
    """One token while a program's statements are applied to it, in the order they are listed."""

    def __init__(self, program: Program, streams: Streams, token: Fed) -> None:
        self.before, self.after, self.norms = streams, dict(streams), dict[Site, float]()
        self.policy, self.taken = program.conflict, set[Site]()
        self.index = max(0, token[0] - token[1])
        for edit in program.statements:
            if holds(edit.when, *token):
                sites = [Site(edit.at.name, layer) for layer in layers_of(edit.at)]
                changes = {site: self.change(edit, site) for site in sites}
                for site, change in changes.items():
                    self.apply(site, change)

    def reads(self, site: Site) -> Tensor:
        return (self.before if self.policy == "sum" else self.after)[site]

    def apply(self, site: Site, change: Tensor) -> None:
        if self.policy == "priority" and site in self.taken:
            return
        self.taken.add(site)
        self.after[site] = self.after[site] + change
        self.norms[site] = self.norms.get(site, 0.0) + float(change.norm())

    def change(self, edit: Statement, site: Site) -> Tensor:
        weight = self.weight(edit, site) * edit.decay**self.index
        return _change(edit, self.reads(site), site.layer, weight)

    def weight(self, edit: Statement, site: Site) -> float:
        if edit.gate is None:
            return 1.0
        at = edit.gate.site
        probed = site if at is None else Site(at.name, layers_of(at)[0])
        # A site that another statement took first is left as it was by this one's statements.
        w = torch.from_numpy(vectors()[edit.gate.vector].at(probed.layer))
        return opened(edit.gate, self.reads(probed), w)


def _change(edit: Statement, h: Tensor, layer: int, weight: float) -> Tensor:
    if isinstance(edit, Apply) and adapters()[edit.adapter].linear:
        full = adapters()[edit.adapter].map_at(layer)
        weight_, bias = (torch.from_numpy(part).double() for part in (full.weight, full.bias))
        return weight * edit.scale * (weight_ @ h + bias - h)
    if isinstance(edit, Apply):
        rows = adapters()[edit.adapter].at(layer)
        return weight * edit.scale * (rows.read @ h + rows.bias) @ rows.write
    v = torch.from_numpy(vectors()[edit.vector].at(layer))
    match edit:
        case Steer():
            change = edit.scale * h.norm() * v / v.norm() if edit.by_norm else edit.scale * v
            return kept(h, weight * change) if edit.keep_norm else weight * change
        case Replace(by=None):
            return weight * edit.strength * (edit.scale * v - h)
        case Replace(by=str(by)):
            other = torch.from_numpy(vectors()[by].at(layer))
            return weight * edit.strength * torch.dot(h, v) / torch.dot(v, v) * (other - v)
        case Rotate():
            other = torch.from_numpy(vectors()[edit.towards].at(layer))
            return weight * edit.strength * turned(edit, h, v, other)
    u = v / v.norm()
    p = torch.dot(h, u)
    if isinstance(edit, Ablate):
        change = -weight * edit.strength * p * u
        return kept(h, change) if edit.keep_norm else change
    low = -np.inf if edit.low is None else edit.low
    high = np.inf if edit.high is None else edit.high
    return weight * edit.strength * (min(max(p.item(), low), high) - p) * u


phases = st.sampled_from(["prompt", "generated"])
_ends = st.one_of(st.none(), st.integers(0, 4))
_prompt_ends = st.one_of(st.none(), st.integers(-4, 4))
atoms: st.SearchStrategy[Selector] = st.one_of(
    st.just(Everything()),
    st.builds(InPhase, phase=phases),
    st.builds(At, phase=st.just("prompt"), index=st.integers(-3, 4)),
    st.builds(At, phase=st.just("generated"), index=st.integers(0, 3)),
    st.builds(Slice, phase=st.just("prompt"), start=_prompt_ends, stop=_prompt_ends),
    st.builds(Slice, phase=st.just("generated"), start=_ends, stop=_ends),
    st.builds(Stride, phase=phases, start=_ends, step=st.integers(1, 3)),
    st.builds(Positions, phase=phases, items=st.tuples(st.integers(0, 3), st.integers(0, 4))),
    st.builds(Token, ids=st.lists(st.integers(0, 6), min_size=1, max_size=3).map(tuple)),
)
_groups = {"min_size": 2, "max_size": 3}
selectors: st.SearchStrategy[Selector] = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.builds(Not, term=inner),
        st.builds(And, terms=st.lists(inner, **_groups).map(tuple)),
        st.builds(Or, terms=st.lists(inner, **_groups).map(tuple)),
    ),
    max_leaves=4,
)
along: st.SearchStrategy[Selector] = st.recursive(
    st.one_of(followers(st.integers(0, 4)), followers(st.integers(0, 4)), atoms),
    lambda inner: st.builds(And, terms=st.lists(inner, **_groups).map(tuple)),
    max_leaves=2,
)
# Few different ones, so that edits meet, fold and exclude each other often.
common = st.sampled_from(
    [
        Everything(),
        InPhase(phase="prompt"),
        InPhase(phase="generated"),
        At(phase="prompt", index=-1),
        Slice(phase="generated", start=1),
    ]
)
places = st.sampled_from(
    [
        SiteRef(name="post_block", layers=(1,)),
        SiteRef(name="post_block", layers=(1,)),
        SiteRef(name="post_block", layers=("*",)),
        SiteRef(name="post_block", layers=(LayerRange(first=1, last=-1),)),
        SiteRef(name="pre_attn", layers=(1, -1)),
    ]
)
_scales = st.one_of(st.just(0.0), st.sampled_from([1.0, 1.5, -1.0]), st.floats(-8, 8))
_shares = st.one_of(st.sampled_from([0.0, 1.0, 0.1, -0.25]), st.floats(-2, 2))
_over = st.sampled_from([0.5, 1.5, 2.0, 3.25])
_strengths = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
_shared = {
    "at": places,
    "vector": st.sampled_from(sorted(vectors())),
    "when": st.one_of(common, common, common, selectors, along),
}


def _cap(**fields: object) -> st.SearchStrategy[Cap]:
    bounds = st.tuples(st.floats(-3, 3), st.floats(-3, 3)).map(sorted)
    closed = bounds.flatmap(
        lambda b: st.builds(Cap, low=st.just(b[0]), high=st.just(b[1]), **fields)
    )
    return st.one_of(
        closed,
        st.builds(Cap, low=st.floats(-3, 3), **fields),
        st.builds(Cap, high=st.floats(-3, 3), **fields),
        st.builds(Cap, low=st.just(-1e30), high=st.just(1e30), **fields),
    )


# Of the sites above, the first in a forward pass is `post_block[0]`.
_gates = st.one_of(
    st.none(),
    st.none(),
    st.builds(
        Gate,
        vector=st.sampled_from(sorted(vectors())),
        site=st.sampled_from(
            [
                None,
                SiteRef(name="pre_attn", layers=(0,)),
                SiteRef(name="post_block", layers=(0,)),
            ]
        ),
        sharpness=st.sampled_from([0.5, 1.0, -2.0]),
        threshold=st.floats(-1, 1),
    ),
    st.sampled_from([(0.3, None), (None, 0.6), (0.07, 0.6), (None, None)]).flatmap(
        lambda bounds: openings(bounds, st.sampled_from(sorted(vectors())))
    ),
)
_gated = {**_shared, "gate": _gates, "decay": st.sampled_from([1.0, 1.0, 0.5, 0.9])}
_placed = {key: value for key, value in _gated.items() if key != "vector"}
# Pairs that span a plane: what is across the first of them is no rounding error.
PLANES = (("v", "w"), ("skew", "v"), ("against", "one"), ("one", "v"))
_turns = st.sampled_from(PLANES).flatmap(
    lambda pair: st.builds(
        Rotate,
        towards=st.just(pair[1]),
        to=st.sampled_from([0.0, 30.0, 90.0, -135.0, 360.0]) | st.floats(-360, 360),
        adaptive=st.booleans(),
        strength=_strengths,
        **{**_gated, "vector": st.just(pair[0])},
    )
)
statements = st.one_of(
    st.builds(Steer, scale=_scales, **_gated),
    _cap(strength=_strengths, **_gated),
    st.builds(Ablate, strength=_strengths, **_gated),
    st.builds(Steer, scale=_scales, keep_norm=st.just(True), **_gated),
    st.builds(Steer, scale=_shares, by_norm=st.just(True), keep_norm=st.booleans(), **_gated),
    st.builds(Ablate, strength=_strengths, keep_norm=st.just(True), **_gated),
    st.builds(Ablate, strength=_over, over=st.just(True), keep_norm=st.booleans(), **_gated),
    st.builds(Replace, scale=_scales, strength=_strengths, **_gated),
    st.builds(Replace, by=st.sampled_from(["v", "w", "one"]), strength=_strengths, **_gated),
    _turns,
    st.builds(Apply, adapter=st.just("low"), scale=_scales, **_placed),
)
maps = st.builds(
    Apply, adapter=st.sampled_from(["full", "each"]), scale=st.floats(-2, 2), **_placed
)
programs_with_maps = st.builds(
    Program,
    name=st.just("p"),
    statements=st.tuples(st.lists(maps, min_size=1, max_size=2), st.lists(statements, max_size=6))
    .map(lambda parts: [*parts[0], *parts[1]])
    .map(tuple),
    conflict=st.sampled_from(["sequential", "sum", "priority", "error"]),
)
programs = st.builds(
    Program,
    name=st.just("p"),
    statements=st.lists(statements, min_size=1, max_size=12).map(tuple),
    conflict=st.sampled_from(["sequential", "sum", "priority", "error"]),
)
