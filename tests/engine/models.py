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
    if name == "lfm2":
        kinds = ["conv", "full_attention"] * (LAYERS // 2)
        sizes = {name: HIDDEN_SIZE for name in ("block_dim", "conv_dim", "conv_dim_out")}
        whole = {"block_auto_adjust_ff_dim": False, "layer_types": kinds}
        return hf.Lfm2Config(**_COMMON, **sizes, **whole)
    if name == "nemotron_h":
        kinds = ["mamba", "attention", "mlp", "mamba"]
        sizes = {"head_dim": 32, "mamba_num_heads": 8, "mamba_head_dim": 32, "ssm_state_size": 16}
        own = {key: value for key, value in _COMMON.items() if key != "num_hidden_layers"}
        return hf.NemotronHConfig(**own, **sizes, n_groups=2, layers_block_type=kinds)
    if name == "zamba2":
        kinds = ["mamba", "hybrid", "mamba", "hybrid"]
        sizes = {"n_mamba_heads": 8, "mamba_d_state": 16, "adapter_rank": 8}
        own = {key: value for key, value in _COMMON.items() if key != "num_key_value_heads"}
        return hf.Zamba2Config(**own, **sizes, num_mem_blocks=1, layers_block_type=kinds)
    if name == "gemma3n":
        wide = {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 32}
        sizes = {"head_dim": 32, "laurel_rank": 8, "num_kv_shared_layers": 0}
        each = {"activation_sparsity_pattern": [0.0] * LAYERS, "intermediate_size": [256] * LAYERS}
        kinds = ["full_attention"] * LAYERS
        return hf.Gemma3nTextConfig(**_COMMON | each, **sizes, **wide, layer_types=kinds)
    if name == "iquest_loopcoder":
        # Transformers has no such model: what vLLM makes of it is Llama's, run twice.
        named = {"architectures": ["IQuestLoopCoderForCausalLM"], "loop_num": 2}
        return hf.LlamaConfig(**_COMMON, **named)
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
def weightless_model(name: str) -> Path:
    """Save the config of a model of that architecture alone: its weights are made up on loading."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    folder, config = _folder() / f"{name}-config", _config(name)
    if not config.architectures:
        config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config.model_type]]
    config.save_pretrained(folder)
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
