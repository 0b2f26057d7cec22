"""Sleep mode frees the pools that vLLM makes tensors in; none of interv's lie in one."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path

POOL = "_maybe_get_memory_pool_context"


def pooled_methods() -> set[str]:
    """Return the methods of vLLM's GPU worker that open a pool of memory for sleep mode."""
    found = find_spec("vllm")
    assert found is not None
    assert found.origin is not None
    file = Path(found.origin).parent / "v1" / "worker" / "gpu_worker.py"
    tree = ast.parse(file.read_text(encoding="utf-8"))
    (worker,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Worker")
    return {
        method.name
        for method in worker.body
        if isinstance(method, ast.FunctionDef)
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute) and node.attr == POOL
    }


def test_vllm_opens_no_pool_around_a_worker_s_device() -> None:
    # What an engine's edits need is made as `init_device` returns, before any of these runs. The
    # workspace's pool is opened for its own tensors alone, when they are made.
    assert pooled_methods() == {
        "load_model",
        "initialize_from_config",
        "_init_workspace_and_model_runner",
    }
