"""Selectors in a running engine: whole and chunked prompts, decoding, token ids."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from interv.document.selectors import holds
from interv.document.spec import (
    After,
    And,
    At,
    Before,
    Between,
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
from tests.engine.answer import Ask
from tests.engine.host import EngineHost
from tests.engine.models import HIDDEN_SIZE, tiny_model
from tests.engine.oracle import Edit, Oracle
from tests.engine.programs import VECTORS, Directions, save_document
from tests.tolerances import ENGINE_LOGPROB

pytestmark = pytest.mark.engine

PROMPTS = [[9] * 3 + list(range(20, 57)), [100, 200, 9, 300, 400], [7]]
TOKENS = 6
# The model's answers have one of these and of the multiples of 4 every few tokens.
ODD = (*range(1, 512, 4), (20, 23))
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
    "after": After(mark=Token(ids=(100, (9, 9, 9), *range(0, 512, 11)))),
    "before": Before(mark=Token(ids=(*range(200, 512, 13), (25, 26)))),
    "toggled": Between(start=Token(ids=tuple(range(0, 512, 4))), end=Token(ids=ODD)),
    "mixed": Or(
        terms=(
            And(terms=(InPhase(phase="prompt"), Not(term=Token(ids=(9,))))),
            At(phase="generated", index=2),
        )
    ),
}


def masked(selector: Selector, given: int, fed: list[int], v: torch.Tensor) -> Edit:
    """Return the edit of the tokens `fed`, the first `given` of which are the prompt."""
    on = [holds(selector, i, given, token, fed[:i]) for i, token in enumerate(fed)]
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


THINKS, PROMPT = 9, [100, 200, 9, 300, 400]
BLOCK = 32


@pytest.mark.parametrize("flavour", ["traced", "B"])
def test_steered_until_the_model_says_the_marker(tmp_path: Path, flavour: str) -> None:
    """What opens is in the prompt, what closes is what the model itself then generates."""
    directions = Directions.random(HIDDEN_SIZE, norm=5.0)
    directions.save(tmp_path)
    model = tiny_model("llama")
    oracle, long = Oracle(model), PROMPT + [20 + i for i in range(2 * BLOCK)]
    thinking: Selector = After(mark=Token(ids=(THINKS,)))
    free = generated(oracle, PROMPT, thinking, directions.v)
    closing = (PROMPT[-1], *free[:2])
    ends = Between(start=Token(ids=(THINKS,)), end=Token(ids=(closing, THINKS + 1)))
    at = SiteRef(name="post_block", layers=(1,))
    one = Program(name="p", statements=(Steer(vector="v", at=at, when=ends),))
    spec = Spec(vectors=VECTORS, programs=(one,), default="p")
    options = {"max_num_batched_tokens": 16, "max_num_seqs": 8, "block_size": BLOCK}
    with EngineHost(flavour, model, files=[save_document(spec, tmp_path)], **options) as engine:
        (answer,) = engine.generate([PROMPT], 2 * TOKENS)
        # Cut into pieces, and from the cache: what was open before it is known still.
        ask = Ask(long, tokens=TOKENS, sampling={"prompt_logprobs": None})
        again = engine.alone([ask, ask])
    assert answer.ids[:2] == free[:2]
    assert answer.ids == generated(oracle, PROMPT, ends, directions.v, 2 * TOKENS)
    assert answer.ids != generated(oracle, PROMPT, thinking, directions.v, 2 * TOKENS)
    assert [one.cached for one in again] == [0, 2 * BLOCK]
    for one in again:
        assert one.ids == generated(oracle, long, ends, directions.v)


def generated(
    oracle: Oracle, prompt: list[int], selector: Selector, v: torch.Tensor, tokens: int = TOKENS
) -> list[int]:
    """Return the greedy answer under an edit, token by token."""
    ids: list[int] = []
    for _ in range(tokens):
        fed = [*prompt, *ids]
        edits = {("post_block", 1): masked(selector, len(prompt), [*fed, 0], v)}
        ids.append(oracle.follow(fed, [0], edits).ids[-1])
    return ids
