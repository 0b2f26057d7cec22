"""Programs that requests bring along: what they compile to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from interv.codegen.bundle import Bundle, Column
from interv.codegen.kernels.registry import FORMS
from interv.codegen.slot import compose, part, signed
from interv.codegen.tables import StepTensors, site_tensors, slot_tables
from interv.compile import compile_documents
from interv.document.document import Document
from interv.document.selectors import satisfiable
from interv.document.sites import Site
from interv.document.spec import (
    And,
    Apply,
    Not,
    Or,
    Program,
    Rotate,
    SiteRef,
    Spec,
    Steer,
    VectorDecl,
)
from interv.dsl.printer import print_spec
from interv.load import plain_data
from interv.passes.graph.selector_masks import select
from interv.request.inline import Inline, compile_inline, is_inline
from interv.runtime.choice import Choice
from tests.kernels.cases import no_counts
from tests.passes.small import (
    MODEL,
    PLANES,
    TOKENS,
    indices,
    programs,
    reference,
    streams,
    tokens,
    vectors,
)
from tests.runtime.documents import encode
from tests.tolerances import FLOAT32_SLOT

DECLARED = tuple(VectorDecl(name=name, path=f"{name}.safetensors") for name in vectors())
STREAM = tuple(
    Steer(vector="v", at=SiteRef(name=name, layers=("*",))) for name in ("pre_attn", "post_block")
)
# Requests rotate in planes that are there.
TURNS = tuple(
    Rotate(vector=a, towards=b, to=30.0, at=SiteRef(name=name, layers=("*",)))
    for name in ("pre_attn", "post_block")
    for a, b in PLANES
)
SCALARS = tuple(
    one.name for one in fields(Column) if one.name not in ("a", "b", "selector", "origin")
)
BASE = Spec(vectors=DECLARED, programs=(Program(name="base", statements=(*STREAM, *TURNS)),))


@cache
def armed(folder: Path) -> Bundle:
    """Compile an engine's document, with all vectors and edits at all sites that are drawn."""
    return compile_documents([Document(BASE, folder)], MODEL, inline=True).bundle


def compiled(asked: Any, bundle: Bundle) -> Inline:
    return compile_inline(asked, bundle, vectors(), MODEL, encode)


def allowed(program: Program) -> Program:
    """Leave out what is refused: empty selectors, meetings under `conflict error`, and what needs
    directions that no bank holds.
    """
    kept = tuple(
        one
        for one in program.statements
        if not isinstance(one.when, And | Or | Not) and satisfiable(one.when)
        if not isinstance(one, Apply) and getattr(one, "by", None) is None
    )
    conflict = "sequential" if program.conflict == "error" else program.conflict
    return program.model_copy(update={"statements": kept, "conflict": conflict})


def by_site(made: Inline, bundle: Bundle) -> dict[Site, tuple[Column, ...]]:
    found: dict[Site, tuple[Column, ...]] = {}
    for index, column in made.columns:
        site = bundle.sites[index].site
        found[site] = (*found.get(site, ()), column)
    return found


def meanings(
    columns: tuple[Column, ...], bank: np.ndarray, selectors: tuple[Any, ...]
) -> Iterator[tuple[Any, ...]]:
    """Yield columns with their directions and selectors in place of rows and bits."""
    for c in columns:
        rows = [None if row < 0 else bank[row].tobytes() for row in (c.a, c.b)]
        rest = (getattr(c, name) for name in SCALARS)
        yield (*rows, *rest, selectors[c.selector])


@given(program=programs.map(allowed))
@settings(deadline=None, max_examples=30)
def test_it_does_what_the_program_says(folder: Path, program: Program) -> None:
    bundle = armed(folder)
    made = compiled(plain_data(Spec(programs=(program,))), bundle)
    mask = torch.zeros(len(TOKENS), dtype=torch.int64)
    for i, one in enumerate(made.selectors):
        mask |= select(tokens(), one).long() * signed(1 << i)
    places = [table.site for table in bundle.sites]
    rows = compose([(part(places, by_site(made, bundle)), 1.0)], bundle.width, "sequential")
    tables = slot_tables(len(places), 1, bundle.width, "cpu")
    tables.write(0, rows)
    slot = torch.zeros(len(TOKENS), dtype=torch.int32)
    kept = torch.full((len(TOKENS), bundle.gates), float("nan"))
    step = StepTensors(slot, mask, torch.full_like(slot, -1), kept, indices().int())
    expected, norms = reference(program, streams())
    for index, table in enumerate(bundle.sites):
        after = streams()[table.site].clone()
        site = site_tensors(table, tables, index, "cpu")
        FORMS["torch"](site, step, no_counts(), torch.float64)(after, None)
        off = (after - expected[table.site]).abs().max()
        assert off <= FLOAT32_SLOT * norms[table.site]


