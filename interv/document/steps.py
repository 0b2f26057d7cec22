"""Gates that are steps: what goes with their bounds, and bounds that decide nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator

from interv.document.document import Document, SpecPath
from interv.document.spec import Gate
from interv.document.wording import number_text, path_notes
from interv.errors import IntervError


def step_faults(document: Document, path: SpecPath, gate: Gate) -> Iterator[IntervError]:
    """Yield E861 and E862 for the gate at `path`, where it is a step."""
    bounds = {"above": gate.above, "below": gate.below}
    given = [word for word, bound in bounds.items() if bound is not None]
    if not given:
        return
    for word, at_rest in (("sharpness", 1), ("threshold", 0)):
        if getattr(gate, word) != at_rest or (*path, word) in document.spans:
            yield _curve(document, (*path, word), given)
    why = _decides_nothing(gate)
    if why is not None:
        where = (*path, given[-1])
        yield IntervError(
            "E862",
            f"the gate on '{gate.vector}' {why[0]}",
            document.span(*where),
            why[1],
            notes=path_notes(document, where) and (*path_notes(document, where), why[1]),
        )


def _curve(document: Document, path: SpecPath, given: list[str]) -> IntervError:
    word = path[-1]
    return IntervError(
        "E861",
        f"a gate with '{given[0]}' has no {word}",
        document.span(*path),
        "part of a curve",
        notes=path_notes(document, path),
        helps=(f"leave out '{word}', or {_said(given)}: a gate is a curve or a step",),
    )


def _said(given: list[str]) -> str:
    return " and ".join(f"'{word}'" for word in given)


def _decides_nothing(gate: Gate) -> tuple[str, str] | None:
    """Say that a step never opens, or never shuts, and why; None for one that can do both."""
    low = -math.inf if gate.above is None else gate.above
    high = math.inf if gate.below is None else gate.below
    if low >= high:
        said = f"nothing is above {number_text(low)} and below {number_text(high)}"
        return "never opens", said
    least = 0.0 if gate.absolute else -1.0 if gate.cosine else -math.inf
    most = 1.0 if gate.cosine else math.inf
    read = f"{'an absolute ' if gate.absolute else 'a '}{'cosine' if gate.cosine else 'value'}"
    if high <= least:
        return "never opens", f"{read} is never below {number_text(high)}"
    if gate.cosine and low >= most:
        return "never opens", f"{read} is never above {number_text(low)}"
    if (low < least and high > most) or (low < least and high == most == math.inf):
        return "never shuts", f"{read} is always within"
    return None
