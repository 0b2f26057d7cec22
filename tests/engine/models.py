"""Tiny random models of many architectures, saved as a user would find them."""

from __future__ import annotations

import atexit
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch

HIDDEN_SIZE, LAYERS, VOCABULARY = 128, 4, 512

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 512,
    "hidden_size": HIDDEN_SIZE,
    "intermediate_size": 256,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def _config(name: str) -> Any:
    import transformers as hf

    if name == "llama":
        return hf.LlamaConfig(**_COMMON)
    if name == "qwen3":
        return hf.Qwen3Config(**_COMMON, head_dim=32)
    if name == "gemma3":
        sizes = {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 64}
        return hf.Gemma3TextConfig(**_COMMON, **sizes)
    if name == "mixtral":
        return hf.MixtralConfig(**_COMMON, num_local_experts=4, num_experts_per_tok=2)
    if name == "cohere":
        return hf.CohereConfig(**_COMMON)
    if name == "olmo2":
        return hf.Olmo2Config(**_COMMON)
    assert name == "gpt2"
    sizes = {"n_embd": HIDDEN_SIZE, "n_layer": LAYERS, "n_head": 4, "n_positions": 512}
    return hf.GPT2Config(vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=2, **sizes)


@cache
def _folder() -> Path:
    """Return a folder that lasts as long as this process.

    vLLM keeps traced graphs by the path of their model, so tests of one model trace each graph
    once.
    """
    folder = Path(mkdtemp(prefix="interv-models-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def tiny_model(name: str) -> Path:
    """Save a random fp32 model of that architecture and return its folder."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(_config(name), dtype=torch.float32)
    # Larger than the usual initial weights: an edit must move the answer for a test to see it.
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(_folder() / name)
    return _folder() / name
