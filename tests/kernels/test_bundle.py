"""The slots of compiled programs mean what the programs mean, in every form of the update."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import Phase, given, settings

from interv.codegen.bundle import Bundle
from interv.codegen.kernels.registry import FORMS, runnable
from interv.codegen.tables import signed, site_tensors, write_slot
from interv.codegen.update import fused_update
from interv.compile import compile_documents
from interv.document import Document
from interv.passes.select import select
from interv.selectors import satisfiable
from interv.spec import And, Not, Or, Program, Spec, VectorDecl
from interv.vectors import save_vectors
from tests.kernels.cases import rounding
from tests.passes.small import MODEL, TOKENS, programs, reference, streams, tokens, vectors
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
        if not isinstance(one.when, And | Or | Not) and satisfiable(one.when)
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
    for table in bundle.sites:
        residual = streams(1)[table.site].to(dtype)
        hidden = streams()[table.site].to(dtype)
        wide = hidden.double() + residual.double()
        tensors, edited = site_tensors(table, 2, "cpu"), torch.zeros(2, dtype=torch.int64)
        expected = hidden.double()
        for index, name in enumerate("pq"):
            write_slot(tensors, index, table.programs.get(name, ()))
            change = fused_update(wide, table, name, masks) - wide
            expected = torch.where((slot == index)[:, None], expected + change, expected)
        norm = max(reference(one, wide, table.site)[1] for one in (first, second))
        before = hidden.clone()
        FORMS[form](tensors, slot, mask, edited, dtype)(hidden, residual)
        off = (hidden.double() - expected).abs()
        assert (off <= FLOAT32 * norm + rounding(form, dtype) * expected.abs()).all()
        assert torch.equal(hidden[slot < 0], before[slot < 0])
