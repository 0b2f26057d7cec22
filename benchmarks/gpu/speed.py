"""Tokens a second of whole engines against stock, and how long they take to start.

On one card there is room for one engine of these sizes at a time, so cases run one after the
other, stock first and last: the two say how far the machine itself has moved.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.cases import document
from benchmarks.gpu.shapes import SHAPES, save

PROMPT, ROUNDS = 32, 5
# Name, engine, what requests ask for.
CASES: tuple[tuple[str, str, int | None], ...] = (
    ("stock", "stock", None),
    ("armed, no request uses it", "three", 0),
    ("one op, one layer", "one", None),
    ("3 ops of mixed kinds, every layer", "three", None),
    ("256 configurations in the batch", "three", 256),
    ("3 layers captured, every token", "capture 3", None),
    ("KV policy, nothing is compacted", "kv", None),
    ("stock again", "stock", None),
)


def small(standin: bool) -> dict[str, Any]:
    """Measure the smaller model."""
    return _against_stock("tiny" if standin else "1.5B", standin)


def large(standin: bool) -> dict[str, Any]:
    """Measure the larger model."""
    return _against_stock("tiny" if standin else "8B", standin)


def start(standin: bool) -> dict[str, Any]:
    """Return seconds from a process's start to its first answer, with caches empty and filled."""
    shape = "tiny" if standin else "1.5B"
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = save(shape, folder)
        for engine in ("stock", "three"):
            row: dict[str, Any] = {"engine": engine}
            cache = {"VLLM_CACHE_ROOT": str(folder / f"cache-{engine}")}
            for when in ("cold", "warm"):
                begin = time.monotonic()
                _child(_job(engine, model, shape, folder, [1], standin), cache)
                row[f"{when}, s"] = time.monotonic() - begin
            rows.append(row)
    return {"rows": rows, "notes": "*three*: 3 ops of mixed kinds on every layer."}


def _against_stock(shape: str, standin: bool) -> dict[str, Any]:
    batches = [1, 8] if standin else [1, 64, 256]
    seconds: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = save(shape, folder)
        cache = {"VLLM_CACHE_ROOT": str(folder / "cache")}
        for case, engine, configurations in CASES:
            job = _job(engine, model, shape, folder, batches, standin)
            seconds[case] = _child(job | {"configurations": configurations}, cache)
    stock = {
        one: statistics.mean([seconds["stock"][one], seconds["stock again"][one]])
        for one in seconds["stock"]
    }
    rows = [
        {
            "case": case,
            **{f"batch {one}": f"{took[one] / stock[one] - 1:+.1%}" for one in took},
        }
        for case, took in seconds.items()
    ]
    speeds = ", ".join(
        f"{int(one) * _tokens(standin) / s:.0f} at {one}" for one, s in stock.items()
    )
    notes = f"Time against stock; stock makes {speeds} tokens a second. Medians of {ROUNDS} rounds."
    return {"rows": rows, "notes": notes, "seconds": seconds}


def _tokens(standin: bool) -> int:
    return 8 if standin else 128


def _job(
    engine: str, model: Path, shape: str, folder: Path, batches: list[int], standin: bool
) -> dict[str, Any]:
    sizes = SHAPES[shape]
    files = document(engine, sizes["num_hidden_layers"], sizes["hidden_size"], folder)
    options: dict[str, Any] = {
        "load_format": "dummy", "dtype": "bfloat16", "max_model_len": 1024, "max_num_seqs": 256,
        "enable_prefix_caching": False, "seed": 0,
    }  # fmt: skip
    if not standin:
        options["gpu_memory_utilization"] = 0.85
    if engine == "kv":
        options |= {"block_size": 32}
    return {
        "model": str(model),
        "files": [str(one) for one in files],
        "options": options,
        "batches": batches,
        "tokens": _tokens(standin),
        "vocabulary": sizes["vocab_size"],
        "configurations": None,
    }


def _child(job: dict[str, Any], variables: dict[str, str]) -> dict[str, float]:
    """Run an engine in a process of its own, and return the seconds of a batch by its size."""
    own = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "WARNING"} | variables
    if not job["files"]:
        own["VLLM_PLUGINS"] = "none"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.batches"],
        input=json.dumps(job),
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | own,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found
