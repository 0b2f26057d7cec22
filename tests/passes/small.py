"""A small model, its vectors and tokens, random programs, and a plain program that means them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from interv.document import Document
from interv.model import ModelFacts
from interv.passes.build import build
from interv.passes.constants import Vector
from interv.passes.context import Context
from interv.passes.ops import Streams
from interv.passes.pipeline import Stage, run_passes
from interv.passes.select import Tokens
from interv.selectors import holds
from interv.sites import SITES, Site
from interv.spec import (
    Ablate,
    And,
    At,
    Cap,
    Everything,
    InPhase,
    LayerRange,
    Not,
    Or,
    Program,
    Selector,
    SiteRef,
    Slice,
    Spec,
    Statement,
    Steer,
    Token,
    VectorDecl,
)
from interv.vectors.directions import Directions, make_directions

H, L = 16, 4
MODEL = ModelFacts("small", "SmallForCausalLM", H, L)

# (position, prompt length, token id): prompts of 1, 3 and 6 tokens, their ends, and beyond.
TOKENS = tuple(
    (position, length, (7 * position + length) % 5)
    for length in (1, 3, 6)
    for position in range(length + 4)
)


@cache
def tokens() -> Tokens:
    return Tokens(*(torch.tensor(column) for column in zip(*TOKENS, strict=True)))


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


def document(program: Program) -> Document:
    decls = tuple(VectorDecl(name=name, path=f"{name}.safetensors") for name in vectors())
    return Document(Spec(vectors=decls, programs=(program,)), Path())


def stages(program: Program) -> tuple[Stage, ...]:
    made = vectors()
    graph = build(document(program), 0, made, L)
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


def reference(program: Program, h: Tensor, site: Site) -> tuple[Tensor, float]:
    """Run a program at one site, token by token, with no code of the compiler.

    Returns the stream [T, H] and the sum of the norms of all that was added, for tolerances.
    """
    edits = [
        one
        for one in program.statements
        if one.at.name == site.name and site.layer in layers_of(one.at)
    ]
    rows, norm = [], 1.0
    for row, token in zip(h, TOKENS, strict=True):
        out, norm = _token(edits, program.conflict, row, token, site.layer, norm)
        rows.append(out)
    return torch.stack(rows), norm + float(h.norm(dim=-1).max())


def _token(
    edits: list[Statement],
    conflict: str,
    row: Tensor,
    token: tuple[int, int, int],
    layer: int,
    norm: float,
) -> tuple[Tensor, float]:
    out, added = row, 0.0
    for edit in edits:
        if not holds(edit.when, *token):
            continue
        change = _change(edit, row if conflict == "sum" else out, layer)
        out, added = out + change, added + float(change.norm())
        if conflict == "priority":
            break
    return out, max(norm, added)


def _change(edit: Statement, h: Tensor, layer: int) -> Tensor:
    v = torch.from_numpy(vectors()[edit.vector].at(layer))
    if isinstance(edit, Steer):
        return edit.scale * v
    u = v / v.norm()
    p = torch.dot(h, u)
    if isinstance(edit, Ablate):
        return -edit.strength * p * u
    low = -np.inf if edit.low is None else edit.low
    high = np.inf if edit.high is None else edit.high
    return edit.strength * (min(max(p.item(), low), high) - p) * u


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
_strengths = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
_shared = {
    "at": places,
    "vector": st.sampled_from(sorted(vectors())),
    "when": st.one_of(common, common, selectors),
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


statements = st.one_of(
    st.builds(Steer, scale=_scales, **_shared),
    _cap(strength=_strengths, **_shared),
    st.builds(Ablate, strength=_strengths, **_shared),
)
programs = st.builds(
    Program,
    name=st.just("p"),
    statements=st.lists(statements, min_size=1, max_size=12).map(tuple),
    conflict=st.sampled_from(["sequential", "sum", "priority", "error"]),
)
