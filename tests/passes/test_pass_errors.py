"""Wrong programs and their exact diagnostics, and our own bugs caught by the verifier."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from interv.compile import compile_documents
from interv.document.spec import Cap, Everything, Program, Selector, SiteRef, Slice, Steer
from interv.errors import IntervError, each
from interv.load import load_text
from interv.passes.graph.ir import call, copied, is_op, ops_of, origins
from interv.passes.graph.ops import ablate, cap, steer
from interv.passes.graph.verify import verify
from tests.passes.small import MODEL, H, L, stages

WRONG = sorted((Path(__file__).parent / "wrong").glob("*.interv"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, layers, width in (("good", L, H), ("short", 2, H), ("wide", L, 8)):
        rows = {f"layer.{i}": rng.normal(size=width).astype(np.float32) for i in range(layers)}
        save_file(rows, tmp_path / f"{name}.safetensors")
    (tmp_path / "banks").mkdir()
    for name, count in (("more", L + 1), ("many", L + 2)):
        np.save(tmp_path / f"banks/{name}.npy", rng.normal(size=(count, H)).astype(np.float32))
        rows = {f"layer.{i}": rng.normal(size=H).astype(np.float32) for i in range(count)}
        save_file(rows, tmp_path / f"banks/{name}.safetensors")
    square = np.eye(H, dtype=np.float32)
    (tmp_path / "maps").mkdir()
    save_file({"weight": square}, tmp_path / "maps" / "full.safetensors")
    some = {f"layer.{i}.weight": square for i in (0, 1)}
    save_file(some, tmp_path / "maps" / "some.safetensors")
    return tmp_path


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_diagnostics(path: Path, root: Path, golden: Callable[[Path, str], None]) -> None:
    texts = path.read_text(encoding="utf-8").split("---\n")
    names = [path.name] if len(texts) == 1 else [f"{path.stem}-{i}.interv" for i in range(2)]
    documents = [load_text(text, name, root) for text, name in zip(texts, names, strict=True)]
    with pytest.raises(IntervError) as caught:
        compile_documents(documents, MODEL)
    golden(path.with_suffix(".txt"), f"{caught.value}\n")


def program(*edits: Selector, layer: int = 1) -> Program:
    at = SiteRef(name="post_block", layers=(layer,))
    steers = (Steer(at=at, vector="v", when=when, scale=i + 1.0) for i, when in enumerate(edits))
    return Program(name="p", statements=tuple(steers))


def starts(first: int, last: int) -> tuple[Slice, ...]:
    return tuple(Slice(phase="prompt", start=i) for i in range(first, last))


def test_too_many_selectors_of_one_program() -> None:
    with pytest.raises(IntervError) as caught:
        stages(program(*starts(1, 66)))
    assert str(caught.value) == (
        "error[E410]: 65 different selectors are used, 64 are possible\n"
        "  = put programs that are not used together into engines of their own"
    )


def test_too_many_selectors_of_two_programs() -> None:
    from interv.passes.place import place

    graphs = {
        name: stages(program(*starts(*ends)))[-1].graph
        for name, ends in (("p", (1, 34)), ("q", (34, 66)))
    }
    with pytest.raises(IntervError) as caught:
        place(graphs, dict.fromkeys(graphs, "sequential"), MODEL)
    assert caught.value.code == "E410"
    assert caught.value.message == "65 different selectors are used, 64 are possible"


def caps(count: int) -> tuple[Cap, ...]:
    at = SiteRef(name="post_block", layers=(1,))
    return tuple(Cap(at=at, vector="v", high=float(i)) for i in range(count))


def test_too_many_edits_at_a_site() -> None:
    with pytest.raises(IntervError) as caught:
        stages(Program(name="p", statements=caps(65)))
    assert str(caught.value) == (
        "error[E411]: program 'p' has 65 edits at post_block[1], 64 are possible"
    )


def test_too_many_columns_when_all_is_folded() -> None:
    from interv.passes.place import place

    statements = (*program(*starts(1, 36)).statements, *caps(30))
    done = stages(Program(name="p", statements=statements))
    with pytest.raises(IntervError) as caught:
        place({"p": done[-1].graph}, {"p": "sequential"}, MODEL)
    assert str(caught.value) == (
        "error[E411]: program 'p' has 65 columns at post_block[1], 64 are possible"
    )


def test_conflicts_of_thousands_of_statements_are_told_a_hundred_of() -> None:
    with pytest.raises(IntervError) as caught:
        stages(Program(name="p", statements=caps(3000), conflict="error"))
    assert len(each(caught.value)) == 100


def test_the_first_of_one_selector_takes_it_from_all_later_ones() -> None:
    everything = program(*[Everything()] * 3)
    done = stages(everything.model_copy(update={"conflict": "priority"}))
    said = [one.text for one in done[2].remarks]
    assert said == ["gives way to <spec> statement:0: not all"] * 2


def test_sixty_four_selectors_are_fine() -> None:
    from interv.passes.place import place

    done = stages(program(*(Slice(phase="prompt", start=i) for i in range(1, 65))))
    plan = place({"p": done[-1].graph}, {"p": "sequential"}, MODEL)
    assert (len(plan.selectors), plan.sites[0].width, len(plan.sites[0].bank)) == (64, 64, 1)


def test_the_verifier_shows_the_graph() -> None:
    done = stages(
        Program(
            name="p",
            statements=(
                Cap(
                    at=SiteRef(name="post_block", layers=(1,)),
                    vector="v",
                    when=Everything(),
                    high=1.0,
                ),
            ),
        )
    )
    graph = copied(done[1].graph)
    edit = next(node for node in ops_of(graph) if is_op(node, cap))
    edit.args = (*edit.args[:2], "low", *edit.args[3:])
    with pytest.raises(IntervError) as caught:
        verify(graph, "resolve_sites")
    text = str(caught.value)
    assert caught.value.code == "E301"
    assert "the compiler made an invalid graph: %4 has 'low' for a number" in text
    assert "%4: stream = cap(%0, %2, low, 1, 1, %3)" in text
    assert "    ^ has 'low' for a number" in text


def test_the_verifier_knows_the_stages() -> None:
    done = stages(program(Everything()))
    with pytest.raises(IntervError, match="'steer' is not allowed after fuse_updates"):
        verify(done[3].graph, "fuse_updates")
    graph = copied(done[2].graph)
    edit = next(node for node in ops_of(graph) if is_op(node, steer))
    with graph.inserting_before(edit):
        lost = call(graph, ablate, edit.args[0], edit.args[1], 1.0, edit.args[3])
    edit.args = (lost, *edit.args[1:])
    with pytest.raises(IntervError, match="comes from no statement"):
        verify(graph, "resolve_conflicts")
    assert origins(lost) == ()