@given(program=programs.map(allowed))
@settings(deadline=None, max_examples=25)
def test_it_has_the_columns_of_the_same_program_in_a_document(
    folder: Path, program: Program
) -> None:
    # Steers that fold into one direction in a document stay apart here, so there is one of them.
    steers = [one for one in program.statements if isinstance(one, Steer)]
    kept = tuple(one for one in program.statements if one not in steers[1:])
    program = program.model_copy(update={"statements": kept})
    bundle = armed(folder)
    made = compiled(plain_data(Spec(programs=(program,))), bundle)
    spec = Spec(vectors=DECLARED, programs=(program,))
    other = compile_documents([Document(spec, folder)], MODEL).bundle
    expected = {t.site: t.programs["p"] for t in other.sites}
    found = by_site(made, bundle)
    assert set(found) == set(expected)
    banks = {table.site: table.bank for table in bundle.sites}
    for table in other.sites:
        mine = list(meanings(found[table.site], banks[table.site], made.selectors))
        assert mine == list(meanings(expected[table.site], table.bank, other.selectors))


@given(program=programs.map(allowed))
@settings(deadline=None, max_examples=25)
def test_text_and_json_of_a_program_have_one_key(folder: Path, program: Program) -> None:
    bundle, spec = armed(folder), Spec(programs=(program,))
    data = plain_data(spec)
    forms = [print_spec(spec), data, json.dumps(data), f"  \n{json.dumps(data, indent=2)}"]
    made = [compiled(one, bundle) for one in forms]
    assert all(is_inline(one) for one in forms)
    assert len({Choice.brought(one).key for one in made}) == 1
    # What travels as plain data is the program.
    assert Inline.of(json.loads(json.dumps(made[0].plain()))) == made[0]


def program(*statements: str, name: str = "p") -> str:
    lines = "".join(f"  {one}\n" for one in statements)
    return f"interv 1\nprogram {name} {{\n{lines}}}\n"


def test_programs_that_do_the_same_share_a_slot(folder: Path) -> None:
    bundle = armed(folder)
    key = Choice.brought(compiled(program("steer w at post_block[1] scale 2"), bundle)).key
    assert key.startswith("inline ")
    same = [
        program("steer w at post_block[1] scale 2", name="q"),
        program("steer w at post_block[-3] scale 2.0 when all"),
        program("steer w at post_block[1] scale 2", "ablate v at post_block[2] strength 0"),
        program("conflict priority", "steer w at post_block[1] scale 2"),
    ]
    assert {Choice.brought(compiled(one, bundle)).key for one in same} == {key}
    other = [
        program("steer w at post_block[1] scale 2.5"),
        program("steer v at post_block[1] scale 2"),
        program("steer w at post_block[2] scale 2"),
        program("steer w at post_block[1] scale 2 when prompt"),
        program("steer w at post_block[1] scale 2", "ablate v at post_block[2] strength 1"),
    ]
    keys = {Choice.brought(compiled(one, bundle)).key for one in other}
    assert len({*keys, key}) == len(other) + 1


def test_the_default_of_several_programs_is_meant(folder: Path) -> None:
    bundle = armed(folder)
    one, two = "steer v at post_block[1]", "cap w at post_block[2] in [, 1]"
    text = program(one) + program(two, name="q").replace("interv 1\n", "") + "default q\n"
    assert compiled(text, bundle) == compiled(program(two), bundle)


def test_a_program_without_an_edit_needs_no_slot(folder: Path) -> None:
    bundle = armed(folder)
    for text in (program(), program("steer v at post_block[1] scale 0")):
        assert Choice.brought(compiled(text, bundle)) == Choice(inline=Inline((), ()))


def test_texts_of_tokens_become_ids(folder: Path) -> None:
    bundle = armed(folder)
    text = compiled(program('steer v at post_block[1] when token(" yes", "no", 7)'), bundle)
    assert text == compiled(program("steer v at post_block[1] when token(7, 8)"), bundle)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"interv": 1},
        "{",
        ' \n {"interv": 1}',
        "interv 1",
        "interv 2\n",
        "interv\n\nprogram p { }",
        "interv\t1 # mine",
        "# mine\n  # and mine\n\ninterv 1\n",
        "interv program",
    ],
    ids=repr,
)
def test_whole_programs(asked: object) -> None:
    assert is_inline(asked)


@pytest.mark.parametrize(
    "asked",
    [
        "interv",
        " interv ",
        "interv*2",
        "interv * 2",
        "interv\n+ calm",
        "interview",
        "interview 1",
        "interv2",
        "interv_1*2 + calm",
        "calm + interv",
        "off",
        "",
        "[]",
        "# interv 1",
        None,
        7,
        [{"interv": 1}],
    ],
    ids=repr,
)
def test_what_is_no_program(asked: object) -> None:
    assert not is_inline(asked)


@given(
    name=st.from_regex(r"interv[A-Za-z0-9_]{0,3}", fullmatch=True),
    spaces=st.text(" \t\n", max_size=2),
    rest=st.sampled_from(["", "*2", "+ calm", "* -1.5 + calm"]),
)
def test_any_expression_over_such_names_is_one(name: str, spaces: str, rest: str) -> None:
    assert not is_inline(f"{spaces}{name}{spaces}{rest}")


def test_positions_that_are_listed_are_one_part(folder: Path) -> None:
    places = [f"prompt[{i}]" for i in range(0, 140, 2)]
    text = "interv 1 program p {{ steer v at post_block[1] when {} }}"
    written, listed = (
        compiled(text.format(one), armed(folder))
        for one in (" or ".join(places), f"prompt[{', '.join(map(str, range(0, 140, 2)))}]")
    )
    assert written == listed
    assert len(written.selectors) == 1
    assert Inline.of(json.loads(json.dumps(written.plain()))) == replace(written, kv=None)
