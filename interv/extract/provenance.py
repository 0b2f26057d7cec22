"""Say in a vector file how its directions were made, so that they can be made again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from interv.extract.extraction import Extraction, LayerResult
from interv.extract.job import Job
from interv.extract.pairs import pairs_digest

_EDGE = 1 << 20  # bytes at the start and at the end of each file of weights
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


def provenance(
    name: str,
    job: Job,
    method: str,
    seed: int,
    extraction: Extraction,
    facts: Mapping[str, Any],
) -> dict[str, str]:
    """Return what is written into the metadata of the file, texts by name.

    Nothing in it depends on where or when it was made: the same inputs give the same bytes.
    `facts` are those of the engine that read the activations.
    """
    from interv import __version__

    wording = job.wording
    said = {
        "tool": f"interv extract {__version__}",
        "name": name,
        "model": Path(job.model).name if Path(job.model).exists() else job.model,
        "model_digest": model_digest(job.model),
        "pairs": f"{extraction.pairs} used, {extraction.held} held out",
        "pairs_digest": f"sha256:{pairs_digest(job.pairs)}",
        "method": method,
        "site": job.site,
        "position": str(job.position),
        "seed": str(seed),
        "chat": "yes" if facts.get("chat") else "no",
        "template": wording.template,
        "system": wording.system or "",
        "engine": f"vLLM {facts['vllm']}, torch {facts['torch']}, {facts['dtype']}",
        "scores": json.dumps([_score(one) for one in extraction.results]),
    }
    return {key: text for key, text in said.items() if text}


def _score(result: LayerResult) -> dict[str, float | int | None]:
    numbers = {
        "norm": result.norm,
        "accuracy": result.accuracy,
        "separation": result.separation,
        "next_cosine": result.next_cosine,
    }
    rounded = {name: None if x is None else float(f"{x:.6g}") for name, x in numbers.items()}
    return {"layer": result.layer, **rounded}


def model_digest(model: str) -> str:
    """Return a sha256 over a model's config, and over sizes and edges of its weights.

    Of each file of weights the first and the last MiB are read, which hold the names and shapes of
    its tensors and some of their values: enough to tell fine-tuned models apart in no time. Returns
    "unknown" for a model whose files are not at hand.
    """
    folder = _folder(model)
    if folder is None:
        return "unknown"
    sha = hashlib.sha256()
    for part in _parts(folder):
        sha.update(hashlib.sha256(part).digest())
    return f"sha256:{sha.hexdigest()}"


def _folder(model: str) -> Path | None:
    path = Path(model)
    if path.exists():
        return path if path.is_dir() else path.parent
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "config.json")
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def _parts(folder: Path) -> Iterator[bytes]:
    for path in sorted(folder.iterdir()):
        if path.name == "config.json" or path.name.endswith(".index.json"):
            yield path.name.encode()
            yield path.read_bytes()
        elif path.suffix in _WEIGHTS:
            size = path.stat().st_size
            yield f"{path.name} {size}".encode()
            with path.open("rb") as file:
                yield file.read(_EDGE)
                file.seek(max(0, size - _EDGE))
                yield file.read(_EDGE)
