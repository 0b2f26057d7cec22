"""The triggers of EasySteer as selectors; `docs/selectors.md` has the same as tables."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from interv.document.positions import merged
from interv.document.selectors import atoms, satisfiable
from interv.document.spec import (
    And,
    At,
    Everything,
    InPhase,
    Not,
    Or,
    Phase,
    Selector,
    Slice,
    Token,
)
from interv.errors import IntervError
from interv.importers.fields import LARGEST_ID, Fields

PROMPT, GENERATED = InPhase(phase="prompt"), InPhase(phase="generated")
V0_TRIGGERS = (
    "prefill_trigger_tokens",
    "prefill_trigger_positions",
    "prefill_exclude_tokens",
    "prefill_exclude_positions",
    "generate_trigger_tokens",
)
KINDS = ("tokens", "positions", "window")
V2_TRIGGERS = (
    *("prompt", "generation"),
    *(f"{phase}_{kind}" for phase in ("prompt", "generation") for kind in KINDS),
    *(f"exclude_{phase}_{kind}" for phase in ("prompt", "generation") for kind in KINDS),
)
# Deciding whether a selector can hold is cubic in its parts; documents have at most so many.
MOST_PARTS = 64
EVERY_TOKEN = -1


def v0_selector(fields: Fields) -> Selector | None:
    """Return which tokens a vector of version 0 is for, None for none.

    Includes of a phase unite, its excludes are subtracted; -1 among tokens is every token.
    """
    places = fields.whole("prefill_trigger_positions", -LARGEST_ID, LARGEST_ID) or ()
    included = [*_v0_tokens(fields, "prefill_trigger_tokens", PROMPT), *_places("prompt", places)]
    places = fields.whole("prefill_exclude_positions", -LARGEST_ID, LARGEST_ID) or ()
    excluded = [*_v0_tokens(fields, "prefill_exclude_tokens", PROMPT), *_places("prompt", places)]
    return _united(
        _subtract(included, excluded),
        _subtract(_v0_tokens(fields, "generate_trigger_tokens", GENERATED), []),
    )


def _v0_tokens(fields: Fields, name: str, phase: InPhase) -> list[Selector]:
    ids = fields.whole(name, EVERY_TOKEN, LARGEST_ID) or ()
    if EVERY_TOKEN in ids:
        return [phase]
    return [And(terms=(phase, Token(ids=_once(ids))))] if ids else []


def v2_selector(fields: Fields) -> Selector | None:
    """Return which tokens an `ApplySpec` selects, None for none.

    Raises E207 and E211 for what it refuses itself: empty lists and windows, negative steps.
    """
    fields.only(V2_TRIGGERS)
    phases = []
    for word, phase in (("prompt", PROMPT), ("generation", GENERATED)):
        included = _v2_matches(fields, word, phase)
        if fields.has(word) and fields.choice(word, ("all",), "all"):
            included = [phase]
        phases.append(_subtract(included, _v2_matches(fields, f"exclude_{word}", phase)))
    return _united(*phases)


def _v2_matches(fields: Fields, prefix: str, phase: InPhase) -> list[Selector]:
    in_prompt = phase is PROMPT
    least = -LARGEST_ID if in_prompt else 0
    found: list[Selector] = []
    if ids := _filled(fields, f"{prefix}_tokens", 0):
        found.append(And(terms=(phase, Token(ids=_once(ids)))))
    if places := _filled(fields, f"{prefix}_positions", least):
        found += _places(phase.phase, places)
        if in_prompt and max(places) > 0:
            # A position past the end is moved to the last prompt token there.
            last = At(phase="prompt", index=-1)
            found.append(And(terms=(last, Slice(phase="prompt", stop=max(places)))))
    if fields.has(f"{prefix}_window"):
        found.append(_window(fields, f"{prefix}_window", phase.phase, least))
    return found


def _filled(fields: Fields, name: str, least: int) -> tuple[int, ...]:
    values = fields.whole(name, least, LARGEST_ID)
    if values == ():
        raise fields.wrong(name, "a list that is not empty", [])
    return values or ()


def _window(fields: Fields, name: str, phase: Phase, least: int) -> Selector:
    value = fields.need(name)
    numbers = [one for one in value if one is not None] if isinstance(value, list) else []
    if not isinstance(value, list) or len(value) != 2 or not numbers or value[0] is None:
        raise fields.wrong(name, "[start, stop] or [start, null]", value)
    bounds = Fields({name: numbers}, fields.where).whole(name, least, LARGEST_ID) or ()
    start, stop = bounds[0], bounds[1] if len(bounds) > 1 else None
    if stop is not None and (start < 0) == (stop < 0) and stop <= start:
        notes = (f"in {fields.inside(name)}", "a window ends behind its start")
        raise IntervError("E208", f"[{start}, {stop}] is an empty window", notes=notes)
    return Slice(phase=phase, start=start, stop=stop)


def _places(phase: Phase, positions: Collection[int]) -> list[Selector]:
    """Return positions as selectors, runs of three and more as slices."""
    found: list[Selector] = []
    for run in _runs(sorted(set(positions))):
        if len(run) > 2:
            stop = run[-1] + 1
            # -1 is the last token: what follows it is the end, not position 0.
            found.append(Slice(phase=phase, start=run[0], stop=stop if stop != 0 else None))
        else:
            found += [At(phase=phase, index=one) for one in run]
    return found


def _runs(positions: Sequence[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for one in positions:
        # -1 and 0 are the two ends of a prompt, and no neighbours.
        if runs and one == runs[-1][-1] + 1 and one != 0:
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs


def _subtract(included: Sequence[Selector], excluded: Sequence[Selector]) -> Selector | None:
    if not included:
        return None
    if not excluded:
        return any_of(included)
    parts = any_of(included)
    terms = parts.terms if isinstance(parts, And) else (parts,)
    return And(terms=(*terms, Not(term=any_of(excluded))))


def _united(prompt: Selector | None, generated: Selector | None) -> Selector | None:
    """Join what is selected of the two phases; None where no token can be."""
    if (prompt, generated) == (PROMPT, GENERATED):
        return Everything()
    found = [one for one in (prompt, generated) if one is not None and _can_hold(one)]
    return any_of(found) if found else None


def _can_hold(selector: Selector) -> bool:
    return len(list(atoms(selector))) > MOST_PARTS or satisfiable(selector)


def any_of(terms: Iterable[Selector]) -> Selector:
    """Return a selector for what at least one of these selects; a flat one, positions listed."""
    flat: list[Selector] = []
    for term in terms:
        flat += term.terms if isinstance(term, Or) else (term,)
    return flat[0] if len(flat) == 1 else merged(Or(terms=tuple(flat)))


def _once(ids: Iterable[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(ids))
