"""What is captured, in the plan: where, for which tokens, to which sink, and how much."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from interv.document.selectors import overlap, selector_text
from interv.document.sites import SITES
from interv.document.spec import InPhase
from interv.document.wording import brief, layer_text
from interv.passes.placing.plan import PlacedCapture, Plan

# Of a stream in bf16, as the rest of the plan assumes.
_ELEMENT_BYTES = 2


@dataclass(frozen=True, slots=True)
class CaptureRow:
    """One capture statement; the numbers are for one token that it takes."""

    program: str
    sites: str  # "post_block[10..12]"
    points: int
    text: str
    row_bytes: int  # of a token, at all of its sites
    where: tuple[str, ...]


def capture_rows(plan: Plan) -> tuple[CaptureRow, ...]:
    """Return the captures of all programs, as they are listed."""
    return tuple(_row(one, plan) for one in plan.captures)


def _row(one: PlacedCapture, plan: Plan) -> CaptureRow:
    names = [name for name in SITES if any(site.name == name for site in one.sites)]
    sites = ", ".join(
        f"{name}[{layer_text(site.layer for site in one.sites if site.name == name)}]"
        for name in names
    )
    said = one.capture
    parts = [f"m{one.selector} to {said.to}", f"{'after' if said.after else 'before'} the edits"]
    parts += [f"rank {said.rank} where that is smaller"] if said.rank else []
    parts += [f"of {said.sample:g} of its requests"] if said.sample else []
    parts += ["stored when marked"] if said.keep == "marked" else []
    row_bytes = len(one.sites) * plan.hidden_size * _ELEMENT_BYTES
    where = (one.origin.where,)
    return CaptureRow(one.program, sites, len(one.sites), ", ".join(parts), row_bytes, where)


def rerun(program: str, plan: Plan) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield what a program's captures take from the prefix cache, and the statements that do."""
    prompt = InPhase(phase="prompt")
    for one in plan.captures:
        selector = plan.selectors[one.selector]
        if one.program == program and overlap(selector, prompt):
            said = (
                f"a cached prefix ends before its first token of '{brief(selector_text(selector))}'"
            )
            yield f"{program}: {said}, whose row is captured", (one.origin.where,)
