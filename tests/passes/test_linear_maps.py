"""Programs with full linear maps: what they mean, what they may not come after, what names them."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings

from interv.codegen.bundle import Bundle
from interv.codegen.emit import emit
from interv.codegen.update import fused_update
from interv.document.spec import Program
from interv.errors import IntervError, each
from interv.load import load_text
from interv.passes.build import build
from interv.passes.graph.column import Kind
from interv.passes.graph.context import Context
from interv.passes.graph.directions import Adapter
from interv.passes.graph.ir import execute
from interv.passes.graph.selector_masks import select
from interv.passes.pipeline import Stage, run_passes
from interv.passes.place import place
from interv.vectors.updates import LinearParts
from tests.passes.small import (
    MODEL,
    TOKENS,
    L,
    adapters,
    indices,
    programs_with_maps,
    reference,
    stages,
    streams,
    tokens,
    vectors,
)
from tests.tolerances import FLOAT32_BANK, FLOAT64

HEAD = "\n".join(f'vector {name} = "{name}.safetensors"' for name in ("v", "w", "one"))
HEAD = f'interv 1\n{HEAD}\nadapter full = "full"\nadapter each = "each"\n'


def passed(program: Program) -> tuple[Stage, ...]:
    try:
        return stages(program)
    except IntervError as error:
        if not {one.code for one in each(error)} <= {"E401", "E417"}:
            raise
        assume(False)
        raise


def built(text: str, known: dict[str, Adapter] | None = None) -> tuple[Stage, ...]:
    document = load_text(f"{HEAD}{text}", "map.interv", Path())
    program = document.spec.programs[0]
    graph = build(document, 0, vectors(), L, known or adapters())
    return run_passes(graph, Context(program.name, program.conflict, MODEL))


def emitted(done: tuple[Stage, ...], name: str = "p") -> Bundle:
    return emit(place({name: done[-1].graph}, {name: "sequential"}, MODEL), None)


@given(programs_with_maps)
@settings(deadline=None)
def test_each_pass_and_the_fused_update_are_the_program(program: Program) -> None:
    done = passed(program)
    expected, norms = reference(program, streams())
    # A map may make a stream longer before a later edit takes that away again.
    norms = {site: 4 * norm for site, norm in norms.items()}
    result = execute(done[-1].graph, streams(), tokens())
    for site, h in expected.items():
        assert (result[site] - h).abs().max() <= FLOAT64 * norms[site]
    bundle = emit(place({"p": done[-1].graph}, {"p": program.conflict}, MODEL), None)
    masks = torch.stack([select(tokens(), one) for one in bundle.selectors] or [torch.zeros(1)])
    kept = torch.full((len(TOKENS), bundle.gates), float("nan"), dtype=torch.float64)
    for table in bundle.sites:
        h = streams()[table.site]
        got = fused_update(h, table, "p", masks, kept, indices())
        assert (got - expected[table.site]).abs().max() <= FLOAT32_BANK * norms[table.site]
        idle = ~masks[[c.selector for c in table.programs["p"]]].any(0)
        assert torch.equal(got[idle], h[idle])


def test_a_map_is_one_column_and_is_kept_once_a_site() -> None:
    done = built(
        "program p {\n  apply full at post_block[*] scale 0.5 when prompt\n"
        "  apply full at post_block[1] scale 0.25 when generated\n"
        "  steer v at post_block[1]\n}\n"
    )
    bundle = emitted(done)
    assert [len(table.maps) for table in bundle.sites] == [1] * L
    assert len({id(table.maps[0]) for table in bundle.sites}) == 1
    first, second, third = bundle.sites[1].programs["p"]
    zero = bundle.sites[1].bank[first.b]
    assert not zero.any()
    assert (first.kind, first.a, first.alpha, first.store) == (Kind.LINEAR, -1, 0.5, 0)
    assert (second.kind, second.alpha, second.b, second.store) == (Kind.LINEAR, 0.25, first.b, 0)
    assert (third.kind, third.store) == (Kind.ADD, -1)
    assert bundle.stores("p") == 0
    back: Bundle = pickle.loads(pickle.dumps(bundle))
    assert (back.contents, back.structure) == (bundle.contents, bundle.structure)
    assert back.sites[1].maps[0].weight.tobytes() == bundle.sites[1].maps[0].weight.tobytes()


def test_a_map_decides_the_contents_and_not_the_structure() -> None:
    text = "program p {\n  apply each at post_block[1] scale 0.5\n}\n"
    other = dict(adapters())
    loaded = other["each"].loaded
    parts = {i: LinearParts(-part.weight, part.bias) for i, part in loaded.parts.items()}
    other["each"] = Adapter("each", replace(loaded, parts=parts))
    one, again, two = (emitted(built(text, known)) for known in (None, None, other))
    assert one.contents == again.contents
    assert one.contents != two.contents
    assert one.structure == two.structure


def test_another_program_with_another_map_changes_no_contents() -> None:
    texts = [
        f"program {name} {{\n  apply {adapter} at post_block[1]\n}}\n"
        for name, adapter in (("q", "full"), ("p", "each"))
    ]
    graphs = {name: built(text)[-1].graph for name, text in zip(("q", "p"), texts, strict=True)}
    both = emit(place(graphs, dict.fromkeys(graphs, "sequential"), MODEL), None)
    alone = emitted(built(texts[1]))
    assert both.sites[0].programs["p"][0].store == 1
    assert both.contents["p"] == alone.contents["p"]


def test_a_scale_of_zero_is_dropped() -> None:
    done = built("program p {\n  apply full at post_block[1] scale 0\n}\n")
    assert emitted(done).sites == ()
    assert [one.text for one in done[-1].remarks] == ["dropped: scale 0"]


FINE = {
    "other tokens before": """
  steer v at post_block[1] when prompt
  apply full at post_block[1] when generated
""",
    "a gate of an earlier site": """
  apply full at post_block[1] gate v at post_block[0]
  cap v at post_block[1] in [-1, 1] gate w
""",
    "priority": """
  steer v at post_block[1] when prompt
  apply full at post_block[1]
  conflict priority
""",
    "joint beside it": """
  apply full at post_block[1]
  cap v at post_block[2] in [-1, 1]
  conflict joint
""",
    "a gate for a later site behind it": """
  apply full at post_block[1]
  steer v at post_block[2] gate w at post_block[1]
""",
}


@pytest.mark.parametrize("text", FINE.values(), ids=FINE)
def test_what_a_map_may_come_after(text: str) -> None:
    done = built(f"program p {{{text}}}\n")
    columns = [one for table in emitted(done).sites for one in table.programs["p"]]
    assert Kind.LINEAR in {one.kind for one in columns}
    program = load_text(f"{HEAD}program p {{{text}}}\n", "map.interv", Path()).spec.programs[0]
    if program.conflict == "joint":
        # Nothing meets, so that the policy says nothing.
        program = program.model_copy(update={"conflict": "sequential"})
    expected, norms = reference(program, streams())
    result = execute(done[-1].graph, streams(), tokens())
    for site, h in expected.items():
        assert (result[site] - h).abs().max() <= FLOAT64 * norms[site]
