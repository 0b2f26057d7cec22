"""The slots of compiled programs mean what the programs mean, in every form of the update."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import Phase, given, settings

from interv.codegen.bundle import Bundle, Column, SiteTable
from interv.codegen.kernels.registry import FORMS, runnable
from interv.codegen.slot import records, signed
from interv.codegen.tables import StepTensors, site_tensors, slot_tables
from interv.codegen.update import fused_update
from interv.compile import compile_documents
from interv.document.document import Document
from interv.document.selectors import satisfiable
from interv.document.sites import Site
from interv.document.spec import And, Apply, Not, Or, Program, Replace, Spec, VectorDecl
from interv.errors import IntervError
from interv.passes.graph.selector_masks import select
from interv.passes.placing.plan import MOST_GATES
from interv.vectors import save_vectors
from tests.kernels.cases import no_counts, rounding, unit_bank
from tests.passes.small import (
    MODEL,
    TOKENS,
    indices,
    programs,
    reference,
    streams,
    tokens,
    vectors,
)
from tests.tolerances import FLOAT32

T = len(TOKENS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("vectors")
    for name, vector in vectors().items():
        save_vectors(place / f"{name}.safetensors", vector.directions)
    return place


def allowed(program: Program) -> Program:
    """Leave out what a document refuses: empty selectors, and overlaps under `conflict error`.

    A selector may also be empty in one of its parts, so only those without parts are kept.
    """
    statements = tuple(
        one
        for one in program.statements
        if not isinstance(one, Apply)
        and not (isinstance(one, Replace) and one.by == one.vector)
        and not isinstance(one.when, And | Or | Not)
        and satisfiable(one.when)
    )
    conflict = "sequential" if program.conflict == "error" else program.conflict
    return program.model_copy(update={"statements": statements, "conflict": conflict})


def compiled(folder: Path, first: Program, second: Program) -> Bundle:
    decls = tuple(VectorDecl(name=name, path=f"{name}.safetensors") for name in vectors())
    spec = Spec(vectors=decls, programs=(first, second.model_copy(update={"name": "q"})))
    return compile_documents([Document(spec, folder)], MODEL).bundle


@pytest.mark.parametrize("form", runnable(torch.device("cpu")))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@given(first=programs.map(allowed), second=programs.map(allowed))
# The interpreter takes a second an example, so a failing one is not made smaller.
@settings(deadline=None, max_examples=12, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_slots_of_two_programs_are_the_programs(
    folder: Path, form: str, dtype: torch.dtype, first: Program, second: Program
) -> None:
    bundle = compiled(folder, first, second)
    masks = torch.stack([select(tokens(), one) for one in bundle.selectors] or [torch.zeros(T) > 0])
    mask = torch.zeros(T, dtype=torch.int64)
    for index, row in enumerate(masks):
        mask |= row.long() * signed(1 << index)
    slot = torch.arange(T, dtype=torch.int32) % 3 - 1
    # Gates are kept in float32 by every form, and by the programs each for itself.
    gates = torch.zeros(T, MOST_GATES)
    kept = [gates.double() for _ in "pq"]
    both = {
        site: h.to(dtype).double() + streams(1)[site].to(dtype).double()
        for site, h in streams().items()
    }
    norms = reference(first, both)[1], reference(second, both)[1]
    for table in bundle.sites:
        residual = streams(1)[table.site].to(dtype)
        hidden = streams()[table.site].to(dtype)
        wide = hidden.double() + residual.double()
        tensors = site_tensors(table, slot_tables(1, 2, max(1, table.width), "cpu"), 0, "cpu")
        expected = hidden.double()
        for index, name in enumerate("pq"):
            tensors.write(index, records(table.programs.get(name, ())))
            if name not in table.programs:
                continue
            change = fused_update(wide, table, name, masks, kept[index], indices()) - wide
            expected = torch.where((slot == index)[:, None], expected + change, expected)
        norm = max(one[table.site] for one in norms) + float(residual.double().norm(dim=1).max())
        before = hidden.clone()
        step = StepTensors(slot, mask, torch.full_like(slot, -1), gates, indices().int())
        FORMS[form](tensors, step, no_counts(), dtype)(hidden, residual)
        off = (hidden.double() - expected).abs()
        assert (off <= FLOAT32 * norm + rounding(form, dtype) * expected.abs()).all()
        assert torch.equal(hidden[slot < 0], before[slot < 0])


def test_an_empty_batch_and_a_program_that_is_not_there() -> None:
    table = SiteTable(
        Site("post_block", 3), unit_bank(2, 576), {"calm": (Column(-1, 0, alpha=1.0),)}
    )
    empty = torch.zeros(0, 576, dtype=torch.bfloat16)
    got = fused_update(empty, table, "calm", torch.zeros(1, 0, dtype=torch.bool))
    assert (got.shape, got.dtype) == ((0, 576), torch.bfloat16)
    with pytest.raises(IntervError) as caught:
        fused_update(empty, table, "clam", torch.zeros(1, 0, dtype=torch.bool))
    assert str(caught.value) == (
        "error[E205]: no program 'clam' has an edit at post_block[3]\n"
        "  = programs that have: calm\n"
        "  = did you mean 'calm'?"
    )
