"""Pass pairs: a program, and its graph after a pass; before and after are run and compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from interv.load import load_text
from interv.passes.build import build
from interv.passes.graph.context import Context
from interv.passes.graph.ir import execute
from interv.passes.graph.show import show
from interv.passes.pipeline import PASSES, run_passes
from tests.passes.small import MODEL, L, adapters, streams, tokens, vectors
from tests.tolerances import FLOAT64

# Where a policy gets its meaning; until there a graph says "sequential".
POLICIES = {"resolve_conflicts": ("sum", "priority"), "solve_joint": ("joint",)}
PAIRS = sorted((Path(__file__).parent / "pairs").glob("*.txt"))


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_pair(path: Path, golden: Callable[[Path, str], None]) -> None:
    head, _, _ = path.read_text(encoding="utf-8").partition("---\n")
    named, _, source = head.partition("\n\n")
    name = named.removeprefix("pass ")
    document = load_text(f"interv 1\n{source}", "pair.interv", Path())
    program, made = document.spec.programs[0], vectors()
    ctx = Context(program.name, program.conflict, MODEL)
    done = run_passes(build(document, 0, made, L, adapters()), ctx)
    at = [stage.name for stage in done].index(name)
    remarks = "".join(
        f"# {', '.join(origin.where for origin in remark.where)}: {remark.text}\n"
        for remark in done[at].remarks
    )
    golden(path, f"{head}---\n{show(done[at].graph)}\n{remarks}")
    if program.conflict in POLICIES.get(name, ()):
        return  # the policy changes the meaning here; test_pass_laws has its own reference
    results = [execute(done[i].graph, streams(), tokens()) for i in (at - 1, at)]
    for site, h in results[0].items():
        assert (h - results[1][site]).abs().max() <= FLOAT64 * h.norm(dim=-1).max()


def test_every_pass_has_a_pair() -> None:
    shown = {path.read_text(encoding="utf-8").partition("\n")[0] for path in PAIRS}
    assert shown == {f"pass {one.__name__}" for one in PASSES}
