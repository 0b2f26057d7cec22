"""Make the example vectors from the contrastive prompts beside this file.

    python examples/make_vectors.py [--model FOLDER] [--out examples/vectors]

A prompt file holds pairs (question, answer in the style, answer without it). Each answer is put
behind its question by the model's chat template. The direction of block N is the mean of the
residual stream leaving block N over the tokens of the answers in the style, minus the same mean
over the answers without it (difference of means). Run twice on one machine, it writes the same
bytes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from interv.demo_model import demo_model_path
from interv.vectors import save_vectors

HERE = Path(__file__).parent
MODEL_NAME = "SmolLM2-135M-Instruct"

# One in each format that can be written; GGUF has no place for block 0.
FILES = {"joy": "joy.gguf", "formal": "formal.safetensors", "sea": "sea.safetensors"}


def main() -> None:
    """Write every example vector."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a model folder; default: the demo's model")
    parser.add_argument("--out", type=Path, default=HERE / "vectors")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    model_path = options.model or demo_model_path()
    # One thread, so that sums are always taken in the same order.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    for name, file in FILES.items():
        pairs = json.loads((HERE / "prompts" / f"{name}.json").read_text("utf-8"))["pairs"]
        bank = contrast(model, tokenizer, pairs)
        kept = fit(bank, file)
        save_vectors(options.out / file, kept, MODEL_NAME)
        print(f"{options.out / file}: blocks {min(kept)} to {max(kept)}")


def contrast(model: Any, tokenizer: Any, pairs: list[list[str]]) -> npt.NDArray[np.float32]:
    """Return the difference of means after every block, [L, H]."""
    means = [
        np.mean([mean_stream(model, tokenizer, pair[0], pair[side]) for pair in pairs], axis=0)
        for side in (1, 2)
    ]
    return (means[0] - means[1]).astype(np.float32)


def mean_stream(model: Any, tokenizer: Any, question: str, answer: str) -> npt.NDArray[np.float64]:
    """Return the stream leaving every block, averaged over the answer's tokens, [L, H]."""
    chat = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    start = len(tokenizer(prompt)["input_ids"])
    ids = torch.tensor([tokenizer(prompt + answer)["input_ids"]])
    streams: list[torch.Tensor] = []

    def keep(module: Any, args: Any, output: Any) -> None:
        stream = output[0] if isinstance(output, tuple) else output
        streams.append(stream[0, start:].double().mean(0))

    # Hooks, not `hidden_states`: the last of those is taken after the final norm.
    hooks = [block.register_forward_hook(keep) for block in model.model.layers]
    try:
        with torch.no_grad():
            model(ids)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(streams).numpy()


def fit(bank: npt.NDArray[np.float32], file: str) -> dict[int, npt.NDArray[Any]]:
    """Return the bank as the file can hold it: GGUF in float32 without block 0, else float16."""
    if file.endswith(".gguf"):
        return {layer: bank[layer] for layer in range(1, len(bank))}
    return {layer: row.astype(np.float16) for layer, row in enumerate(bank)}


if __name__ == "__main__":
    main()
