"""LoRA adapters as a user would find them, and the model that one makes of the base model."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.engine.oracle import Oracle

RANK, ALPHA = 4, 8
_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def save_adapter(folder: Path, oracle: Oracle, seed: int) -> Path:
    """Write a random adapter of every linear layer and of the embedding of a model."""
    torch.manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, module in _adapted(oracle):
        wide, high = module.weight.shape[1], module.weight.shape[0]
        if isinstance(module, torch.nn.Embedding):
            sides = {"lora_embedding_A": (RANK, high), "lora_embedding_B": (wide, RANK)}
        else:
            sides = {"lora_A.weight": (RANK, wide), "lora_B.weight": (high, RANK)}
        for side, size in sides.items():
            tensors[f"base_model.model.{name}.{side}"] = torch.randn(size) * 0.1
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    modules = [*_LINEAR, "embed_tokens"]
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none"}
    config |= {"target_modules": modules}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def merge(oracle: Oracle, folder: Path) -> None:
    """Add an adapter to a model's weights: `W + (alpha / r) B A`."""
    from safetensors.torch import load_file

    tensors = load_file(folder / "adapter_model.safetensors")
    for name, module in _adapted(oracle):
        path = f"base_model.model.{name}"
        if isinstance(module, torch.nn.Embedding):
            a, b = tensors[f"{path}.lora_embedding_A"], tensors[f"{path}.lora_embedding_B"]
            module.weight.data = module.weight.data + ALPHA / RANK * (b @ a).T
        else:
            a, b = tensors[f"{path}.lora_A.weight"], tensors[f"{path}.lora_B.weight"]
            module.weight.data = module.weight.data + ALPHA / RANK * (b @ a)


def _adapted(oracle: Oracle) -> list[tuple[str, torch.nn.Module]]:
    return [
        (name, module)
        for name, module in oracle.model.named_modules()
        if name.rsplit(".", 1)[-1] in (*_LINEAR, "embed_tokens")
    ]
