"""Edits, captures and a KV policy of one document: positions stay true on a compacted cache."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.engine.answer import Ask
from tests.engine.host import EngineHost
from tests.engine.models import HIDDEN_SIZE, VOCABULARY, tiny_model
from tests.kv.oracle import CompressedOracle
from tests.kv.reference import Numbers
from tests.kv.test_engine import BLOCK, PLAIN
from tests.tolerances import CAPTURED

pytestmark = pytest.mark.engine

# The edit begins after the second compaction of the cache.
START, SCALE, TOKENS = 90, 3.0, 220
TEXT = f"""\
interv 1
vector v = "v.safetensors"
sink rows = memory()
program late {{
  steer v at post_block[1] scale {SCALE} when generated[{START}:]
  capture at post_block[2] to rows
}}
default late
kv r1kv {{ budget = 64 buffer = 32 }}
"""


@contextmanager
def edited(oracle: CompressedOracle, vector: torch.Tensor, first: int) -> Iterator[None]:
    """Add to the stream behind block 1, at every position from `first` on."""

    def add(module: Any, args: Any, kwargs: Any, output: torch.Tensor) -> torch.Tensor:
        late = kwargs["position_ids"][0] >= first
        return output + SCALE * late[:, None] * vector

    hook = oracle.model.model.layers[1].register_forward_hook(add, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def watched(oracle: CompressedOracle) -> Iterator[dict[int, torch.Tensor]]:
    """Collect the stream behind block 2 by position."""
    rows: dict[int, torch.Tensor] = {}

    def keep(module: Any, args: Any, kwargs: Any, output: torch.Tensor) -> None:
        rows.update(zip(kwargs["position_ids"][0].tolist(), output[0], strict=True))

    hook = oracle.model.model.layers[2].register_forward_hook(keep, with_kwargs=True)
    try:
        yield rows
    finally:
        hook.remove()


@pytest.mark.parametrize("flavour", ["traced", pytest.param("B", marks=pytest.mark.slow)])
def test_an_edit_begins_where_it_says(tmp_path: Path, flavour: str) -> None:
    model, rng = tiny_model("llama"), random.Random(2)
    vector = torch.randn(HIDDEN_SIZE, generator=torch.Generator().manual_seed(1))
    save_file({"v": vector}, tmp_path / "v.safetensors")
    path = tmp_path / "kv.interv"
    path.write_text(TEXT)
    prompts = [[rng.randrange(3, VOCABULARY) for _ in range(n)] for n in (21, 130)]
    with EngineHost(flavour, model, [path], block_size=BLOCK) as engine:
        asks = [Ask(one, tokens=TOKENS, sampling=PLAIN) for one in prompts]
        found = [only for (only,) in engine.call("capture", asks)]
        plain = engine.answers([Ask(one, "off", tokens=TOKENS, sampling=PLAIN) for one in prompts])
        # Of each request, every token that is fed from START on: the last one never is.
        assert engine.call("edited") == [2 * (TOKENS - 1 - START)]
    oracle = CompressedOracle(model)
    for prompt, (answer, records), other in zip(prompts, found, plain, strict=True):
        with edited(oracle, vector, len(prompt) + START), watched(oracle) as rows:
            assert oracle.greedy(prompt, TOKENS, Numbers(64), 32)[0] == answer.ids
        ((positions, captured),) = records.values()
        assert positions.tolist() == list(range(len(prompt) + TOKENS - 1))
        exact = torch.stack([rows[i] for i in positions.tolist()])
        assert (torch.from_numpy(captured) - exact).abs().max() < CAPTURED
        assert oracle.greedy(prompt, TOKENS, Numbers(64), 32)[0] == other.ids
        assert answer.ids[: START + 1] == other.ids[: START + 1]
        assert answer.ids != other.ids
