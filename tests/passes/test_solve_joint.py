"""The pass of `conflict joint`: graphs, remarks and refusals word by word, and what graphs do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings, strategies as st

from interv.document.document import Document
from interv.document.selectors import holds
from interv.document.sites import Site
from interv.document.spec import Ablate, Cap, Everything, InPhase, Program, SiteRef, Slice, Token
from interv.errors import IntervError
from interv.load import load_text
from interv.passes.build import build
from interv.passes.fold_constants import fold_constants
from interv.passes.graph.context import Context
from interv.passes.graph.ir import Graph, execute, is_op, op_name, ops_of
from interv.passes.graph.ops import joint
from interv.passes.graph.show import show
from interv.passes.resolve_conflicts import resolve_conflicts
from interv.passes.resolve_sites import resolve_sites
from interv.passes.solve_joint import solve_joint
from tests.passes.small import MODEL, TOKENS, Fed, L, document, streams, tokens, vectors
from tests.passes.test_joint import Caps, nearest

FILES = sorted((Path(__file__).parent / "joint").glob("*.interv"))


def compiled(loaded: Document) -> tuple[Graph, Graph, Context]:
    """Return the graphs of the one program before and after the pass, and the pass's remarks."""
    program = loaded.spec.programs[0]
    ctx = Context(program.name, program.conflict, MODEL)
    graph = build(loaded, 0, vectors(), L)
    for one in (resolve_sites, resolve_conflicts, fold_constants):
        graph = one(graph, ctx)
    ctx.remarks.clear()
    return graph, solve_joint(graph, ctx), ctx


def outcome(text: str) -> str:
    """Return the graph of a document after the pass with its remarks, or the error."""
    try:
        _, graph, ctx = compiled(load_text(text, "p.interv", Path()))
    except IntervError as error:
        return str(error)
    remarks = (
        f"# {', '.join(origin.where for origin in remark.where)}: {remark.text}"
        for remark in ctx.remarks
    )
    return "\n".join([show(graph), *remarks])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_word_by_word(path: Path, golden: Callable[[Path, str], None]) -> None:
    golden(path.with_suffix(".txt"), f"{outcome(path.read_text(encoding='utf-8'))}\n")


def test_other_policies_stay_as_they_are() -> None:
    caps = (Ablate(at=AT, vector="v"), Ablate(at=AT, vector="w"))
    before, after, _ = compiled(document(Program(name="p", statements=caps)))
    assert after is before


def test_a_gate_elsewhere_reads_the_site_after_all_of_its_caps() -> None:
    text = """interv 1
vector v = "v.safetensors"
vector w = "w.safetensors"
program p {
  cap v at post_block[1] in [0, 1]
  steer v at post_block[2] gate w at post_block[1]
  cap w at post_block[1] in [0, 1]
  conflict joint
}
"""
    _, graph, _ = compiled(load_text(text, "p.interv", Path()))
    (probe,) = (node for node in ops_of(graph) if op_name(node) == "gate")
    assert is_op(probe.args[0], joint)
    result = execute(graph, streams(), tokens())
    w, v = (torch.from_numpy(vectors()[name].at(layer)) for name, layer in (("w", 1), ("v", 2)))
    weight = torch.sigmoid(result[Site("post_block", 1)] @ w)
    expected = streams()[Site("post_block", 2)] + weight[:, None] * v
    torch.testing.assert_close(result[Site("post_block", 2)], expected)


AT = SiteRef(name="post_block", layers=(1,))
selectors = st.sampled_from(
    [
        Everything(),
        Everything(),
        InPhase(phase="prompt"),
        Slice(phase="prompt", start=1),
        Token(ids=(0, 1)),
    ]
)
names = st.sampled_from(["v", "w", "same", "longer", "against", "skew", "one"])
# In hundredths: bounds that miss each other by less than float32 directions say are taken to meet.
numbers = st.integers(-300, 300).map(lambda hundredths: hundredths / 100)
ends = st.tuples(numbers, numbers).map(sorted)
caps_of = st.one_of(
    ends.flatmap(
        lambda b: st.builds(
            Cap, at=st.just(AT), vector=names, when=selectors, low=st.just(b[0]), high=st.just(b[1])
        )
    ),
    st.builds(Cap, at=st.just(AT), vector=names, when=selectors, high=numbers),
    st.builds(Ablate, at=st.just(AT), vector=names, when=selectors),
)
programs = st.builds(
    Program,
    name=st.just("p"),
    statements=st.lists(caps_of, min_size=2, max_size=4).map(tuple),
    conflict=st.just("joint"),
)


def caps_for(program: Program, token: Fed) -> Caps | None:
    """Return the caps of a program that hold for a token, None where there is none."""
    there = [one for one in program.statements if holds(one.when, *token)]
    if not there:
        return None
    rows = np.stack([vectors()[one.vector].at(1) for one in there])
    both = [
        (0.0, 0.0)
        if isinstance(one, Ablate)
        else (-np.inf if one.low is None else one.low, np.inf if one.high is None else one.high)
        for one in there
    ]
    lows, highs = (np.array(side) for side in zip(*both, strict=True))
    return Caps(rows / np.linalg.norm(rows, axis=1, keepdims=True), lows, highs)


def solved(program: Program) -> Graph:
    """Return the graph of a program that has a solution."""
    try:
        return compiled(document(program))[1]
    except IntervError as error:
        if error.code not in ("E414", "E415"):
            raise
        assume(False)
        raise


@given(programs)
@settings(deadline=None, max_examples=60)
def test_the_graph_makes_the_smallest_change(program: Program) -> None:
    graph = solved(program)
    given_streams = streams()
    result = execute(graph, given_streams, tokens())
    site = Site("post_block", 1)
    for h, after, token in zip(given_streams[site], result[site], TOKENS, strict=True):
        caps = caps_for(program, token)
        if caps is None:
            assert torch.equal(after, h)
            continue
        change, size = nearest(caps, h.numpy()[None])
        assert np.isfinite(size).all()
        np.testing.assert_allclose(after.numpy(), h.numpy() + change[0], atol=1e-5)
