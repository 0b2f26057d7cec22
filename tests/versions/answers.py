"""What one vLLM answers, as JSON: `python -m tests.versions.answers MODEL BLOCK…`.

Every example, expressions, reports, hits of the prefix cache, captured rows; and a KV policy with
each size of blocks. All in float32, greedy.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from interv.measuring.generate import without_defaults
from tests.engine.answer import Answer, Ask
from tests.engine.host import EngineHost
from tests.repo.files import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.interv"))
PROGRAMS = [file.stem for file in EXAMPLES]
QUESTIONS = ("Tell me about the sea.", "How was your day?")
TOKENS = 16
BLOCK = 32  # which attention on a CPU takes in every version
PROBE = "interv 1\nsink rows = memory()\nprogram probe { capture at post_block[15] to rows }\n"
# Long enough for a block of every size, and not a whole number of them.
LONG = "Once upon a time there was a lighthouse keeper who loved the sea. " * 8
HITS = ("off", "joy", "gloom", "off", "joy", "probe", "joy + gloom", "joy + gloom")
BUDGET, BUFFER, COMPRESSED = 64, 32, 80
PLAIN = {"prompt_logprobs": None}  # those of the prompt keep it from being read from the cache


@dataclass(frozen=True)
class Compressed:
    """Ids of a long answer with a policy, without and with it and an edit; and what it came to."""

    ids: list[list[int]]
    compactions: int
    dropped: int
    freed_tokens: int
    freed_bytes: int
    wrong: list[str]


@dataclass(frozen=True)
class Answers:
    """What one vLLM answers; log-probabilities and rows are of float32."""

    vllm: str
    # By example and question, then by expression.
    ids: dict[str, list[int]]
    logprobs: dict[str, list[float]]
    reports: dict[str, Any]
    cached: list[int]
    positions: list[int]  # of the captured rows
    norms: list[float]
    compressed: dict[str, Compressed]  # by size of blocks

    @classmethod
    def load(cls, text: str) -> Answers:
        """Return what `main` has printed."""
        fields = json.loads(text)
        compressed = {size: Compressed(**one) for size, one in fields.pop("compressed").items()}
        return cls(**fields, compressed=compressed)


def _prompts(model: str, texts: Sequence[str]) -> list[list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    chats = [[{"role": "user", "content": text}] for text in texts]
    return [
        tokenizer.apply_chat_template(one, add_generation_prompt=True, return_dict=False)
        for one in chats
    ]


def _asks(model: str) -> dict[str, Ask]:
    asked = [*PROGRAMS, "off", "joy*2 + gloom", "gloom*0.5"]
    return {
        f"{program}: {text}": Ask(prompt, program, TOKENS, report=True)
        for text, prompt in zip(QUESTIONS, _prompts(model, QUESTIONS), strict=True)
        for program in asked
    }


def _edited(model: str, folder: Path) -> dict[str, Any]:
    probe = folder / "probe.interv"
    probe.write_text(PROBE)
    documents = [*without_defaults(map(str, EXAMPLES), folder), probe]
    asks = _asks(model)
    (long,) = _prompts(model, [LONG])
    hits = [Ask(long, program, 4, sampling=PLAIN) for program in HITS]
    options = {"block_size": BLOCK, "enable_prefix_caching": True}
    with EngineHost("traced", model, documents, **options) as engine:
        each = dict(zip(asks, engine.answers(list(asks.values())), strict=True))
        cached = [answer.cached for answer in engine.alone(hits)]
        short = next(iter(asks.values())).prompt
        ((_, rows),) = engine.call("capture", [Ask(short, "probe", 8)])[0]
    ((positions, values),) = rows.values()
    return {
        "ids": {name: answer.ids for name, answer in each.items()},
        "logprobs": {name: answer.logprobs for name, answer in each.items()},
        "reports": {name: answer.edited for name, answer in each.items()},
        "cached": cached,
        "positions": positions.tolist(),
        "norms": np.linalg.norm(values, axis=1).tolist(),
    }


def _compressed(model: str, folder: Path, size: int) -> Compressed:
    policy = folder / "kv.interv"
    policy.write_text(f"interv 1\nkv r1kv {{ budget = {BUDGET} buffer = {BUFFER} }}\n")
    documents = [*without_defaults(map(str, EXAMPLES), folder), policy]
    (long,) = _prompts(model, [LONG])
    ask = Ask(long, "off", COMPRESSED, sampling=PLAIN)
    asks = [
        ask,
        ask,
        replace(ask, kv="off"),
        replace(ask, program="joy"),
        replace(ask, prompt=long[:20]),
    ]
    options = {"block_size": size, "max_model_len": 1024, "enable_prefix_caching": True}
    with EngineHost("traced", model, documents, **options) as engine:
        engine.call("account", BUDGET + BUFFER)
        # The first leaves blocks to the others.
        found: list[Answer] = engine.alone([ask]) + engine.answers(asks)
        audit = engine.call("audited")
    compactions, dropped, blocks, freed = audit.counts
    ids = [one.ids for one in found]
    return Compressed(ids, compactions, dropped, blocks * size, freed, audit.wrong)


def main(model: str, *sizes: str) -> None:
    """Print what the vLLM of this environment answers."""
    import vllm

    with tempfile.TemporaryDirectory(prefix="interv-") as folder:
        compressed = {size: _compressed(model, Path(folder), int(size)) for size in sizes}
        found = _edited(model, Path(folder))
    print(json.dumps(asdict(Answers(vllm.__version__, **found, compressed=compressed))))


if __name__ == "__main__":
    main(*sys.argv[1:])
