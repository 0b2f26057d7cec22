"""How much of the prefix cache two requests may share, from the statements of their programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from interv.document.selectors import holds
from interv.document.spec import Ablate, Cap, Program, SiteRef, Steer
from interv.load import load_document, load_text
from tests.engine.answer import Ask
from tests.engine.models import LAYERS
from tests.engine.oracle import Place

BLOCK = 32  # vLLM's CPU backend has no smaller ones


@dataclass(frozen=True)
class Fed:
    """The tokens of a request whose keys and values are in the cache, and where its prompt ends."""

    ask: Ask
    tokens: tuple[int, ...]

    @classmethod
    def whole(cls, ask: Ask, ids: Sequence[int]) -> Fed:
        """Return a finished request; its last token was never fed."""
        return cls(ask, (*ask.prompt, *ids)[:-1])


class Sharing:
    """The oracle: two tokens are alike where the same is done to them, in the same order."""

    def __init__(self, document: Path) -> None:
        spec = load_document(document).spec
        self._programs = {one.name: one for one in spec.programs}
        self._default, self._folder = spec.default, document.parent
        self._declared = "".join(f'vector {one.name} = "{one.path}"\n' for one in spec.vectors)
        files = {one.name: load_file(document.parent / one.path) for one in spec.vectors}
        self._bytes = {
            name: next(iter(tensors.values())).numpy().tobytes() for name, tensors in files.items()
        }

    def cached(self, before: Sequence[Fed], ask: Ask) -> int:
        """Return how many tokens of a request's prompt are cached after others have run."""
        mine = Fed(ask, tuple(ask.prompt))
        found = max((self._common(one, mine) for one in before), default=0)
        # One token has to be fed for there to be an answer.
        return min(found, len(ask.prompt) - 1) // BLOCK * BLOCK

    def _common(self, one: Fed, other: Fed) -> int:
        if one.ask.salt != other.ask.salt:
            return 0
        known = min(len(one.tokens), len(other.tokens))
        for i in range(known):
            if one.tokens[i] != other.tokens[i] or self._done(one, i) != self._done(other, i):
                return i
        return known

    def _done(self, fed: Fed, position: int) -> list[Any]:
        """Return what is done to a token and seen by a later attention, site by site."""
        found: dict[Place, list[Any]] = {}
        for program, multiplier in self._terms(fed.ask):
            for one in program.statements:
                assert isinstance(one, Steer | Cap | Ablate)
                site, layer = _place(one.at)
                token = fed.tokens[position]
                seen = site == "pre_attn" or layer < LAYERS - 1
                earlier = fed.tokens[:position]
                if seen and holds(one.when, position, len(fed.ask.prompt), token, earlier):
                    index = max(0, position - len(fed.ask.prompt))
                    fading = ("decay", one.decay, index) if one.decay != 1 else ()
                    done = (*self._content(one, multiplier), *self._weight(one, found), *fading)
                    found.setdefault((site, layer), []).append(done)
        return sorted(found.items())

    def _weight(self, one: Steer | Cap | Ablate, found: dict[Place, list[Any]]) -> tuple[Any, ...]:
        """Return what the weight of an edit follows from: the gate, and what was done before it."""
        if one.gate is None:
            return ()
        place = _place(one.at if one.gate.site is None else one.gate.site)
        numbers = (one.gate.sharpness, one.gate.threshold)
        return ("gate", place, tuple(found.get(place, ())), self._bytes[one.gate.vector], *numbers)

    def _content(self, one: Steer | Cap | Ablate, multiplier: float) -> tuple[Any, ...]:
        direction = self._bytes[one.vector]
        if isinstance(one, Steer):
            return ("add", direction, one.scale * multiplier)
        bounds = (one.low, one.high) if isinstance(one, Cap) else (0.0, 0.0)
        return ("clamp", direction, *bounds, min(one.strength * multiplier, 1.0))

    def _terms(self, ask: Ask) -> list[tuple[Program, float]]:
        asked = self._default if ask.program is None else ask.program
        if asked in (None, "off"):
            return []
        if asked.startswith("interv"):
            whole = asked.replace("interv 1\n", f"interv 1\n{self._declared}")
            return [(load_text(whole, "inline", self._folder).spec.programs[0], 1.0)]
        terms = [term.split("*") for term in asked.split(" + ")]
        each = [(self._programs[name], float(m[0]) if m else 1.0) for name, *m in terms]
        return [(program, multiplier) for program, multiplier in each if multiplier]


def _place(at: SiteRef) -> Place:
    (layer,) = at.layers
    assert isinstance(layer, int)
    return at.name, layer % LAYERS
