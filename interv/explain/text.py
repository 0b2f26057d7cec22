"""The explain as text: at most 100 columns, types aligned, provenance in the right margin."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from interv.document.wording import counted, on_off
from interv.explain.blocks import Block, Line
from interv.explain.measured import MeasuredReport, RowsMeasured, StepMeasured
from interv.explain.placed import MapRow, PlanReport
from interv.explain.report import Note, PassReport, ProgramReport, Report
from interv.explain.written import DocumentReport
from interv.measuring.measurement import UNEDITED
from interv.passes.graph.canonical import update
from interv.passes.graph.ops import OPS
from interv.passes.graph.show import places

WIDTH = 100
# The order of work; `--stage` stops after one of these.
SECTIONS = ("spec", "graph", "plan", "kernels")


def text(report: Report, stage: str | None = None) -> str:
    """Print a report, up to the section `stage` where one is given."""
    upto = SECTIONS.index(stage) if stage else len(SECTIONS)
    lines = [f"for {report.model}", ""] if report.model else []
    for document in report.documents:
        lines += _document(document)
    if report.model is None:
        lines += ["passes, graph, plan and what was not done need a model: give --model", ""]
        return _joined(lines)
    if upto >= 1:
        for program in report.programs:
            lines += [*_passes(program), *_graph(program)]
    if upto >= 2 and report.plan is not None:
        lines += _plan(report.plan)
    if upto == 3 and report.plan is not None:
        lines += _kernels(report.plan)
    if stage is None:
        lines += _not_done(report)
    return _joined(lines)


def _joined(lines: Iterable[str]) -> str:
    return "\n".join(one for line in lines for one in _wrapped(line))


def _document(document: DocumentReport) -> list[str]:
    out = [f"spec  {document.name}"]
    for cells, row in zip(
        _aligned([v.cells for v in document.vectors]), document.vectors, strict=True
    ):
        out += margined(f"  vector  {cells}", [row.where])
    for row in document.read:
        out += margined("  read    ", [row.where], f"{row.cells[0]}: {row.cells[1]}")
    rows = _aligned([row.cells for row in document.tokens])
    for cells, row in zip(rows, document.tokens, strict=True):
        out += margined(f"  {cells}", [row.where])
    for program in document.programs:
        said = f"  program {program.name}  conflict {program.conflict}"
        said += "" if program.kv is None else f"  kv {on_off(program.kv)}"
        out += margined(said, [program.where])
        rows = _aligned([row.cells for row in program.statements])
        for cells, row in zip(rows, program.statements, strict=True):
            out += margined(f"    {cells}", [row.where])
    rows = _aligned([row.cells for row in document.sinks])
    for cells, row in zip(rows, document.sinks, strict=True):
        out += margined(f"  sink    {cells}", [row.where])
    if document.kv is not None:
        out += margined(f"  kv {document.kv.cells[0]}", [document.kv.where])
        for line in document.kv_lines:
            out += margined("    ", (), line)
    if document.conflict is not None:
        said = f"  conflict {document.conflict.cells[0]}, where programs of one request meet"
        out += margined(said, [document.conflict.where])
    if document.default is not None:
        said = f"  default {document.default.cells[0]}"
        out += margined(said, [document.default.where])
    elif document.programs:
        out.append("  no default: a request that names no program runs unedited")
    return [*out, ""]


def _passes(program: ProgramReport) -> list[str]:
    out = [f"passes  {program.name}{'':<{max(1, 20 - len(program.name))}}ops"]
    for one in program.passes:
        out += pass_row(one)
    return [*out, ""]


def pass_row(one: PassReport) -> list[str]:
    """Print a pass: ops before and after, what happened; quietly where nothing did."""
    counts = f"{one.ops_before:>5} → {one.ops_after:<5}" if one.name != "place" else f"{'':<13}"
    head = f"  {one.name:<18} {counts} "
    if not one.notes:
        return [f"{head}{'' if one.changed else '·'}".rstrip()]
    out: list[str] = []
    for note in one.notes:
        out += margined(head, note.where, note.text)
        head = " " * len(head)
    return out


def _graph(program: ProgramReport) -> list[str]:
    out = [f"graph  {program.name}"]
    for block in program.graph:
        out += block_lines(block)
    if not program.graph:
        out.append("  nothing is left")
    return [*out, ""]


def block_lines(block: Block) -> list[str]:
    """Print the ops of a site."""
    out = [f"  {block.site}"]
    for line in block.lines:
        out += _op(line)
        for inner in line.inside:
            out += margined(f"         {inner.type:<17}  ", inner.where, inner.text)
    return out


def _op(line: Line) -> list[str]:
    return margined(f"    {line.name:<4} {line.type:<17}  ", line.where, line.text)


def _plan(plan: PlanReport) -> list[str]:
    out = ["plan"]
    for row in plan.sites:
        head = f"  {row.site:<26} {row.launches:>3} × K = {row.columns}, V = {row.rows}   "
        out += margined(head, row.where, "; ".join(row.programs))
        for full in row.maps:
            out += margined(f"    {'map':<{len(head) - 4}}", (), _map(full))
        for one in row.measured:
            out += margined(f"    {'measured':<{len(head) - 4}}", (), _rows_measured(one))
    for taken in plan.captures:
        said = f"{taken.program}: rows of {taken.text}, {size(taken.row_bytes)} a token"
        out += margined(f"  {taken.sites:<26} {taken.points:>3} × ", taken.where, said)
    out += [f"  m{bit}  {selector}" for bit, selector in enumerate(plan.selectors)]
    moved = f"{size(plan.stream_bytes)} of stream + {size(plan.bank_bytes)} of banks"
    moved += f" + {size(plan.map_bytes)} of maps" if plan.map_bytes else ""
    out += [
        f"  a step of T = {plan.tokens} tokens (bf16): {counted(plan.launches, 'launch')},"
        f" {counted(plan.columns, 'column')}, {moved}",
        f"  {plan.flops / 1e6:.3g} Mflop, predicted {plan.predicted_us:.1f} µs"
        f" on {plan.machine} (a model, not measured)",
        *(_steps_measured(plan.measured) if plan.measured else ()),
        f"  CUDA-graph safe: {'yes' if plan.cuda_graph_safe else 'no'}, by construction"
        " (tables in fixed buffers, no synchronisation)",
        "  prefix cache: exact, a block is shared by requests that edit its tokens alike",
        *(line for one in plan.prefix_cache for line in margined("    ", one.where, one.text)),
        f"  structure {plan.structure[:16]}"
        + "".join(f"   {name} {digest[:16]}" for name, digest in plan.contents),
    ]
    return [*out, ""]


def _map(one: MapRow) -> str:
    """Print what a full linear map costs a step."""
    cost = f"{one.flops / 1e6:.3g} Mflop, {size(one.weight_bytes)} of weights"
    launches = f"predicted {one.predicted_us} µs in {counted(one.launches, 'launch')}"
    return f"{one.name}, a matmul of its own: {cost}, {launches}, at each site"


def _rows_measured(one: RowsMeasured) -> str:
    """Print what a program edited at a table."""
    spread = f"{one.most}" if one.least == one.most else f"{one.least} to {one.most}"
    return f"{one.program}: {spread} of {one.fed} rows a site, {size(one.stream_bytes)} moved"


def _steps_measured(found: MeasuredReport) -> list[str]:
    """Print the times of a step, a line an expression."""
    name = max(len(_name(one)) for one in found.steps)
    prompts = counted(found.requests, "prompt")
    lines = [
        f"  measured on {found.machine}: {found.engine}, {found.dtype},",
        f"  {prompts} of {found.prompt_tokens} tokens together, {found.new_tokens} new tokens each,"
        f" {found.rounds} rounds, T = {found.requests} a step",
    ]
    for one in found.steps:
        spread = f"quartiles {one.low_us / 1e3:.2f} … {one.high_us / 1e3:.2f}"
        line = f"    {_name(one):<{name}}  {one.median_us / 1e3:>8.2f} ms a step, {spread}"
        if one.asked == UNEDITED:
            lines.append(line)
        else:
            said = f"{one.rows} rows edited, {size(one.stream_bytes)} of stream in a round"
            lines += [f"{line}   {one.ratio:.3f} × unedited", f"    {'':<{name}}  {said}"]
    return lines


def _name(one: StepMeasured) -> str:
    return "unedited" if one.asked == UNEDITED else one.asked


def _kernels(plan: PlanReport) -> list[str]:
    out = ["kernels"]
    for row in plan.sites:
        launches = counted(row.launches, "launch")
        said = f"interv.update(hidden, residual, site): {launches}, K = {row.columns}"
        out += margined(f"  {row.site:<26} ", row.where, said)
        for full in row.maps:
            said = f"before it {full.name}: a matmul with fp32 weights [H, H], and what adds it"
            out += margined(f"  {'':<26} ", (), said)
    for taken in plan.captures:
        launches = counted(taken.points, "launch")
        said = f"interv.update copies rows of hidden + residual into a buffer: {launches}"
        out += margined(f"  {taken.sites:<26} ", taken.where, said)
    if plan.sites:
        return [*out, f"  interv.update = {OPS[update.__name__].formula}", ""]
    return [*out, *([] if plan.captures else ["  none"]), ""]


def _not_done(report: Report) -> list[str]:
    notes = [*(note for one in report.programs for note in one.not_done), *report.not_done]
    out = ["not done, because"]
    for note in _merged(notes):
        out += margined("  ", note.where, note.text)
    return out if notes else ["not done", "  nothing was left undone"]


def _merged(notes: Iterable[Note]) -> list[Note]:
    said: dict[str, tuple[str, ...]] = {}
    for note in notes:
        said[note.text] = tuple(dict.fromkeys((*said.get(note.text, ()), *note.where)))
    return [Note(one, where) for one, where in said.items()]


def size(count: int) -> str:
    """Print bytes with a unit."""
    if count < 10_000:
        return f"{count} B"
    return f"{count / 1e3:.1f} kB" if count < 1_000_000 else f"{count / 1e6:.2f} MB"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    count = max((len(row) for row in rows), default=0)
    widths = [max((len(row[i]) for row in rows if i < len(row)), default=0) for i in range(count)]
    return [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=False)).rstrip() for row in rows
    ]


def margined(head: str, where: Sequence[str], words: str = "") -> list[str]:
    """Put words after a head, wrapped under themselves, and their source lines at the right."""
    margin = places(where)
    line = f"{head}{words}".rstrip()
    if len(line) + bool(margin) * (len(margin) + 2) <= WIDTH:
        return [line + margin.rjust(WIDTH - len(line)) if margin else line]
    room = WIDTH - len(head) - len(margin) - 2
    lines = _body(head, words, room if room >= 30 else WIDTH - len(head))
    if margin and len(lines[0]) + len(margin) + 2 <= WIDTH:
        return [lines[0] + margin.rjust(WIDTH - len(lines[0])), *lines[1:]]
    return [*lines, *(one.rjust(WIDTH) for one in textwrap.wrap(margin, WIDTH - 8))]


def _body(head: str, words: str, room: int) -> list[str]:
    wrapped = textwrap.wrap(words, max(room, 20), break_on_hyphens=False) or [""]
    first = f"{head}{wrapped[0]}".rstrip()
    return [first, *(f"{'':<{len(head)}}{more}" for more in wrapped[1:])]


def _wrapped(line: str) -> list[str]:
    if len(line) <= WIDTH:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(line, WIDTH, subsequent_indent=indent)
