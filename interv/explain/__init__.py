"""Say what was done to a document, what was not, and why."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Sequence

from interv.compile import Compilation
from interv.document.document import Document
from interv.errors import IntervError, suggest
from interv.explain.blocks import blocks
from interv.explain.report import PassReport, Report, report, report_without_model
from interv.explain.text import SECTIONS, block_lines, pass_row, text
from interv.measuring.measurement import Measurement
from interv.passes.graph.ir import Graph

__all__ = ["SECTIONS", "explain", "explain_pass", "explain_spec", "to_json"]


def explain(
    compilation: Compilation,
    stage: str | None = None,
    form: str = "text",
    measured: Measurement | None = None,
) -> str:
    """Explain a compilation as text or as JSON, up to a stage of `SECTIONS` if one is given.

    The plan also shows what was `measured` of its programs, where they were run.
    """
    return _print(report(compilation, measured), stage, form)


def explain_spec(documents: Sequence[Document], form: str = "text") -> str:
    """Explain what can be said of documents without a model."""
    return _print(report_without_model(documents), "spec", form)


def _print(found: Report, stage: str | None, form: str) -> str:
    return to_json(found, stage) if form == "json" else text(found, stage)


def to_json(found: Report, stage: str | None = None) -> str:
    """Print a report as JSON, its keys in the order of the sections, up to a stage."""
    data = dataclasses.asdict(found)
    upto = SECTIONS.index(stage) if stage else len(SECTIONS)
    keep = {"model", "documents"} | ({"programs"} if upto >= 1 else set())
    keep |= {"plan"} if upto >= 2 else set()
    keep |= {"not_done"} if stage is None else set()
    return json.dumps({k: v for k, v in data.items() if k in keep}, ensure_ascii=False, indent=2)


def explain_pass(compilation: Compilation, name: str) -> str:
    """Print what one pass changed in every program, as a diff; raise E250 for an unknown pass."""
    lines: list[str] = []
    for program, said in zip(compilation.programs, report(compilation).programs, strict=True):
        known = [one.name for one in said.passes]
        if name not in known:
            raise IntervError(
                "E250",
                f"there is no pass '{name}'",
                notes=[f"passes: {', '.join(known)}"],
                helps=suggest(name, known),
            )
        at = known.index(name)
        if at + 1 >= len(program.stages):
            lines += [f"pass {name}  {program.name}", *pass_row(said.passes[at]), ""]
            continue
        before, after = program.stages[at].graph, program.stages[at + 1].graph
        lines += [f"pass {name}  {program.name}", *_diff(said.passes[at], before, after), ""]
    return "\n".join(lines)


def _diff(said: PassReport, before: Graph, after: Graph) -> list[str]:
    rows = pass_row(said)
    if not said.changed:
        return [*rows, "  no change"]
    old, new = (
        # Without its indent, so that the diff's own two columns fit.
        [line[2:] for block in blocks(graph) for line in block_lines(block)]
        for graph in (before, after)
    )
    marked = difflib.ndiff(old, new)
    return [*rows, *(line.rstrip() for line in marked if not line.startswith("?"))]
