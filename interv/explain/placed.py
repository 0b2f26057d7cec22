"""The plan section: tables, selector bits, cost, and what it means for graphs and caches."""

from __future__ import annotations

from dataclasses import dataclass

from interv.compile import Compilation, CompiledProgram
from interv.passes.plan import PlacedSite
from interv.selectors import implies, overlap, selector_text
from interv.sites import POST_ATTN, POST_BLOCK, Site
from interv.spec import InPhase, Or, Selector
from interv.wording import counted, layer_text


@dataclass(frozen=True, slots=True)
class SiteRow:
    """One table, at all layers of `site` alike."""

    site: str
    launches: int
    columns: int  # K
    rows: int  # V
    programs: tuple[str, ...]  # "calm: 2 columns, selectors 0 1"
    where: tuple[str, ...]


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
    flops: int
    predicted_us: float
    machine: str
    cuda_graph_safe: bool
    prefix_cache: tuple[str, ...]
    structure: str
    contents: tuple[tuple[str, str], ...]


def plan_report(compilation: Compilation) -> PlanReport:
    """Say what was placed where, and what a step costs."""
    plan, cost = compilation.plan, compilation.plan.cost
    return PlanReport(
        sites=_sites(plan.sites),
        selectors=tuple(selector_text(one) for one in plan.selectors),
        tokens=cost.machine.tokens,
        launches=cost.launches,
        columns=cost.columns,
        stream_bytes=cost.stream_bytes,
        bank_bytes=cost.bank_bytes,
        flops=cost.flops,
        predicted_us=round(cost.predicted_us, 1),
        machine=cost.machine.name,
        # Every op there is reads tables in fixed buffers and synchronises with nothing.
        cuda_graph_safe=True,
        prefix_cache=tuple(_prefix(one, compilation) for one in compilation.programs),
        structure=compilation.bundle.structure,
        contents=tuple(sorted(compilation.bundle.contents.items())),
    )


def _sites(sites: tuple[PlacedSite, ...]) -> tuple[SiteRow, ...]:
    groups: dict[tuple[object, ...], list[PlacedSite]] = {}
    for placed in sites:
        key = (placed.site.name, placed.width, len(placed.bank), _programs(placed), placed.where)
        groups.setdefault(key, []).append(placed)
    return tuple(
        SiteRow(
            site=f"{same[0].site.name}[{layer_text(one.site.layer for one in same)}]",
            launches=len(same),
            columns=same[0].width,
            rows=len(same[0].bank),
            programs=_programs(same[0]),
            where=same[0].where,
        )
        for same in groups.values()
    )


def _programs(placed: PlacedSite) -> tuple[str, ...]:
    said = []
    for name, columns in placed.programs.items():
        bits = sorted({column.selector for column in columns})
        text = " ".join(f"m{bit}" for bit in bits)
        said.append(f"{name}: {counted(len(columns), 'column')}, {text}")
    return tuple(said)


def _prefix(program: CompiledProgram, compilation: Compilation) -> str:
    """Say which cached keys and values a program makes differ from the unedited model's."""
    name = program.name
    if not any(name in placed.programs for placed in compilation.plan.sites):
        return f"{name}: no edit is left, nothing differs"
    reaching = _reaching(name, compilation)
    if not reaching:
        return f"{name}: no later attention sees an edit, nothing differs"
    in_prompt = [one for one in reaching if overlap(one, InPhase(phase="prompt"))]
    if not in_prompt:
        return f"{name}: only generated tokens are edited, no prompt block differs"
    either = Or(terms=tuple(in_prompt)) if len(in_prompt) > 1 else in_prompt[0]
    if implies(InPhase(phase="prompt"), either):
        return f"{name}: every prompt token is edited, all blocks differ"
    return f"{name}: blocks differ from the first prompt token of '{selector_text(either)}' on"


def _reaching(name: str, compilation: Compilation) -> list[Selector]:
    """Return the selectors of the edits that keys and values of a later attention depend on."""
    plan = compilation.plan
    found = (
        plan.selectors[column.selector]
        for placed in plan.sites
        if _seen_by_attention(placed.site, plan.num_layers)
        for column in placed.programs.get(name, ())
    )
    return list(dict.fromkeys(found))


def _seen_by_attention(site: Site, num_layers: int) -> bool:
    return not (site.layer == num_layers - 1 and site.name in (POST_ATTN, POST_BLOCK))
