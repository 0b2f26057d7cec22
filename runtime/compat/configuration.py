"""What a configuration of vLLM says, and what is changed in one before an engine starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from interv.model import DEPTH_FIELDS, WIDTH_FIELDS
from interv.passes.captured.norm_rounding import Rounding

VllmConfig: TypeAlias = Any  # vLLM may not be installed


def encoder(config: VllmConfig) -> Callable[[str], Sequence[int]] | None:
    """Return the tokenizer as text to ids without special tokens, where there is one."""
    if config.model_config.skip_tokenizer_init:
        return None
    from vllm.tokenizers import cached_tokenizer_from_config

    tokenizer = cached_tokenizer_from_config(config.model_config)

    def encode(text: str) -> Sequence[int]:
        ids: Sequence[int] = tokenizer.encode(text, add_special_tokens=False)
        return ids

    return encode


def seed(config: VllmConfig) -> int:
    """Return the seed that the engine was started with, 0 where it was not."""
    return int(config.model_config.seed or 0)


def dtype(config: VllmConfig) -> Any:
    """Return the type of the engine's hidden states."""
    return config.model_config.dtype


def largest(dtype: Any) -> tuple[str, float]:
    """Return the name of an engine's dtype, and the largest number that it has."""
    import torch

    return str(dtype).removeprefix("torch."), float(torch.finfo(dtype).max)


def model_name(config: VllmConfig) -> str:
    """Return the name of the model, without the folders that lead to it."""
    return Path(str(config.model_config.model)).name


def text_config(config: VllmConfig) -> dict[str, Any]:
    """Return the Hugging Face config of the language model.

    Its object may know of sizes that it does not write down, as properties.
    """
    text = config.model_config.hf_text_config
    found: dict[str, Any] = text.to_dict()
    for fields in (WIDTH_FIELDS, DEPTH_FIELDS):
        if not any(found.get(name) for name in fields):
            found |= {name: getattr(text, name) for name in fields if hasattr(text, name)}
    found.setdefault("architectures", config.model_config.hf_config.architectures)
    return found


def is_compiled(config: VllmConfig) -> bool:
    """Say whether vLLM will trace the model into a graph."""
    from vllm.config import CompilationMode

    return bool(config.compilation_config.mode not in (None, CompilationMode.NONE))


def has_stock_compiler(config: VllmConfig) -> bool:
    """Say whether the model is to be compiled by torch alone, in graphs of fixed sizes."""
    from vllm.config import CompilationMode

    return bool(config.compilation_config.mode == CompilationMode.STOCK_TORCH_COMPILE)


def is_sequence_parallel(config: VllmConfig) -> bool:
    """Say whether ranks have some of a batch's rows each between the layers.

    Only up to 0.31 there is such a mode of the compiler.
    """
    return bool(getattr(config.compilation_config.pass_config, "enable_sp", False))


def adapts_drafts(config: VllmConfig) -> bool:
    """Say whether how many drafts a request gets is decided while the model runs."""
    return bool(getattr(config.speculative_config, "enable_adaptive_verification", False))


def fuses_all_reduce(config: VllmConfig) -> bool:
    """Say whether vLLM joins the sum over tensor-parallel ranks with the norm behind it."""
    passes = config.compilation_config.pass_config
    return config.parallel_config.tensor_parallel_size > 1 and bool(
        getattr(passes, "fuse_allreduce_rms", False)
    )


def norm_rounding(config: VllmConfig) -> Rounding:
    """Return where the engine's fused add-RMSNorm rounds, as vLLM would run it here."""
    priority = config.kernel_config.ir_op_priority.fused_add_rms_norm
    if priority and priority[0] != "native":
        return Rounding.KERNEL
    inductor = config.compilation_config.backend == "inductor"
    return Rounding.COMPILED if inductor else Rounding.TORCH


def trace_without_compiling(config: VllmConfig) -> None:
    """Have the model traced once and run as it was traced: one mechanism for eager engines too."""
    from vllm.config import CompilationMode

    config.compilation_config.mode = CompilationMode.DYNAMO_TRACE_ONCE
    config.compilation_config.backend = "eager"


def compile_trace(graph_module: Any, inputs: Any, name: str, options: dict[str, Any]) -> Any:
    """Compile a traced graph with one of torch's own compilers, as vLLM would have."""
    import torch

    if name == "inductor":
        compiled = torch._TorchCompileInductorWrapper(None, options, False)(graph_module, inputs)
        if getattr(compiled, "serialize", None) is None:
            return compiled
        from interv.runtime.compat.artifact import CompiledGraph

        return CompiledGraph(compiled)
    return torch._dynamo.lookup_backend(name)(graph_module, inputs)


def stop_s() -> float:
    """Return how long sinks may take when a worker is told to stop.

    A worker that still runs is sent SIGTERM after so many seconds as vLLM's variable says, which
    changes nothing, and SIGKILL 4 seconds later; of these it needs some to end after its sinks.
    """
    from vllm import envs

    return float(envs.VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS) + 2.0
