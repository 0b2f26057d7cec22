"""Documents over the vectors of the small model, compiled as an engine carries them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch

from interv.compile import compile_documents
from interv.load import load_text
from interv.runtime.config import InterventionConfig
from tests.passes.small import MODEL

CALM = """\
interv 1

vector v = "v.safetensors"
vector w = "w.safetensors"

program calm {
  steer v at post_block[1] scale 1.5
}

program formal {
  cap w at post_block[1] in [-1, 1]
}

program quiet {
  steer w at pre_attn[2] scale 2 when generated
}

default calm
"""
_TEXTS = {" yes": (7,), "no": (8,), "maybe": (1, 2)}


def encode(text: str) -> tuple[int, ...]:
    """Encode as a tokenizer does that has two words."""
    return _TEXTS.get(text, (3, 4, 5))


def carried(
    folder: Path, text: str = CALM, slots: int = 3, inline: bool = False, counters: str = ""
) -> InterventionConfig:
    """Compile a document named calm.interv, with its vectors in `folder`."""
    document = load_text(text, "calm.interv", folder)
    made = compile_documents([document], MODEL, encode, inline)
    known = {one.vector.name: one.vector for one in made.vectors} if inline else {}
    return InterventionConfig(made.bundle, slots, counters, MODEL if inline else None, known)


def config(additional: object = None) -> SimpleNamespace:
    """Make what is read of a vLLM configuration; no tokenizer, as `--skip-tokenizer-init` says."""
    return SimpleNamespace(
        model_config=SimpleNamespace(skip_tokenizer_init=True, seed=0, dtype=torch.float32),
        additional_config=additional,
        parallel_config=SimpleNamespace(data_parallel_rank=0),
    )
