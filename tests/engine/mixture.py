"""Many requests with a configuration each: programs, expressions, and what the oracle says.

The programs edit four blocks at all three sites, with every kind of edit and of selector; two of
them meet at one site, and `mixed` applies to requests that say nothing.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import reduce
from pathlib import Path

import torch
from safetensors.torch import load_file

from interv.document.selectors import holds
from interv.document.spec import Ablate, Cap, Program, Statement, Steer
from interv.load import load_document
from tests.engine.answer import Answer, Ask
from tests.engine.models import HIDDEN_SIZE, VOCABULARY
from tests.engine.oracle import Edit, Oracle, Place
from tests.engine.programs import Directions

# The model's answers have some of these every few tokens.
OPENS, CLOSES = (", ".join(map(str, range(first, VOCABULARY, 9))) for first in (3, 8))
DOCUMENT = f"""interv 1
vector v = "v.safetensors"
vector w = "w.safetensors"
program steered {{
  steer  v at post_block[1] scale 0.4 decay 0.98 when prompt[-1] or generated
}}
program marked {{
  steer  w at pre_attn[3] scale 0.5 when token(3, 4, 5) or prompt[-1]
    or between token({OPENS}) and token({CLOSES}, [9, 3])
}}
program held {{
  cap    w at post_attn[2] in [-0.1, 0.4] strength 1.0 when prompt[2:5] or generated[1:]
}}
program cut {{
  ablate v at pre_attn[1] strength 1.0 when not token(7)
}}
program near {{
  cap    v at post_block[1] in [-0.3, 0.2] decay 0.95 when prompt[-1] or generated[2:]
}}
program mixed {{
  steer  v at post_block[2] scale 0.2
  cap    w at post_block[2] in [-0.2, 0.5]
  ablate v at post_attn[0] strength 0.25 when generated or prompt[:3]
}}
default mixed
"""
STEERING = ("steered", "marked")
CLAMPING = ("held", "cut", "near", "mixed")


def write_document(folder: Path, hidden_size: int = HIDDEN_SIZE, norm: float = 5.0) -> Path:
    """Write the document and its vectors."""
    Directions.random(hidden_size, norm).save(folder)
    path = folder / "mixture.interv"
    path.write_text(DOCUMENT)
    return path


def expression(i: int) -> str:
    """Return the i-th of a few hundred different expressions, none of them the default's."""
    scale = 0.26 + 0.03125 * (i // 6)
    name = (*STEERING, *CLAMPING)[i % 6]
    if name in STEERING:
        return f"{name}*{-scale if i % 4 == 1 else scale} + {CLAMPING[i // 6 % 4]}*{scale / 2}"
    if i % 2:
        return f"{name}*{scale}"
    return f"{name}*{scale} + {STEERING[i // 6 % 2]}*{-scale}"


def mixture(count: int, tokens: int = 8, longest: int = 40, seed: int = 5) -> list[Ask]:
    """Return requests with different prompts, lengths and configurations.

    One says nothing, one says "off", and every other has an expression that no other one has.
    """
    rng = random.Random(seed)
    asks = [
        Ask(
            [3 + int((VOCABULARY - 3) * rng.random() ** 2) for _ in range(rng.randint(1, longest))],
            expression(i),
            rng.randint(tokens // 2, tokens),
        )
        for i in range(count)
    ]
    for index, program in ((count // 2, None), (count // 3, "off")):
        asks[index] = replace(asks[index], program=program)
    assert len({ask.program for ask in asks}) == count
    return asks


def unsaid(asks: list[Ask]) -> list[Ask]:
    """Return the same requests for an engine without interventions."""
    return [replace(ask, program=None, report=False) for ask in asks]


class Expected:
    """The oracle for requests of the mixture."""

    def __init__(self, model: Path, document: Path) -> None:
        self.oracle = Oracle(model)
        self._spec = load_document(document).spec
        self._vectors = {n: load_file(document.parent / f"{n}.safetensors")[n] for n in ("v", "w")}

    def follow(self, ask: Ask, ids: list[int]) -> Answer:
        """Return what the model under the request's programs says along an answer's `ids`."""
        return self.oracle.follow(ask.prompt, ids, self._edits(ask, ids))

    def given(self, ask: Ask, ids: list[int]) -> Answer:
        """Return what the same model says of an answer's tokens, whatever chose them."""
        whole, start = ask.prompt + ids, len(ask.prompt) - 1
        scores = self.oracle.follow(whole, [0], self._edits(ask, ids)).prompt_logprobs
        return Answer(ids, scores[start:], scores[:start])

    def rows(self, ask: Ask, ids: list[int]) -> dict[str, dict[str, int]]:
        """Return how many rows of the request each program has to edit, by site.

        Only for programs whose every selected row really moves: no cap inside its bounds.
        """
        fed = (ask.prompt + ids)[:-1]
        found: dict[str, dict[str, int]] = {}
        for program, _ in self._terms(ask):
            for one in program.statements:
                rows = sum(_mask(one, ask, fed))
                site = f"{one.at.name}[{one.at.layers[0]}]"
                if rows:
                    found.setdefault(program.name, {})[site] = rows
        return found

    def _terms(self, ask: Ask) -> list[tuple[Program, float]]:
        named = {program.name: program for program in self._spec.programs}
        asked = str(self._spec.default) if ask.program is None else ask.program
        terms = [] if asked == "off" else [term.split("*") for term in asked.split(" + ")]
        return [(named[name], float(m[0]) if m else 1.0) for name, *m in terms]

    def _edits(self, ask: Ask, ids: list[int]) -> dict[Place, Edit]:
        listed: dict[Place, list[Edit]] = {}
        for program, multiplier in self._terms(ask):
            for one in program.statements:
                layer = one.at.layers[0]
                assert isinstance(layer, int)
                on = torch.tensor(_weights(one, ask, ask.prompt + ids))
                change = self._change(one, multiplier)
                listed.setdefault((one.at.name, layer), []).append(_where(on, change))
        return {place: _all(edits) for place, edits in listed.items()}

    def _change(self, one: Statement, m: float) -> Edit:
        """Return what a statement adds to the stream."""
        assert isinstance(one, Steer | Cap | Ablate)
        vector = self._vectors[one.vector]
        if isinstance(one, Steer):
            return lambda h: one.scale * m * vector
        low, high = (one.low, one.high) if isinstance(one, Cap) else (0.0, 0.0)
        strength, unit = min(one.strength * m, 1.0), vector / vector.norm()

        def clamp(h: torch.Tensor) -> torch.Tensor:
            p = (h @ unit)[..., None]
            return strength * (p.clamp(low, high) - p) * unit

        return clamp


def _mask(one: Statement, ask: Ask, fed: list[int]) -> list[bool]:
    assert isinstance(one, Steer | Cap | Ablate)
    length = len(ask.prompt)
    return [holds(one.when, i, length, token, fed[:i]) for i, token in enumerate(fed)]


def _weights(one: Statement, ask: Ask, fed: list[int]) -> list[float]:
    """Return how much of a statement each token gets."""
    assert isinstance(one, Steer | Cap | Ablate)
    index = [max(0, i - len(ask.prompt)) for i in range(len(fed))]
    chosen = zip(_mask(one, ask, fed), index, strict=True)
    return [one.decay**i if on else 0.0 for on, i in chosen]


def _where(on: torch.Tensor, change: Edit) -> Edit:
    return lambda h: h + on[: h.shape[1], None].to(h.dtype) * change(h)


def _all(edits: list[Edit]) -> Edit:
    return lambda h: reduce(lambda stream, edit: edit(stream), edits, h)
