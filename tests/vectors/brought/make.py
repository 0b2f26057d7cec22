"""Make the files of this folder with the libraries themselves, and record what their hooks answer.

Needs repeng 0.4 (with numpy 1) and steering-vectors 0.12, which the project does not depend on:

    python tests/vectors/brought/make.py MODEL    # a folder with SmolLM2-135M-Instruct

Each file holds two layers, to be small. `answers.json` has greedy answers under each library's own
hooks, in float32: token ids and the log-probability of each.
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
LAYERS = (10, 14)
TOKENS = 6
PROMPTS = ([504, 3575, 282, 4649, 314], [1, 4093, 198, 2683, 30])
PAIRS = [
    ("I feel wonderful today!", "I feel awful today."),
    ("What a joyful morning.", "What a miserable morning."),
    ("She laughed with delight.", "She wept with grief."),
    ("The news made him happy.", "The news made him sad."),
]


def answer(model: Any, prompt: list[int]) -> dict[str, list[float]]:
    """Return the greedy answer to a prompt, without a cache, so that nothing can be stale."""
    ids: list[int] = []
    logprobs = []
    for _ in range(TOKENS):
        with torch.no_grad():
            scores = torch.log_softmax(model(torch.tensor([prompt + ids])).logits[0, -1], -1)
        ids.append(int(scores.argmax()))
        logprobs.append(float(scores.max()))
    return {"prompt": prompt, "ids": ids, "logprobs": logprobs}


def steering_vectors(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Train, save and apply a vector as the readme of steering-vectors does."""
    from steering_vectors import train_steering_vector

    vector = train_steering_vector(model, tokenizer, PAIRS, layers=list(LAYERS))
    torch.save(vector, HERE / "steering_vectors.pt")
    (HERE / "steering_vectors.pkl").write_bytes(pickle.dumps(vector))
    with vector.apply(model, multiplier=1.5):
        return {"scale": 1.5, "answers": [answer(model, prompt) for prompt in PROMPTS]}


def repeng(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Train, export and apply a control vector as the readme of repeng does."""
    from repeng import ControlModel, ControlVector, DatasetEntry

    wrapped = ControlModel(model, list(LAYERS))
    entries = [DatasetEntry(positive=one, negative=other) for one, other in PAIRS]
    layers = sorted(LAYERS, reverse=True)
    asked = {"method": "pca_center", "hidden_layers": layers}
    vector = ControlVector.train(wrapped, tokenizer, entries, **asked)
    vector.export_gguf(HERE / "repeng.gguf")
    (HERE / "repeng.pkl").write_bytes(pickle.dumps(vector))
    wrapped.set_control(vector, 6.0)
    answers = [answer(wrapped, prompt) for prompt in PROMPTS]
    wrapped.reset()
    wrapped.unwrap()
    return {"scale": 6.0, "answers": answers}


def main() -> None:
    """Make everything for the model in the folder that is named."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    np.random.seed(0)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
    tokenizer.pad_token = tokenizer.eos_token
    made = {"off": {"answers": [answer(model, prompt) for prompt in PROMPTS]}}
    for one in (steering_vectors, repeng):
        made[one.__name__] = one(model, tokenizer)
    (HERE / "answers.json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
