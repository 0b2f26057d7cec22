"""What an explain says, as data: the text and the JSON are two prints of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from interv.compile import Compilation, CompiledProgram
from interv.document.document import Document
from interv.document.wording import counted
from interv.explain.blocks import Block, blocks
from interv.explain.placed import PlanReport, plan_report
from interv.explain.written import DocumentReport, document_report
from interv.measuring.measurement import Measurement
from interv.passes.graph.ir import edit_count, ops_of
from interv.passes.pipeline import Stage
from interv.passes.placing.plan import Plan


@dataclass(frozen=True, slots=True)
class Note:
    """One remark and the statements it is about."""

    text: str
    where: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PassReport:
    """What one pass did to one program."""

    name: str
    ops_before: int
    ops_after: int
    changed: bool
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class ProgramReport:
    """One program on its way through the compiler; the last pass is `place`."""

    name: str
    passes: tuple[PassReport, ...]
    graph: tuple[Block, ...]
    edits: int  # statements times sites, as written
    columns: int  # what is left of them
    not_done: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """The five sections: spec, passes and graph and not done by program, plan."""

    model: str | None
    documents: tuple[DocumentReport, ...]
    programs: tuple[ProgramReport, ...] = ()
    plan: PlanReport | None = None
    not_done: tuple[Note, ...] = ()


def report(compilation: Compilation, measured: Measurement | None = None) -> Report:
    """Say what was done to the documents of a compilation, what was not, and what was measured."""
    model = compilation.model
    return Report(
        model=f"{model.name} ({model.architecture}: {model.num_layers} blocks,"
        f" H = {model.hidden_size})",
        documents=tuple(document_report(one, compilation) for one in compilation.documents),
        programs=tuple(_program(one, compilation.plan) for one in compilation.programs),
        plan=plan_report(compilation, measured),
        not_done=tuple(_standing(compilation)),
    )


def report_without_model(documents: Sequence[Document]) -> Report:
    """Say what can be said without a model: the spec."""
    return Report(None, tuple(document_report(one) for one in documents))


def _program(program: CompiledProgram, plan: Plan) -> ProgramReport:
    stages = program.stages
    last = stages[-1].graph
    pairs = itertools.pairwise(stages)
    resolved = stages[1].graph
    return ProgramReport(
        name=program.name,
        passes=(*(_pass(before, after) for before, after in pairs), _place(program.name, plan)),
        graph=blocks(last),
        edits=edit_count(resolved),
        columns=edit_count(last),
        not_done=tuple(note for stage in stages for note in _notes(stage, done=False)),
    )


def _pass(before: Stage, after: Stage) -> PassReport:
    old, new = blocks(before.graph), blocks(after.graph)
    counts = len(ops_of(before.graph)), len(ops_of(after.graph))
    return PassReport(after.name, *counts, old != new, _notes(after, done=True))


def _place(name: str, plan: Plan) -> PassReport:
    """Report the step that turns the graphs of all programs into tables, for one of them."""
    mine = [placed for placed in plan.sites if name in placed.programs]
    columns = sum(len(placed.programs[name]) for placed in mine)
    placed = [(p.site, c.form) for p in mine for c in p.programs[name]]
    rows = {(site, row) for site, form in placed if not form.map for row in (form.a, form.b)}
    used = sum(row >= 0 for _, row in rows)
    maps = {(site, form.map.digest) for site, form in placed if form.map}
    text = (
        f"{counted(len(mine), 'table')}, {counted(columns, 'column')}, {counted(used, 'direction')}"
    )
    text += f", {counted(len(maps), 'full linear map')}" if maps else ""
    taken = [one for one in plan.captures if one.program == name]
    points = counted(sum(len(one.sites) for one in taken), "site")
    text += f", {counted(len(taken), 'capture')} at {points}" if taken else ""
    return PassReport("place", len(mine), len(mine), True, (Note(text),))


def _notes(stage: Stage, *, done: bool) -> tuple[Note, ...]:
    """Return the remarks of a stage; the same words about several statements are one note."""
    said: dict[str, list[str]] = {}
    for remark in stage.remarks:
        if remark.done == done:
            said.setdefault(remark.text, []).extend(origin.where for origin in remark.where)
    return tuple(Note(text, tuple(dict.fromkeys(where))) for text, where in said.items())


def _standing(compilation: Compilation) -> list[Note]:
    """Say what this compiler does for no program yet, and what the documents leave unused."""
    found = []
    if len(compilation.plan.sites) > 1:
        found.append(Note("updates of different sites stay apart: the model runs between them"))
    if compilation.plan.sites:
        found.append(
            Note("an update joins the norm after it only under --intervention-absorb-norm")
        )
    for used in compilation.vectors:
        if not used.programs:
            where = used.document.where("vectors", used.index)
            found.append(Note(f"vector '{used.vector}' is declared, no program uses it", (where,)))
    return found
