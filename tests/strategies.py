"""Random specs, with every construct of the language."""

from __future__ import annotations

from hypothesis import strategies as st

from interv.document.positions import ends_of
from interv.document.spec import (
    Ablate,
    AdapterDecl,
    After,
    And,
    Apply,
    At,
    Before,
    Between,
    Cap,
    Capture,
    Everything,
    Gate,
    InPhase,
    KvPolicy,
    LayerRange,
    Not,
    Or,
    PositionRange,
    Positions,
    Program,
    Replace,
    RequestExpression,
    RequestTerm,
    Rotate,
    SinkDecl,
    SiteRef,
    Slice,
    Spec,
    Steer,
    Stride,
    Token,
    VectorDecl,
)
from interv.dsl.clauses import DECLARATIONS, STATEMENTS

CLAUSE_WORDS = ("at", "by", "when", "gate", "keep", "norm", "prompt", "token", "not", "unit")
FOLLOWING_WORDS = ("before", "between", "and")
WORDS = (*STATEMENTS, *DECLARATIONS, *CLAUSE_WORDS, *FOLLOWING_WORDS, "x1")
names = st.one_of(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True), st.sampled_from(WORDS)
)
program_names = names.filter(lambda name: name != "off")
texts = st.text(max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)
fractions = st.floats(0, 1)
rates = st.floats(0, 1, exclude_min=True)
layer_numbers = st.integers(-40, 200)
indices = st.integers(-9, 9)
phases = st.sampled_from(["prompt", "generated"])
slices = st.builds(Slice, phase=phases, start=st.none() | indices, stop=st.none() | indices)
strides = st.builds(
    Stride,
    phase=phases,
    start=st.none() | indices,
    stop=st.none() | indices,
    step=st.integers(1, 3),
)
position_lists = st.builds(
    Positions,
    phase=phases,
    items=st.one_of(
        st.lists(indices, min_size=2, max_size=4),
        st.lists(st.builds(PositionRange, first=indices, last=indices), min_size=1, max_size=2),
        st.tuples(indices, st.builds(PositionRange, first=indices, last=indices)),
    ).map(tuple),
)


