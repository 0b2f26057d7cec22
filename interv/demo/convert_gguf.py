"""Convert a GGUF model to a model folder: `python -m interv.demo.convert_gguf FILE FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write bf16 safetensors, config, tokenizer and chat template of `gguf` into `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where, name = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(
        where,
        gguf_file=name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # GGUF keeps the name of a training run; people look for the model's own.
    config = folder / "config.json"
    facts = json.loads(config.read_text(encoding="utf-8"))
    facts.pop("_name_or_path", None)
    facts.pop("_model_name_or_path", None)
    config.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    convert_gguf(Path(sys.argv[1]), Path(sys.argv[2]))
