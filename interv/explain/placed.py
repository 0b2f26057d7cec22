"""The plan section: tables, selector bits, cost, and what it means for graphs and caches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from interv.compile import Compilation, CompiledProgram
from interv.document.selectors import implies, overlap, selector_text
from interv.document.spec import InPhase, Or, Selector
from interv.document.wording import brief, counted, layer_text
from interv.explain.measured import MeasuredReport, RowsMeasured, measured_report, rows_measured
from interv.explain.taken import CaptureRow, capture_rows, rerun
from interv.measuring.measurement import Measurement
from interv.passes.graph.column import Kind, Mode
from interv.passes.graph.directions import Map
from interv.passes.placing.cost import Cost
from interv.passes.placing.plan import PlacedSite


@dataclass(frozen=True, slots=True)
class MapRow:
    """A full linear map of a table: what it costs at each of its sites, whoever takes it."""

    name: str  # "warp[L]"
    launches: int
    flops: int
    weight_bytes: int
    predicted_us: float


@dataclass(frozen=True, slots=True)
class SiteRow:
    """One table, at all layers of `site` alike."""

    site: str
    launches: int
    columns: int  # K
    rows: int  # V
    programs: tuple[str, ...]  # "calm: 2 columns, selectors 0 1"
    where: tuple[str, ...]
    measured: tuple[RowsMeasured, ...] = ()  # one a program of `programs`, where it was run
    maps: tuple[MapRow, ...] = ()  # full linear maps


@dataclass(frozen=True, slots=True)
class CacheNote:
    """What a program does to the prefix cache, and the statements that are why."""

    text: str
    where: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlanReport:
    """Numbers of one step, for the tokens that the model of cost assumes."""

    sites: tuple[SiteRow, ...]
    selectors: tuple[str, ...]
    tokens: int
    launches: int
    columns: int
    stream_bytes: int
    bank_bytes: int
    map_bytes: int
    flops: int
    predicted_us: float
    machine: str
    cuda_graph_safe: bool
    prefix_cache: tuple[CacheNote, ...]
    structure: str
    contents: tuple[tuple[str, str], ...]
    measured: MeasuredReport | None = None
    captures: tuple[CaptureRow, ...] = ()


def plan_report(compilation: Compilation, measured: Measurement | None = None) -> PlanReport:
    """Say what was placed where, what a step costs, and what it was measured to cost."""
    plan, cost = compilation.plan, compilation.plan.cost
    return PlanReport(
        sites=_sites(plan.sites, plan.hidden_size, cost, measured),
        selectors=tuple(brief(selector_text(one)) for one in plan.selectors),
        tokens=cost.machine.tokens,
        launches=cost.launches,
        columns=cost.columns,
        stream_bytes=cost.stream_bytes,
        bank_bytes=cost.bank_bytes,
        map_bytes=sum(one.weight_bytes for one in cost.maps),
        flops=cost.flops,
        predicted_us=round(cost.predicted_us, 1),
        machine=cost.machine.name,
        # Every op there is reads tables in fixed buffers and synchronises with nothing.
        cuda_graph_safe=True,
        prefix_cache=tuple(
            note for one in compilation.programs for note in _notes(one, compilation)
        ),
        structure=compilation.bundle.structure,
        contents=tuple(sorted(compilation.bundle.contents.items())),
        measured=measured_report(compilation, measured) if measured else None,
        captures=capture_rows(plan),
    )


def _notes(program: CompiledProgram, compilation: Compilation) -> list[CacheNote]:
    taken = rerun(program.name, compilation.plan)
    return [_prefix(program, compilation), *(CacheNote(*one) for one in taken)]


def _sites(
    sites: tuple[PlacedSite, ...], hidden_size: int, cost: Cost, measured: Measurement | None
) -> tuple[SiteRow, ...]:
    groups: dict[tuple[object, ...], list[PlacedSite]] = {}
    for placed in sites:
        sizes = (placed.width, len(placed.bank), len(placed.maps))
        key = (placed.site.name, *sizes, _programs(placed), placed.where)
        groups.setdefault(key, []).append(placed)
    return tuple(
        SiteRow(
            site=f"{same[0].site.name}[{layer_text(one.site.layer for one in same)}]",
            launches=len(same),
            columns=same[0].width,
            rows=len(same[0].bank),
            programs=_programs(same[0]),
            where=same[0].where,
            measured=rows_measured(same, hidden_size, measured) if measured else (),
            maps=tuple(_map(one, same, cost) for one in same[0].maps),
        )
        for same in groups.values()
    )


def _map(full: Map, sites: Sequence[PlacedSite], cost: Cost) -> MapRow:
    one, own = cost.maps[0], f"[{sites[0].site.layer}]"
    name = full.label.replace(own, "[L]") if len(sites) > 1 else full.label
    return MapRow(name, one.launches, one.flops, one.weight_bytes, round(one.predicted_us, 1))


def _programs(placed: PlacedSite) -> tuple[str, ...]:
    said = []
    for name, columns in placed.programs.items():
        bits = sorted({column.selector for column in columns})
        decays = sum(bool(column.form.mode & Mode.DECAY) for column in columns)
        gates = sum(column.form.kind == Kind.GATE for column in columns) - decays
        edits = len(columns) - gates - decays
        counts = {"column": edits, "gate": gates, "decay": decays}
        parts = [counted(count, noun) for noun, count in counts.items() if count]
        said.append(f"{name}: {', '.join(parts)}, {' '.join(f'm{bit}' for bit in bits)}")
    return tuple(said)


def _prefix(program: CompiledProgram, compilation: Compilation) -> CacheNote:
    """Say which cached blocks a program has of its own, and which statements are why.

    Blocks are keyed by the edits of their own tokens, and by the blocks before them.
    """
    name = program.name
    if not any(name in placed.programs for placed in compilation.plan.sites):
        return CacheNote(f"{name}: no edit is left, every block is shared")
    reaching = _reaching(name, compilation)
    if not reaching:
        return CacheNote(f"{name}: no later attention sees an edit, every block is shared")
    where = tuple(dict.fromkeys(line for lines in reaching.values() for line in lines))
    in_prompt = [one for one in reaching if overlap(one, InPhase(phase="prompt"))]
    if not in_prompt:
        said = "prompt blocks are shared, only blocks of edited generated tokens are its own"
        return CacheNote(f"{name}: {said}", where)
    either = Or(terms=tuple(in_prompt)) if len(in_prompt) > 1 else in_prompt[0]
    if implies(InPhase(phase="prompt"), either):
        return CacheNote(f"{name}: every prompt token is edited, every block is its own", where)
    first = (
        f"from the first prompt token of '{brief(selector_text(either))}' on, blocks are its own"
    )
    return CacheNote(f"{name}: {first}", where)


def _reaching(name: str, compilation: Compilation) -> dict[Selector, tuple[str, ...]]:
    """Return the selectors of edits that keys and values depend on, with their source lines."""
    plan = compilation.plan
    found: dict[Selector, tuple[str, ...]] = {}
    for placed in plan.sites:
        for column in placed.programs.get(name, ()):
            edits = column.form.kind != Kind.GATE
            if edits and placed.site.reaches_cache(plan.num_layers):
                selector = plan.selectors[column.selector]
                lines = tuple(origin.where for origin in column.origins)
                found[selector] = tuple(dict.fromkeys((*found.get(selector, ()), *lines)))
    return found
