"""What the statements of a request's programs do to every token, as an oracle of shared blocks.

It reads statements and never a column: for each token, the edits that apply to it and that some
later attention sees, in order, with the bytes of their directions, their scalars, and which of the
others they and their gates read. Two requests share a block exactly if these lists and the tokens
are the same up to its end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from interv.compile import compile_documents
from interv.document.document import Document
from interv.document.selectors import holds
from interv.document.sites import SITES
from interv.document.spec import (
    Ablate,
    Cap,
    Conflict,
    Gate,
    Program,
    Spec,
    Statement,
    Steer,
    VectorDecl,
)
from interv.runtime.config import InterventionConfig
from tests.passes.small import MODEL, L, layers_of, vectors
from tests.runtime.prefixes import BLOCK, Core

VECTORS = ("v", "w", "same", "one")
DECLARED = tuple(VectorDecl(name=name, path=f"{name}.safetensors") for name in VECTORS)
Place = tuple[int, str]  # layer, site


@dataclass(frozen=True)
class World:
    """The programs of one engine, and what happens where two of a request meet."""

    programs: tuple[Program, ...]
    conflict: Conflict

    def core(self, folder: Path) -> Core:
        spec = Spec(vectors=DECLARED, programs=self.programs, conflict=self.conflict)
        return Core(InterventionConfig(compile_documents([Document(spec, folder)], MODEL).bundle))


@dataclass(frozen=True)
class Asked:
    """A request's terms, and its tokens."""

    terms: tuple[tuple[str, float], ...]
    prompt: tuple[int, ...]
    generated: tuple[int, ...]

    @property
    def text(self) -> str:
        return " + ".join(f"{name}*{m!r}" for name, m in self.terms) or "off"

    @property
    def tokens(self) -> tuple[int, ...]:
        return (*self.prompt, *self.generated)


def content(
    statement: Statement, multiplier: float, layer: int, index: int
) -> tuple[Any, ...] | None:
    """Return what an edit does at a layer to generated token `index`, None for nothing."""
    assert isinstance(statement, Steer | Cap | Ablate)
    direction = vectors()[statement.vector].at(layer).tobytes()
    fading = (statement.decay, index) if statement.decay != 1 else ()
    if isinstance(statement, Steer):
        scale = statement.scale * multiplier
        plain = not (statement.by_norm or statement.keep_norm)
        how = "add" if plain else f"lengths {statement.by_norm} {statement.keep_norm}"
        return (how, direction, scale, *fading) if scale else None
    low, high = (statement.low, statement.high) if isinstance(statement, Cap) else (0.0, 0.0)
    ablate = statement if isinstance(statement, Ablate) else None
    strength = statement.strength * multiplier
    strength = strength if ablate and ablate.over else min(strength, 1.0)
    how = "clamp, norm kept" if ablate and ablate.keep_norm else "clamp"
    return (how, direction, low, high, strength, *fading) if strength else None


def edits_of(world: World, asked: Asked, position: int) -> list[Any]:
    """Return all that is done to a token and seen by a later attention, place by place."""
    places = [(layer, name) for layer in range(L) for name in SITES]
    seen = [place for place in places if place[1] == "pre_attn" or place[0] < L - 1]
    return [
        (place, *one.content, one.reads, _weight(world, asked, position, one, place))
        for place in seen
        for one in _at_site(world, asked, position, place)
    ]


@dataclass(frozen=True)
class Done:
    """An edit of a token at a place: what it does, and which of the others there it reads."""

    content: tuple[Any, ...]
    reads: tuple[int, ...]
    gate: Gate | None
    program: str
    number: int  # of the statement


def _at_site(world: World, asked: Asked, position: int, place: Place) -> list[Done]:
    found: list[Done] = []
    for program, multiplier in asked.terms:
        before = len(found)
        if before and world.conflict == "priority":
            break
        chosen = next(one for one in world.programs if one.name == program)
        for number, one in enumerate(chosen.statements):
            here = one.at.name == place[1] and place[0] in layers_of(one.at)
            if not here or not _holds(one, asked, position):
                continue
            assert isinstance(one, Steer | Cap | Ablate)
            done = content(one, multiplier, place[0], max(0, position - len(asked.prompt)))
            if done is not None:
                reads = _read(world, chosen, before, len(found)) if done[0] != "add" else ()
                found.append(Done(done, reads, one.gate, program, number))
            # Within a program even an edit without effect is one that others give way to.
            if chosen.conflict == "priority":
                break
    return found


def _read(world: World, program: Program, before: int, now: int) -> tuple[int, ...]:
    """Return which of `now` edits one reads, of which `before` are of programs before its own."""
    others = range(before if world.conflict == "sequential" else 0)
    own = range(before, before if program.conflict == "sum" else now)
    return (*others, *own)


def _weight(
    world: World, asked: Asked, position: int, one: Done, place: Place
) -> tuple[Any, ...] | None:
    """Return what the weight of an edit follows from, None where it has no gate."""
    if one.gate is None:
        return None
    if one.gate.site is not None:
        (layer,) = layers_of(one.gate.site)
        place = (layer, one.gate.site.name)
    names = [name for name, _ in asked.terms]
    until = replace(asked, terms=asked.terms[: names.index(one.program) + 1])
    there = _at_site(world, until, position, place)
    others = sum(each.program != one.program for each in there)
    own = sum(each.program == one.program and each.number < one.number for each in there)
    program = next(each for each in world.programs if each.name == one.program)
    read = _read(world, program, others, others + own)
    direction = vectors()[one.gate.vector].at(place[0]).tobytes()
    gate = one.gate
    how = (gate.absolute, gate.cosine, gate.sharpness, gate.threshold, gate.above, gate.below)
    return (place, direction, how, read)


def _holds(one: Statement, asked: Asked, position: int) -> bool:
    assert isinstance(one, Steer | Cap | Ablate)
    return holds(
        one.when, position, len(asked.prompt), asked.tokens[position], asked.tokens[:position]
    )


def shared_by_meaning(one: tuple[World, Asked], other: tuple[World, Asked]) -> int:
    """Return how many blocks two requests have in common, one token after the other."""
    known = min(len(one[1].tokens), len(other[1].tokens))
    for i in range(known):
        if one[1].tokens[i] != other[1].tokens[i] or edits_of(*one, i) != edits_of(*other, i):
            return i // BLOCK
    return known // BLOCK
