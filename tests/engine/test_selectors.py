"""Selectors in a running engine: whole and chunked prompts, decoding, token ids."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from interv.document.selectors import holds
from interv.document.spec import (
    And,
    At,
    Cap,
    Everything,
    InPhase,
    Not,
    Or,
    Phase,
    PositionRange,
    Positions,
    Program,
    Selector,
    SiteRef,
    Slice,
    Spec,
    Steer,
    Stride,
    Token,
)
from tests.engine.host import EngineHost
from tests.engine.models import HIDDEN_SIZE, tiny_model
from tests.engine.oracle import Edit, Oracle
from tests.engine.programs import VECTORS, Directions, save_document
from tests.tolerances import ENGINE_LOGPROB

pytestmark = pytest.mark.engine

PROMPTS = [[9] * 3 + list(range(20, 57)), [100, 200, 9, 300, 400], [7]]
TOKENS = 6
PHASES: tuple[Phase, ...] = ("prompt", "generated")
SELECTORS: dict[str, Selector] = {
    "everything": Everything(),
    "prompt": InPhase(phase="prompt"),
    "generated": InPhase(phase="generated"),
    "last": At(phase="prompt", index=-1),
    "window": Slice(phase="prompt", start=2, stop=-3),
    "early": Slice(phase="generated", start=1, stop=3),
    "listed": Positions(
        phase="prompt", items=(0, 2, PositionRange(first=4, last=8), -1, *range(20, 200, 2))
    ),
    "steps": Stride(phase="generated", start=1, step=2),
    # As programs were written before there were lists, and with more positions than bits.
    "alternatives": Or(
        terms=tuple(At(phase=phase, index=i) for i in range(0, 140, 2) for phase in PHASES)
    ),
    "ids": Token(ids=(9, 300)),
    "mixed": Or(
        terms=(
            And(terms=(InPhase(phase="prompt"), Not(term=Token(ids=(9,))))),
            At(phase="generated", index=2),
        )
    ),
}


def masked(selector: Selector, given: int, fed: list[int], v: torch.Tensor) -> Edit:
    """Return the edit of the tokens `fed`, the first `given` of which are the prompt."""
    on = [holds(selector, i, given, token) for i, token in enumerate(fed)]
    return lambda h: h + torch.tensor(on, dtype=h.dtype)[: h.shape[1], None] * v


def together(at: SiteRef) -> tuple[Program, ...]:
    """Return two programs whose caps are one problem where both hold."""
    generated = InPhase(phase="generated")
    lowered = Cap(vector="w", at=at, high=-2.0, when=generated)
    held = Cap(vector="v", at=at, low=1.0, high=1.0)
    return (
        Program(name="held", statements=(held,)),
        Program(name="lowered", statements=(lowered,)),
    )


def solved(given: int, directions: Directions) -> Edit:
    """Return the smallest change after which `v` is at 1, and `w` at most at -2 if generated."""
    v, w = directions.v / directions.v.norm(), directions.w / directions.w.norm()
    both = torch.stack([v, w])

    def change(h: torch.Tensor) -> torch.Tensor:
        pinned = h + (1 - h @ v)[..., None] * v
        missing = torch.stack([1 - h @ v, -2 - h @ w], dim=-1)
        met = h + missing @ torch.linalg.inv(both @ both.T) @ both
        later = torch.arange(h.shape[1]) >= given
        return torch.where((later & (pinned @ w > -2))[..., None], met, pinned)

    return change


# Chunks of other sizes, in full batches: test_batching.py.
@pytest.mark.parametrize("chunk", [None, pytest.param(16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("flavour", ["traced", "B"])
def test_selectors_equal_the_oracle(tmp_path: Path, flavour: str, chunk: int | None) -> None:
    directions = Directions.random(HIDDEN_SIZE, norm=5.0)
    directions.save(tmp_path)
    model = tiny_model("llama")
    at = SiteRef(name="post_block", layers=(1,))
    programs = tuple(
        Program(name=name, statements=(Steer(vector="v", at=at, when=selector),))
        for name, selector in SELECTORS.items()
    )
    programs = (*programs, *together(at))
    spec = Spec(vectors=VECTORS, programs=programs, default="everything", conflict="joint")
    options = {} if chunk is None else {"max_num_batched_tokens": chunk, "max_num_seqs": 8}
    oracle = Oracle(model)
    with EngineHost(flavour, model, files=[save_document(spec, tmp_path)], **options) as engine:
        for name, selector in SELECTORS.items():
            answers = engine.generate(PROMPTS, TOKENS, program=name)
            for prompt, answer in zip(PROMPTS, answers, strict=True):
                fed = prompt + answer.ids
                change = {("post_block", 1): masked(selector, len(prompt), fed, directions.v)}
                expected = oracle.follow(prompt, answer.ids, change)
                assert answer.ids == expected.ids, name
                assert answer.distance(expected) < ENGINE_LOGPROB, name
        answers = engine.generate(PROMPTS, TOKENS, program="held + lowered")
        for prompt, answer in zip(PROMPTS, answers, strict=True):
            change = {("post_block", 1): solved(len(prompt), directions)}
            expected = oracle.follow(prompt, answer.ids, change)
            assert answer.ids == expected.ids
            assert answer.distance(expected) < ENGINE_LOGPROB
