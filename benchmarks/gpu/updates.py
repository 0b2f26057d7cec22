"""What an update costs on a card, alone and in a CUDA graph, and the host before a step."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from interv.compile import compile_documents
from interv.load import load_documents
from interv.model import ModelFacts
from interv.passes.placing.cost import H200, update_cost
from interv.runtime.choice import Choice
from interv.runtime.worker.engine import Engine, Step
from interv.runtime.worker.op import UPDATE, running

SITES, MANY = 28, 50
EDITS = {
    "steer": "steer v{i} at post_block[*] scale 0.01",
    "cap": "cap v{i} at post_block[*] in [-1, 1]",
    "gate": "steer v{i} at post_block[*] scale 0.01 gate v0 sharpness 2",
}
SELECTORS = {
    "all": "",
    "generated": "when generated",
    "three": "when generated or prompt[-1] or token(7)",
}


def engine_of(body: str, vectors: int, width: int, tokens: int, device: torch.device) -> Engine:
    """Return an engine of SITES blocks whose program `p` is `body`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = torch.Generator().manual_seed(0)
        for i in range(vectors):
            save_file({"v": torch.randn(width, generator=made)}, folder / f"v{i}.safetensors")
        heads = "".join(f'vector v{i} = "v{i}.safetensors"\n' for i in range(vectors))
        path = folder / "d.interv"
        path.write_text(f"interv 1\n{heads}program p {{\n{body}\n}}\n")
        facts = ModelFacts("m", "X", width, SITES)
        bundle = compile_documents(load_documents([path]), facts, None, False).bundle
    return Engine(bundle, device, torch.bfloat16, tokens, 256)


def step_of(requests: int, each: int, device: torch.device) -> Step:
    """Return a step of requests that feed `each` tokens behind a prompt of eight."""
    count = requests * each
    position = torch.arange(8, 8 + each, device=device).repeat(requests)
    starts = np.arange(0, count + 1, each, dtype=np.int32)
    prompts = np.full(requests, 8, dtype=np.int32)
    ids = [str(i) for i in range(requests)]
    choices = [Choice.of((("p", 1.0),))] * requests
    return Step(position, position.int() % 1000, starts, prompts, choices, ids)


def times(standin: bool) -> dict[str, Any]:
    """Return microseconds of one site's update, unedited and edited, beside the prediction."""
    device = torch.device("cpu" if standin else "cuda")
    rows = []
    for width in (128,) if standin else (1536, 4096, 5120, 8192):
        for tokens in (1, 16) if standin else (1, 64, 256, 2048, 8192):
            for kind, columns in (("steer", 1), ("cap", 1), ("cap", 4), ("cap", 16), ("gate", 2)):
                rows.append(_one(kind, columns, width, tokens, device))
    notes = "Streams are bf16 pairs; *predicted* is the model of docs/roofline.md, in a graph."
    return {"rows": rows, "notes": notes}


def _one(kind: str, columns: int, width: int, tokens: int, device: torch.device) -> dict[str, Any]:
    body = "\n".join(EDITS[kind].format(i=i) for i in range(columns))
    engine = engine_of(body, columns, width, tokens, device)
    hidden, residual = (torch.randn(tokens, width, device=device).bfloat16() for _ in range(2))

    def launch() -> None:
        for name in engine.sites:
            UPDATE.by_site(hidden, residual, name)

    with running(engine), torch.no_grad():
        launch()
        replay = _captured(launch) if device.type == "cuda" else launch
        unedited = _spent(replay, device)
        engine.begin(step_of(1, tokens, device))
        edited, alone = _spent(replay, device), _spent(launch, device)
    predicted = update_cost(tokens, width, columns, columns, H200)
    return {
        "edit": f"{columns} {kind}", "H": width, "T": tokens,
        "unedited, µs": unedited, "edited, µs": edited, "launched alone, µs": alone,
        "predicted, µs": float(predicted.predicted_us),
    }  # fmt: skip


def _captured(launch: Callable[[], None]) -> Callable[[], None]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launch()
    return graph.replay


def _spent(run: Callable[[], None], device: torch.device) -> float:
    """Return microseconds a site."""
    run()
    if device.type != "cuda":
        begin = time.perf_counter()
        run()
        return (time.perf_counter() - begin) * 1e6 / SITES
    torch.cuda.synchronize()
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(MANY):
        run()
    last.record()
    torch.cuda.synchronize()
    return 1e3 * first.elapsed_time(last) / MANY / SITES


def host(standin: bool) -> dict[str, Any]:
    """Return microseconds of the host before a decode step, by requests and selectors."""
    device = torch.device("cpu" if standin else "cuda")
    rows = []
    for requests in (1, 64, 256, 1024):
        row: dict[str, Any] = {"requests": requests}
        for name, when in SELECTORS.items():
            body = f"steer v0 at post_block[*] scale 0.01 {when}"
            engine = engine_of(body, 1, 128, requests, device)
            step = step_of(requests, 1, device)
            row[f"{name}, µs"] = _median(engine, step)
        rows.append(row)
    return {"rows": rows, "notes": "Medians of `Engine.clear` and `Engine.begin` for one program."}


def _median(engine: Engine, step: Step) -> float:
    spent = []
    for _ in range(30):
        begin = time.perf_counter()
        engine.clear()
        engine.begin(step)
        spent.append((time.perf_counter() - begin) * 1e6)
        if engine.device.type == "cuda":
            torch.cuda.synchronize()
    return float(np.median(spent[5:]))
