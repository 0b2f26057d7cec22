"""A small Llama under vLLM's own compiler: pieces, Inductor, IR ops, and vLLM's post-grad passes.

It is what compiles a model on a CUDA machine; it needs neither a card nor an engine.
"""

from __future__ import annotations

import dataclasses
import re
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._library.opaque_object import get_opaque_type_name

from interv.codegen.bundle import Bundle
from interv.runtime.config import InterventionConfig
from interv.runtime.worker.compiler import init_backend
from interv.runtime.worker.engine import Engine
from interv.runtime.worker.op import running

WIDTH, INNER, LAYERS, TOKENS = 64, 128, 4, 10
_LIBRARY = torch.library.Library("interv_toy_model", "DEF")
_KEPT: list[Any] = []


@dataclass(frozen=True)
class Run:
    """What a compiled model answered, and how many artifacts its pieces needed."""

    rows: torch.Tensor  # [T, H]
    pieces: int
    artifacts: int
    reached: frozenset[str]


def layer_name(layer: int) -> str:
    return f"model.layers.{layer}.self_attn.attn"


def _attention(q: torch.Tensor, out: torch.Tensor, name: object) -> None:
    out.copy_(q[:, :WIDTH].float().cumsum(0).to(q.dtype) * 0.1)


def _declare() -> None:
    """Declare attention as vLLM does, and what a pass of vLLM's names that a CPU build lacks."""
    if _KEPT:
        return
    from vllm.compilation.passes.utility import fix_functionalization
    from vllm.utils.torch_utils import LayerName

    named = get_opaque_type_name(LayerName)
    _LIBRARY.define(f"attention(Tensor q, Tensor(a!) out, {named} name) -> ()")
    _LIBRARY.impl("attention", _attention, "CPU")
    _LIBRARY._register_fake("attention", lambda q, out, name: None)
    stub = torch.library.Library("_C", "FRAGMENT")
    text = Path(str(fix_functionalization.__file__)).read_text()
    for name in sorted(set(re.findall(r"torch\.ops\._C\.(\w+)", text))):
        if not hasattr(torch.ops._C, name):
            stub.define(f"{name}(Tensor(a!) x) -> ()")
    _KEPT.append(stub)


class Attention(nn.Module):
    def __init__(self, layer: int) -> None:
        super().__init__()
        from vllm.utils.torch_utils import LayerName

        self.name = LayerName(layer_name(layer))

    def forward(self, q: torch.Tensor) -> torch.Tensor:
        out = torch.empty(q.shape[0], WIDTH, dtype=q.dtype)
        torch.ops.interv_toy_model.attention(q, out, self.name)
        return out


class Block(nn.Module):
    def __init__(self, layer: int) -> None:
        super().__init__()
        seeded = torch.Generator().manual_seed(layer)

        def made(*size: int) -> nn.Parameter:
            weight = torch.randn(*size, generator=seeded) * size[0] ** -0.5
            return nn.Parameter(weight.bfloat16(), requires_grad=False)

        self.q, self.o = made(WIDTH, 2 * WIDTH), made(WIDTH, WIDTH)
        self.up, self.down = made(WIDTH, 2 * INNER), made(INNER, WIDTH)
        self.first, self.second = (
            nn.Parameter(torch.ones(WIDTH).bfloat16(), requires_grad=False) for _ in range(2)
        )
        self.self_attn = Attention(layer)

    def forward(self, hidden: torch.Tensor, residual: torch.Tensor | None) -> Any:
        from vllm import ir

        if residual is None:
            residual = hidden
            hidden = ir.ops.rms_norm(hidden, self.first, 1e-5)
        else:
            hidden, residual = ir.ops.fused_add_rms_norm.maybe_inplace(
                hidden, residual, self.first, 1e-5
            )
        hidden = self.self_attn(hidden @ self.q) @ self.o
        hidden, residual = ir.ops.fused_add_rms_norm.maybe_inplace(
            hidden, residual, self.second, 1e-5
        )
        both = hidden @ self.up
        return (nn.functional.silu(both[:, :INNER]) * both[:, INNER:]) @ self.down, residual


class Llama(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        table = torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(99))
        self.table = nn.Parameter(table.bfloat16(), requires_grad=False)
        self.layers = nn.ModuleList(Block(layer) for layer in range(LAYERS))
        self.last = nn.Parameter(torch.ones(WIDTH).bfloat16(), requires_grad=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        from vllm import ir

        hidden, residual = nn.functional.embedding(ids, self.table), None
        for block in self.layers:
            hidden, residual = block(hidden, residual)
        out: torch.Tensor = ir.ops.fused_add_rms_norm.maybe_inplace(
            hidden, residual, self.last, 1e-5
        )[0]
        return out


def _config(bundle: Bundle | None) -> Any:
    """Return a configuration that compiles on a CPU as CUDA's does, without fusions of CUDA's."""
    from vllm.config import CompilationConfig, CompilationMode, CUDAGraphMode, VllmConfig
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase

    class Layer(AttentionLayerBase):  # type: ignore[misc]
        def get_attn_backend(self) -> Any: ...
        def get_kv_cache_spec(self, vllm_config: Any) -> Any: ...

    config = VllmConfig(compilation_config=CompilationConfig())
    own = config.compilation_config
    own.mode, own.backend = CompilationMode.VLLM_COMPILE, "inductor"
    own.splitting_ops, own.compile_sizes = ["interv_toy_model::attention"], []
    own.cudagraph_mode, own.ir_enable_torch_wrap = CUDAGraphMode.NONE, True
    own.compile_ranges_endpoints = [512]
    for field in dataclasses.fields(own.pass_config):
        if isinstance(getattr(own.pass_config, field.name), bool):
            setattr(own.pass_config, field.name, field.name == "eliminate_noops")
    config.kernel_config.ir_op_priority.set_default()
    own.static_forward_context = {layer_name(i): Layer() for i in range(LAYERS)}
    if bundle is not None:
        config.additional_config = InterventionConfig(bundle)
    return config


def compiled(tag: str, bundle: Bundle | None = None) -> Run:
    """Compile the model as an engine does, edited by a bundle where one is given, and run it.

    No token asks for an edit.
    """
    import vllm.kernels  # noqa: F401 (registers how IR ops are lowered)
    from vllm import ir
    from vllm.compilation.backends import VllmBackend
    from vllm.compilation.counter import compilation_counter
    from vllm.config import set_current_vllm_config

    _declare()
    torch._dynamo.reset()
    config = _config(bundle)
    before = compilation_counter.num_backend_compilations
    made: list[VllmBackend] = []

    def stock(own: Any, config: Any) -> VllmBackend:
        made.append(VllmBackend(config, prefix=tag))
        return made[0]

    engine = bundle and Engine(bundle, torch.device("cpu"), torch.bfloat16, 64, 4)
    with set_current_vllm_config(config), torch.no_grad(), ir.enable_torch_wrap(True):
        backend = init_backend(stock, config.compilation_config, config)
        model = torch.compile(Llama(), backend=backend, fullgraph=True)
        ids = torch.arange(TOKENS) % 50
        torch._dynamo.mark_dynamic(ids, 0)
        with running(engine) if engine is not None else nullcontext():
            rows = model(ids).clone()
    pieces = compilation_counter.num_backend_compilations - before
    reached = frozenset(engine.reached) if engine is not None else frozenset()
    return Run(rows, pieces, len(made[0].compiler_manager.loaded_artifacts), reached)
