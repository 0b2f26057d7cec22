"""What the algorithms of EasySteer do, as statements: `h` is the stream that leaves a block.

    direct           h + s·v                  steer v scale s
      normalize      the same at length ‖h‖   steer v scale s keep norm
    erase            h − (h·v/(‖v‖²+ε)) v     ablate v
    replace          s·v                      replace v scale s
    concept_replace  h + (h·v/(‖v‖²+ε))(w−v)  replace v by w
    linear           s (h Wᵀ + b)             apply, with s·W and s·b where s is not 1
    lm_steer         h + s (h P1) P2ᵀ         apply scale s
    loreft           h + s (h Wᵀ + b − h R)Rᵀ apply scale s

ε is 1e-8; where it is more than float32 can see, it becomes a strength ‖v‖²/(‖v‖²+ε).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np

from interv.document.selectors import overlap
from interv.document.spec import Ablate, Apply, Conflict, Replace, Selector, SiteRef, Steer
from interv.document.wording import item_text, number_text
from interv.errors import IntervError, suggest
from interv.importers.arrays import Array
from interv.importers.draft import Change, Draft, place, unfit
from interv.vectors import Adapter
from interv.vectors.updates import LinearParts, LowRankParts
from interv.vectors.words import EVERY, at_text

EPSILON = 1e-8
# Half a unit in the last place of float32: a smaller change of a factor is none.
UNSEEN = 2.0**-24
V0_ALGORITHMS = ("direct", "linear", "lm_steer", "loreft")
V2_ALGORITHMS = (*V0_ALGORITHMS, "erase", "replace", "concept_replace")
# What version 0 spreads an update without layers over, however many the model has.
SPREAD = {"linear": 48, "lm_steer": 32}
ROUTER = "moe_router"
# Statements are made for it, and get their layers later.
ANY = SiteRef(name="post_block", layers=("*",))
CONFLICTS = ("error", "priority", "sequential")


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """Directions by layer under a name of the document; EVERY is one for all layers."""

    name: str
    rows: Mapping[int, Array]

    def at(self, layer: int) -> Array:
        """Return the direction [H] of a layer."""
        return self.rows[EVERY if EVERY in self.rows else layer]


# What a vector of a request holds: directions, two banks of them, or an update.
Held: TypeAlias = Bank | tuple[Bank, Bank] | Adapter


@dataclass(frozen=True, slots=True)
class Asked:
    """One vector of a request, of either version."""

    where: str
    algorithm: str
    scale: float
    layers: tuple[int, ...] | None
    normalize: bool
    when: Selector


def check_algorithm(name: str, known: Sequence[str], where: str) -> None:
    """Raise E211 for an algorithm that there is not."""
    if name not in (*known, ROUTER):
        raise IntervError(
            "E211",
            f"'{name}' is not an algorithm",
            notes=(f"in {where}", f"algorithms: {', '.join(known)}"),
            helps=suggest(name, known),
        )


def statements(draft: Draft, asked: Asked, held: Held) -> list[Change]:
    """Return the statements that do what one vector of a request does.

    Raises E261 for what cannot be said, E263 for an algorithm and arrays that do not fit.
    """
    if asked.normalize and asked.algorithm != "direct":
        draft.say(f"{asked.where}: 'normalize' changes nothing but 'direct' there, and is left out")
    when = asked.when
    match asked.algorithm, held:
        case "direct", Bank():
            steer = Steer(at=ANY, when=when, vector=held.name, scale=asked.scale)
            steer = steer.model_copy(update={"keep_norm": asked.normalize})
            return _at(draft, asked, held.rows, steer)
        case "replace", Bank():
            edit = Replace(at=ANY, when=when, vector=held.name, scale=asked.scale)
            return _at(draft, asked, held.rows, edit)
        case "erase", Bank():
            return _projected(draft, asked, held, Ablate(at=ANY, when=when, vector=held.name))
        case "concept_replace", (Bank() as old, Bank() as new):
            edit = Replace(at=ANY, when=when, vector=old.name, by=new.name)
            return _projected(draft, asked, old, edit)
        case "linear" | "lm_steer" | "loreft", Adapter():
            return _update(draft, asked, held)
    raise unfit(f"what is held for '{asked.algorithm}'", asked.where, "it is of another kind")


def _at(draft: Draft, asked: Asked, rows: Iterable[int], edit: Change) -> list[Change]:
    layers = layers_of(draft, asked, set(rows))
    return [edit.model_copy(update={"at": place(layers)})] if layers else []


def layers_of(draft: Draft, asked: Asked, there: set[int]) -> list[int]:
    """Return the layers that are edited: those asked for that there is something for."""
    if EVERY in there:
        return sorted(set(asked.layers or ()))
    found = sorted(there if asked.layers is None else there & set(asked.layers))
    if asked.layers is not None and (rest := sorted(set(asked.layers) - there)):
        draft.say(f"{asked.where}: nothing is held{at_text(rest)}, which is left out")
    return found


def _projected(draft: Draft, asked: Asked, bank: Bank, edit: Ablate | Replace) -> list[Change]:
    """Place an edit of the part along a direction, which takes no scale."""
    if asked.scale != 1:
        words = f"scale {number_text(asked.scale)} changes nothing of '{asked.algorithm}' there"
        draft.say(f"{asked.where}: {words}, and is left out")
    by_strength: dict[float, list[int]] = {}
    for layer in layers_of(draft, asked, set(bank.rows)):
        square = float(np.square(bank.at(layer).astype(np.float64)).sum())
        strength = 1.0 if square * UNSEEN > EPSILON else square / (square + EPSILON)
        by_strength.setdefault(strength, []).append(layer)
    return [
        edit.model_copy(update={"at": place(layers), "strength": strength})
        for strength, layers in by_strength.items()
    ]


def _update(draft: Draft, asked: Asked, held: Adapter) -> list[Change]:
    wanted = "linear" if asked.algorithm == "linear" else "low_rank"
    if held.kind != wanted:
        words = {"linear": "a linear map", "low_rank": "a low-rank update"}
        what = f"{words[held.kind]} for '{asked.algorithm}'"
        raise unfit(what, asked.where, f"wanted: {words[wanted]}")
    if held.site not in (None, "post_block"):
        reason = f"it was trained at {held.site}, and is applied to what leaves a block there"
        draft.cannot(asked.where, "this update", reason, "the update is left out")
        return []
    at = _update_place(draft, asked, held)
    if at is None:
        return []
    if asked.algorithm != "linear":
        name = draft.keep_adapter(held)
        return [Apply(at=at, when=asked.when, adapter=name, scale=asked.scale)]
    if asked.scale == 0:
        draft.cannot(asked.where, "a linear map of scale 0", _NOTHING, "the map is left out")
        return []
    name = draft.keep_adapter(held) if asked.scale == 1 else _folded(draft, asked, held)
    return [Apply(at=at, when=asked.when, adapter=name)]


_NOTHING = "it sets the stream to zero, which no map of ours does"


def _update_place(draft: Draft, asked: Asked, held: Adapter) -> SiteRef | None:
    """Return where an update is applied; what serves every layer needs layers."""
    if EVERY not in held.parts or asked.layers is not None:
        layers = layers_of(draft, asked, set(held.parts))
        return place(layers) if layers else None
    count = SPREAD.get(asked.algorithm)
    reason = f"it is spread over the first {count} layers there" if count else "no layers are named"
    what = f"'{asked.algorithm}' without layers"
    draft.cannot(asked.where, what, reason, "all layers of the model are edited")
    return ANY


def _folded(draft: Draft, asked: Asked, held: Adapter) -> str:
    """Write a linear map with its scale inside, computed in float64 and rounded once."""
    tensors = {}
    for layer, parts in held.parts.items():
        prefix = "" if layer == EVERY else f"layer.{layer}."
        assert isinstance(parts, LinearParts)
        exact = parts.exact()
        tensors[f"{prefix}weight"] = (asked.scale * exact.weight).astype(np.float32)
        tensors[f"{prefix}bias"] = (asked.scale * exact.bias).astype(np.float32)
    scale = number_text(asked.scale)
    draft.say(f"{asked.where}: scale {scale} multiplies the map and its bias there, and is in both")
    return draft.update(held.name, tensors, asked.where)


def plain_tensors(parts: LowRankParts | LinearParts, layer: int = EVERY) -> dict[str, Array]:
    """Return an update as the tensors of a plain adapter file, in float32."""
    prefix = "" if layer == EVERY else f"layer.{layer}."
    exact = parts.exact()
    names = ("weight", "bias") if isinstance(parts, LinearParts) else ("read", "bias", "write")
    return {f"{prefix}{name}": getattr(exact, name).astype(np.float32) for name in names}


def add_program(draft: Draft, name: str, found: Sequence[tuple[str, Change]], policy: str) -> None:
    """Add a program of statements, each with the place of its vector in the request.

    Raises E261 where two of them meet under `error`, which fails the request there, and where a
    linear map would come after another edit of its site.
    """
    edits = [edit for _, edit in found]
    several = len({where for where, _ in found}) > 1
    conflict: Conflict = "sequential"
    if several and policy == "error":
        conflict = "error"
    elif several and policy == "priority":
        conflict = "priority"
    for (first, one), (second, two) in combinations(found, 2):
        if first == second or not _meet(one, two):
            continue
        pair = f"an overlap of {first} and {second}"
        if conflict == "error":
            reason = "they fail the request there, under 'error'"
            draft.cannot(second, pair, reason, f"{second} loses the tokens they share")
            conflict = "priority"
        elif conflict == "sequential" and _is_map(draft, two):
            raise IntervError(
                "E261",
                f"{pair} has no exact equal here",
                notes=(f"in {second}", "a linear map comes before all other edits of its site"),
            )
    draft.program(name, edits, conflict)


def _meet(one: Change, two: Change) -> bool:
    return bool(_layers(one.at) & _layers(two.at)) and overlap(one.when, two.when)


def _layers(at: SiteRef) -> set[int]:
    found: set[int] = set()
    for item in at.layers:
        first, _, last = item_text(item).partition("..")
        if first == "*":
            return set(range(100_000))
        found |= set(range(int(first), int(last or first) + 1))
    return found


def _is_map(draft: Draft, edit: Change) -> bool:
    return isinstance(edit, Apply) and edit.adapter in draft.maps
