"""What `conflict joint` refuses: other edits, too many selectors, caps without a solution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from interv.document.selectors import selector_text
from interv.document.sites import Site
from interv.document.spec import Selector
from interv.document.wording import number_text, sites_text
from interv.errors import IntervError, Label
from interv.passes.caps.bounds import Unsolvable
from interv.passes.caps.halfspaces import MANY
from interv.passes.graph.context import Context
from interv.passes.graph.ir import (
    Node,
    decay_of,
    gate_of,
    is_op,
    origins,
    selector_of,
    statement_name,
)
from interv.passes.graph.ops import (
    ablate,
    ablate_keeping_norm,
    ablate_over,
    ablate_over_keeping_norm,
    cap,
)

# Every set of selectors that can hold together is a problem of its own: 15 of them for 4.
MOST_SELECTORS = 4

Met: TypeAlias = Sequence[tuple[Site, tuple[Node, ...]]]


@dataclass(frozen=True, slots=True, eq=False)
class Wrong:
    """Edits of a site that have no solution together; `found` numbers them."""

    site: Site
    edits: tuple[Node, ...]
    found: Unsolvable

    @property
    def members(self) -> tuple[Node, ...]:
        """Return the edits that it is about."""
        return tuple(self.edits[i] for i in self.found.members)


def bounds_of(edit: Node) -> tuple[float, float]:
    """Return the bounds of a cap, or those that an ablation is a cap to."""
    args: Any = edit.args
    return (float(args[2]), float(args[3])) if is_op(edit, cap) else (0.0, 0.0)


def refused(met: Met, ctx: Context) -> list[IntervError]:
    """Make an E412 for each statement that joint cannot take, however many sites it is at."""
    found: dict[int, tuple[Node, str, list[Site]]] = {}
    for site, edits in met:
        for edit in edits:
            if (why := _unfit(edit)) is not None:
                key = origins(edit)[0].order
                found.setdefault(key, (edit, why, []))[2].append(site)
    return [_refusal(*found[key], ctx) for key in sorted(found)]


def _unfit(edit: Node) -> str | None:
    args: Any = edit.args
    if is_op(edit, ablate_keeping_norm, ablate_over_keeping_norm):
        return "keeps the norm"
    if is_op(edit, ablate_over):
        return "may take away more than all"
    if not is_op(edit, cap, ablate):
        return "is no cap"
    if gate_of(edit) is not None:
        return "has a gate"
    if decay_of(edit) is not None:
        return "decays"
    if args[-2] != 1:
        return f"has strength {number_text(args[-2])}"
    return None


def _refusal(edit: Node, why: str, sites: list[Site], ctx: Context) -> IntervError:
    origin = origins(edit)[0]
    name = f"{statement_name(edit)} ({origin.where})"
    return IntervError(
        "E412",
        f"{name} of program '{ctx.program}' cannot be solved jointly at {sites_text(sites)}",
        origin.span,
        f"{why}, and meets another edit",
        notes=["'conflict joint' takes cap and ablate, of strength 1, without a gate or decay"],
        helps=["say 'conflict sequential', or let it apply to tokens that the others leave alone"],
    )


def too_many(met: Met, classes: Sequence[tuple[Selector, ...]], ctx: Context) -> list[IntervError]:
    """Make an E413 for each set of too many selectors, however many sites they meet at."""
    sites: dict[tuple[Selector, ...], list[Site]] = {}
    first: dict[tuple[Selector, ...], Node] = {}
    for (site, edits), found in zip(met, classes, strict=True):
        if len(found) > MOST_SELECTORS:
            sites.setdefault(found, []).append(site)
            beyond = next(e for e in edits if selector_of(e) == found[MOST_SELECTORS])
            first.setdefault(found, beyond)
    return [_crowd(found, first[found], where, ctx) for found, where in sites.items()]


def _crowd(found: tuple[Selector, ...], edit: Node, sites: list[Site], ctx: Context) -> IntervError:
    return IntervError(
        "E413",
        f"{len(found)} selectors meet at {sites_text(sites)} in program '{ctx.program}', "
        f"{MOST_SELECTORS} are possible with 'conflict joint'",
        origins(edit)[0].span,
        "one too many",
        notes=[f"selectors: {'  ·  '.join(selector_text(one) for one in found)}"],
        helps=["use one selector for several of them, or say 'conflict sequential'"],
    )


def unsolvable(wrong: Sequence[Wrong], ctx: Context) -> list[IntervError]:
    """Make one error for each set of statements, however many sites and tokens they meet at."""
    sites: dict[tuple[object, ...], list[Site]] = {}
    first: dict[tuple[object, ...], Wrong] = {}
    for one in wrong:
        key = (one.found.why, *(origins(edit)[0].order for edit in one.members))
        first.setdefault(key, one)
        if one.site not in sites.setdefault(key, []):
            sites[key].append(one.site)
    return [
        (_infeasible if one.found.why == "infeasible" else _too_close)(one, sites[key], ctx)
        for key, one in first.items()
    ]


def _infeasible(wrong: Wrong, sites: list[Site], ctx: Context) -> IntervError:
    return _unsolved(
        "E414",
        f"the caps of program '{ctx.program}' at {sites_text(sites)} cannot all hold: "
        f"{_listed(wrong.members)}",
        wrong,
        "without any one of them the others can hold",
        "widen a bound, or let them apply to different tokens",
    )


def _too_close(wrong: Wrong, sites: list[Site], ctx: Context) -> IntervError:
    notes = {
        "close": f"the largest |cos| between two of them is {wrong.found.cosine:.6g}",
        "dependent": "each is a combination of the others, and bounds what they leave open",
        "many": f"of more than {MANY} at once only a bound on their dependence is known",
    }
    return _unsolved(
        "E415",
        f"directions of program '{ctx.program}' at {sites_text(sites)} are too close to "
        f"dependent: {_listed(wrong.members)}",
        wrong,
        notes[wrong.found.why],
        "leave one of them out, or say 'conflict sequential'",
    )


def _unsolved(code: str, message: str, wrong: Wrong, note: str, help_: str) -> IntervError:
    labels = _labels(wrong.members)
    return IntervError(
        code,
        message,
        labels[0].span if labels else None,
        labels[0].text if labels else "",
        more=labels[1:],
        notes=[*_bounds(wrong.members), note],
        helps=[help_],
    )


def _listed(members: Sequence[Node]) -> str:
    named = [f"{statement_name(edit)} ({origins(edit)[0].where})" for edit in members]
    return " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)


def _bounds(members: Sequence[Node]) -> list[str]:
    return [f"{origins(edit)[0].where}: {_label_of(edit)}·h in {_range(edit)}" for edit in members]


def _label_of(edit: Node) -> str:
    node: Any = edit.args[1]
    return str(node.args[0])


def _range(edit: Node) -> str:
    ends = ("" if abs(end) == float("inf") else number_text(end) for end in bounds_of(edit))
    return f"[{', '.join(ends)}]"


def _labels(members: Sequence[Node]) -> list[Label]:
    found = ((origins(edit)[0].span, f"holds it in {_range(edit)}") for edit in members)
    return [Label(span, text) for span, text in found if span is not None]
