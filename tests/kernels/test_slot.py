"""What several programs of one request do together, against a plain definition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from torch import Tensor

from interv.codegen.bundle import Bundle, Column
from interv.codegen.kernels.registry import FORMS
from interv.codegen.slot import COLUMN, SlotRows, compose, multiplied, part, parts, records, signed
from interv.codegen.tables import StepTensors, as_words, site_tensors, slot_tables
from interv.compile import compile_documents
from interv.document.document import Document
from interv.document.selectors import holds, satisfiable
from interv.document.sites import Site
from interv.document.spec import (
    Ablate,
    And,
    Apply,
    Conflict,
    Not,
    Or,
    Program,
    Replace,
    Spec,
    Statement,
    Steer,
    VectorDecl,
)
from interv.dsl.expression import parse_expression
from interv.passes.graph.column import Mode
from interv.passes.graph.ops import Streams
from interv.passes.graph.selector_masks import select
from interv.passes.placing.plan import MOST_GATES
from interv.runtime.choice import Choice
from interv.runtime.frontend.inseparable import inseparable
from interv.vectors import save_vectors
from tests.kernels.cases import no_counts
from tests.passes.small import (
    MODEL,
    TOKENS,
    indices,
    layers_of,
    programs,
    reference,
    streams,
    tokens,
    vectors,
)
from tests.tolerances import FLOAT32_SLOT

NAMES = "pqr"
MOST_STATEMENTS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("vectors")
    for name, vector in vectors().items():
        save_vectors(place / f"{name}.safetensors", vector.directions)
    return place


def live(program: Program) -> Program:
    """Keep what a document may say, and make every edit one that is not dropped as dead.

    An edit that does nothing takes no token from later programs, so that under `priority` the
    plain definition needs none of them.
    """
    kept = [
        _live(one)
        for one in program.statements
        if not isinstance(one, Apply)
        and not (isinstance(one, Replace) and one.by == one.vector)
        and not isinstance(one.when, And | Or | Not)
        and satisfiable(one.when)
    ]
    conflict = "sequential" if program.conflict == "error" else program.conflict
    update = {"statements": tuple(kept[:MOST_STATEMENTS]), "conflict": conflict}
    return program.model_copy(update=update)


def _live(one: Statement) -> Statement:
    if isinstance(one, Steer):
        vector = "longer" if one.vector == "against" else one.vector
        return one.model_copy(update={"scale": abs(one.scale) or 1.0, "vector": vector})
    return one.model_copy(update={"strength": one.strength or 1.0})


def steers_only(program: Program) -> bool:
    return all(isinstance(one, Steer) for one in program.statements)


@st.composite
def requests(draw: st.DrawFn) -> tuple[list[Program], str]:
    """Draw two or three programs, and an expression over some of them in any order."""
    drawn = draw(st.lists(programs.map(live), min_size=2, max_size=3))
    named = [one.model_copy(update={"name": NAMES[i]}) for i, one in enumerate(drawn)]
    order = draw(st.permutations(named))[: draw(st.integers(1, len(named)))]
    terms = []
    for one in order:
        multiplier = draw(st.sampled_from([0.0, 0.5, 1.0, 2.5, -1.5]))
        terms.append(f"{one.name} * {multiplier if steers_only(one) else abs(multiplier)}")
    return named, " + ".join(terms)


def compiled(folder: Path, named: Sequence[Program], conflict: Conflict) -> Bundle:
    decls = tuple(VectorDecl(name=name, path=f"{name}.safetensors") for name in vectors())
    spec = Spec(vectors=decls, programs=tuple(named), conflict=conflict)
    return compile_documents([Document(spec, folder)], MODEL).bundle


def chosen(expression: str, bundle: Bundle) -> Choice:
    terms = parse_expression(expression, bundle.programs).terms
    kept: list[tuple[str, float]] = []
    for one in terms:
        if not any((name, one.program) in bundle.clashes for name, _ in kept):
            kept.append((one.program, one.multiplier))
    return Choice.of(tuple(kept))


def slot_of(choice: Choice, bundle: Bundle) -> SlotRows:
    made = parts(bundle.sites, bundle.programs)
    return compose([(made[n], m) for n, m in choice.terms], bundle.width, bundle.conflict)


def times(program: Program, multiplier: float) -> Program:
    """Scale a program as the definition says: scales times m, strengths times m but at most 1."""
    statements = tuple(_times(one, multiplier) for one in program.statements)
    return program.model_copy(update={"statements": statements})


def _times(one: Statement, multiplier: float) -> Statement:
    if isinstance(one, Steer):
        return one.model_copy(update={"scale": one.scale * multiplier})
    end = math.inf if isinstance(one, Ablate) and one.over else 1.0
    return one.model_copy(update={"strength": min(end, one.strength * multiplier)})


def takes(program: Program, site: Site) -> Tensor:
    """Say for each token whether a program has an edit of it at a site, bool `[T]`."""
    edits = [
        one.when
        for one in program.statements
        if one.at.name == site.name and site.layer in layers_of(one.at)
    ]
    return torch.tensor([any(holds(when, *token) for when in edits) for token in TOKENS])


def plain(
    scaled: Sequence[Program], given: Streams, conflict: Conflict
) -> tuple[Streams, dict[Site, float]]:
    """Run programs one after another by the definition of `conflict`; return their norms too."""
    out, norms = dict(given), dict.fromkeys(given, 1.0)
    free = {site: torch.ones(len(h), dtype=torch.bool) for site, h in given.items()}
    for one in scaled:
        base = out if conflict == "sequential" else given
        after, norm = reference(one, base)
        made = {}
        for site, h in out.items():
            change = after[site] - base[site]
            if conflict == "priority":
                change = torch.where(free[site][:, None], change, 0)
                free[site] &= ~takes(one, site)
            made[site], norms[site] = h + change, norms[site] + norm[site]
        out = made
    return out, norms


def run(rows: SlotRows, bundle: Bundle, given: Streams) -> Streams:
    """Apply a slot in float64 to the tokens of `small`, site after site."""
    mask = torch.zeros(len(TOKENS), dtype=torch.int64)
    for i, one in enumerate(bundle.selectors):
        mask |= select(tokens(), one).long() * signed(1 << i)
    tables = slot_tables(len(bundle.sites), 1, bundle.width, "cpu")
    tables.write(0, rows)
    slot = torch.zeros(len(TOKENS), dtype=torch.int32)
    kept = torch.full((len(TOKENS), MOST_GATES), torch.nan, dtype=torch.float64)
    step = StepTensors(slot, mask, torch.full_like(slot, -1), kept, indices().int())
    out = {}
    for index, table in enumerate(bundle.sites):
        site = site_tensors(table, tables, index, "cpu")
        out[table.site] = given[table.site].clone()
        FORMS["torch"](site, step, no_counts(), torch.float64)(out[table.site], None)
    return out


@pytest.mark.parametrize("conflict", ["sequential", "sum", "priority", "error"])
@given(request_=requests())
@settings(deadline=None, max_examples=40)
def test_a_slot_is_its_programs_one_after_another(
    folder: Path, conflict: Conflict, request_: tuple[list[Program], str]
) -> None:
    named, expression = request_
    bundle = compiled(folder, named, conflict)
    choice = chosen(expression, bundle)
    # An engine refuses these.
    assume(not inseparable(expression, [name for name, _ in choice.terms], bundle))
    rows = slot_of(choice, bundle)
    if not choice.terms:
        assert rows.count.size == 0
        return
    by_name = {one.name: one for one in named}
    scaled = [times(by_name[name], multiplier) for name, multiplier in choice.terms]
    expected, norms = plain(scaled, streams(), conflict)
    for site, after in run(rows, bundle, streams()).items():
        assert (after - expected[site]).abs().max() <= FLOAT32_SLOT * norms[site]


def same(one: SlotRows, other: SlotRows) -> bool:
    return one.count.tobytes() == other.count.tobytes() and (
        one.columns.tobytes() == other.columns.tobytes()
    )


@given(request_=requests())
@settings(deadline=None, max_examples=20)
def test_expressions_that_mean_the_same_have_one_slot(
    folder: Path, request_: tuple[list[Program], str]
) -> None:
    bundle = compiled(folder, request_[0], "sequential")
    for text, other in [
        ("p", "p*1"),
        ("p", "p * 1.0"),
        ("p*2", "p*2e0"),
        ("p*0 + q", "q"),
        ("q + p*0", "q*1.0"),
        ("p + q*0.5", "p*1 + q*.5"),
    ]:
        one, two = chosen(text, bundle), chosen(other, bundle)
        assert one == two
        assert one.key
        assert same(slot_of(one, bundle), slot_of(two, bundle))
    for text in ("off", "p*0", "p*-0.0", "p*0 + q*0"):
        assert chosen(text, bundle) == Choice()
    keys = [chosen(text, bundle).key for text in ("p", "q", "p*2", "p + q", "q + p", "p*2 + q")]
    assert len(set(keys)) == len(keys)


SITES = (Site("pre_attn", 0), Site("post_block", 1))
FIRST = part(
    SITES,
    {
        SITES[0]: (
            Column(-1, 0, alpha=2.0, selector=3),
            Column(1, 1, strength=0.5, low=-1.0, high=2.0, selector=63, sees=1),
        )
    },
    program=0,
)
SECOND = part(
    SITES,
    {
        SITES[0]: (
            Column(0, 0, strength=0.8, low=0.0, high=0.0, selector=2),
            Column(-1, 1, alpha=-3.0, selector=3),
            Column(1, 0, strength=1.0, low=0.0, selector=2, sees=0b11),
        ),
        SITES[1]: (Column(0, 0, strength=1.0, high=1.0, selector=4),),
    },
    program=1,
)


@pytest.mark.parametrize(
    ("conflict", "sees", "unless"),
    [
        ("sequential", [0, 1, 0b11, 0, 0b1111], 0),
        ("sum", [0, 1, 0, 0, 0b1100], 0),
        ("error", [0, 1, 0, 0, 0b1100], 0),
        ("priority", [0, 1, 0, 0, 0b1100], signed(1 << 63 | 1 << 3)),
    ],
)
def test_a_later_program_reads_or_gives_way(
    conflict: Conflict, sees: list[int], unless: int
) -> None:
    rows = compose([(FIRST, 1.0), (SECOND, 1.0)], 6, conflict)
    assert rows.count.tolist() == [5, 1]
    made = rows.columns[0, :5]
    assert made["sees"].tolist() == sees
    assert made["unless"].tolist() == [0, 0, *[unless] * 3]
    assert made["program"].tolist() == [0, 0, 1, 1, 1]
    assert made["bit"].tolist() == [8, signed(1 << 63), 4, 8, 4]
    # At the other site the second program is alone.
    alone = rows.columns[1, 0]
    assert (int(alone["sees"]), int(alone["unless"]), int(alone["program"])) == (0, 0, 1)
    assert not rows.columns[0, 5:].tobytes().strip(b"\0")


def test_a_third_program_gives_way_to_both() -> None:
    rows = compose([(FIRST, 1.0), (SECOND, 1.0), (FIRST, 1.0)], 7, "priority")
    assert rows.columns[0, 5:]["unless"].tolist() == [signed(1 << 63 | 0b1100)] * 2


def test_a_multiplier_scales_and_a_strength_ends_at_one_unless_it_may_go_over() -> None:
    made = multiplied(SECOND.columns, 1.5)
    assert made["alpha"].tolist() == [0.0, -4.5, 0.0, 0.0]
    assert made["strength"].tolist() == [1.0, 0.0, 1.0, 1.0]
    assert made["strength"].dtype == np.float32
    over = records([Column(0, 0, strength=1.0, mode=Mode.OVER), Column(-1, 0, mode=Mode.SHARE)])
    assert multiplied(over, 1.5)["strength"].tolist() == [1.5, 0.0]
    assert multiplied(over, 1.5)["mode"].tolist() == [Mode.OVER, Mode.SHARE]
    half = multiplied(SECOND.columns, 0.5)["strength"]
    assert half.tolist() == [float(np.float32(0.4)), 0.0, 0.5, 0.5]
    # What a column reads, writes and compares with stays.
    for name in ("a", "b", "low", "high", "bit", "sees"):
        assert made[name].tolist() == SECOND.columns[name].tolist()
    assert SECOND.columns["alpha"].tolist() == [0.0, -3.0, 0.0, 0.0]


def test_nothing_composes_to_nothing() -> None:
    rows = compose([], 4, "sequential")
    assert rows.count.size == rows.columns.size == 0


def test_a_program_without_an_edit_leaves_the_others_alone() -> None:
    empty = part(SITES, {})
    assert empty.columns.size == 0
    for conflict in ("sequential", "sum", "priority"):
        both = compose([(empty, 2.0), (SECOND, 1.0)], 6, conflict)
        assert same(both, compose([(SECOND, 1.0)], 6, conflict))


def test_64_columns_of_several_programs_see_each_other() -> None:
    site = (Site("pre_attn", 0),)
    one = part(site, {site[0]: (Column(0, 0, strength=1.0, low=0.0),) * 32})
    rows = compose([(one, 1.0), (one, 1.0)], 64, "sequential")
    assert rows.columns[0, 32:]["sees"].tolist() == [(1 << 32) - 1] * 32
    assert rows.count.tolist() == [64]


def test_words_are_the_columns_as_they_lie_in_memory() -> None:
    made = records([Column(1, 2, 0.5, -0.25, 0.75, -1.0, 2.0, selector=63, sees=5)], program=9)
    words = as_words(made)
    assert words.shape == (1, COLUMN.itemsize // 8)
    assert words.numpy().tobytes() == made.tobytes()
    assert made.tolist() == [
        (1, 2, 0.5, -0.25, 0.75, -1.0, 2.0, 9, *[0, -1, -1, 0], signed(1 << 63), 0, 5, 0, 0)
    ]