def leaves(token_ids: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Selectors without parts."""
    return st.one_of(
        st.just(Everything()),
        st.builds(InPhase, phase=phases),
        st.builds(At, phase=phases, index=indices),
        slices,
        strides,
        position_lists,
        st.builds(Token, ids=st.lists(token_ids, min_size=1, max_size=3).map(tuple)),
    )


def combine(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Selectors made of others."""
    terms = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.one_of(
        st.builds(Not, term=inner), st.builds(And, terms=terms), st.builds(Or, terms=terms)
    )


def followers(token_ids: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Selectors that follow markers."""
    sequences = st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple)
    marks = st.builds(Token, ids=st.lists(token_ids | sequences, min_size=1, max_size=2).map(tuple))
    return st.one_of(
        st.builds(After, mark=marks),
        st.builds(Before, mark=marks),
        st.builds(Between, start=marks, end=marks),
    )


any_selectors = st.recursive(
    leaves(st.integers(0, 9) | texts) | followers(st.integers(0, 9) | texts), combine, max_leaves=6
)


def _runnable(leaf: object) -> bool:
    """Say whether every index of `generated` counts from its start."""
    if isinstance(leaf, At) and leaf.phase == "generated":
        return leaf.index >= 0
    if isinstance(leaf, Slice | Stride) and leaf.phase == "generated":
        return (leaf.start or 0) >= 0 and (leaf.stop or 0) >= 0
    if isinstance(leaf, Positions) and leaf.phase == "generated":
        return all(n >= 0 for item in leaf.items for n in ends_of(item))
    return True


runnable_selectors = st.recursive(
    leaves(st.integers(0, 3)).filter(_runnable), combine, max_leaves=6
)
selectors_along = st.recursive(
    leaves(st.integers(0, 3)).filter(_runnable) | followers(st.integers(0, 3)),
    combine,
    max_leaves=6,
)
selectors_with_texts = st.recursive(
    leaves(st.integers(0, 4) | st.text("ab", max_size=4)).filter(_runnable), combine, max_leaves=6
)

sites = st.builds(
    SiteRef,
    name=st.sampled_from(["pre_attn", "post_attn", "post_block"]),
    layers=st.lists(
        st.one_of(
            st.just("*"),
            layer_numbers,
            st.builds(LayerRange, first=layer_numbers, last=layer_numbers),
        ),
        min_size=1,
        max_size=3,
    ).map(tuple),
)
bounds = st.none() | numbers
_opened = {
    "vector": names,
    "site": st.none() | sites,
    "absolute": st.booleans(),
    "cosine": st.booleans(),
}
gates = st.one_of(
    st.none(),
    st.builds(Gate, sharpness=numbers, threshold=numbers, **_opened),
    st.builds(Gate, above=bounds, below=bounds, **_opened),
)
common = {"at": sites, "when": any_selectors, "gate": gates, "decay": st.just(1.0) | rates}
statements = st.one_of(
    st.builds(
        Steer,
        vector=names,
        scale=numbers,
        by_norm=st.booleans(),
        keep_norm=st.booleans(),
        **common,
    ),
    st.builds(Cap, vector=names, low=bounds, high=bounds, strength=fractions, **common),
    st.builds(Ablate, vector=names, strength=fractions, keep_norm=st.booleans(), **common),
    st.builds(
        Ablate,
        vector=names,
        strength=numbers.map(abs),
        over=st.just(True),
        keep_norm=st.booleans(),
        **common,
    ),
    st.builds(Replace, vector=names, scale=numbers, strength=fractions, **common),
    st.builds(Replace, vector=names, by=names, strength=fractions, **common),
    st.builds(
        Rotate,
        vector=names,
        towards=names,
        to=st.floats(-360, 360),
        adaptive=st.booleans(),
        strength=fractions,
        **common,
    ),
    st.builds(Apply, adapter=names, scale=numbers, **common),
    st.builds(
        Capture,
        at=sites,
        tokens=any_selectors,
        to=names,
        after=st.booleans(),
        rank=st.none() | st.integers(1, 999),
        sample=st.none() | st.floats(0, 1, exclude_min=True),
        keep=st.sampled_from(["all", "marked"]),
    ),
)
scalars = st.one_of(st.booleans(), st.integers(-(2**31) + 1, 2**31 - 1), numbers, texts, names)
options = st.dictionaries(names, scalars, max_size=3).map(lambda found: tuple(found.items()))


def _unique(items: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.lists(items, max_size=3, unique_by=lambda item: item.name).map(tuple)


file_of = {"name": names, "path": texts, "key": st.none() | texts, "unit": st.booleans()}
conflicts = st.sampled_from(["error", "priority", "sequential", "sum", "joint"])
specs = st.builds(
    Spec,
    vectors=_unique(
        st.builds(VectorDecl, **file_of, row=st.none() | st.integers(0, 2**31 - 1))
        | st.builds(VectorDecl, **file_of, rows=st.sampled_from(["blocks", "hidden_states"]))
    ),
    adapters=_unique(st.builds(AdapterDecl, name=names, path=texts)),
    programs=_unique(
        st.builds(
            Program,
            name=program_names,
            statements=st.lists(statements, max_size=3).map(tuple),
            conflict=conflicts,
            kv=st.none() | st.booleans(),
        )
    ),
    sinks=_unique(
        st.builds(
            SinkDecl,
            name=names,
            kind=names,
            args=st.lists(scalars, max_size=2).map(tuple),
            options=options,
        )
    ),
    kv=st.none() | st.builds(KvPolicy, policy=names, options=options),
    conflict=st.none() | conflicts,
    default=st.none() | names,
)
expressions = st.lists(
    st.builds(RequestTerm, program=program_names, multiplier=numbers),
    max_size=4,
    unique_by=lambda term: term.program,
).map(lambda terms: RequestExpression(terms=tuple(terms)))
