"""LoRA beside interventions where vLLM's own arithmetic of adapters is plain Python, as on a CPU.

Such code branches on what a batch holds, which is why stock vLLM does not trace a model with LoRA
there. Interventions need the trace, and one that is taken while no adapter is in use would leave
adapters out for ever. So the trace gets one opaque op, which calls that same code in every step.
On CUDA vLLM's own ops are opaque already, and nothing is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, TypeAlias

import torch
from torch import Tensor

from interv.runtime import compat
from interv.runtime.worker.engine import Engine
from interv.runtime.worker.op import running_engine
from interv.runtime.wrap import wrap

_Numbers: TypeAlias = tuple[float, list[int], int, bool]  # scale, slices, offset, add

# Kept for as long as the process lives: the op goes away with its library.
_LIBRARY = torch.library.Library("interv", "FRAGMENT")
_NUMBERS = "float scale, int[] slices, int offset, bool add, str method, int place"
_LIBRARY.define(f"lora(Tensor(a!) y, Tensor x, Tensor[] a, Tensor[] b, {_NUMBERS}) -> ()")


def attach_lora(runner: compat.Runner, engine: Engine) -> None:
    """Have a runner's adapters computed by the opaque op; comes before its model is made."""

    def load(original: Any, *args: Any, **kwargs: Any) -> Any:
        model = original(*args, **kwargs)
        engine.adapters = compat.adapter_wrappers(runner)
        for place, one in enumerate(engine.adapters):
            if type(one) is compat.plain_adapter_wrapper():
                one.__class__ = _opaque()
                one.interv_place = place
        return model

    wrap(runner, "load_lora_model", load)


@cache
def _opaque() -> Any:
    """Return vLLM's class whose methods are one op each in a trace, and elsewhere what they are."""
    methods = {
        "add_lora_linear": _linear,
        "add_shrink": _shrink,
        "add_expand": _expand,
        "add_lora_embedding": _embedding,
    }
    return type("OpaqueWrapper", (compat.plain_adapter_wrapper(),), methods)


def _linear(
    self: Any,
    y: Tensor,
    x: Tensor,
    lora_a_stacked: Sequence[Tensor],
    lora_b_stacked: Sequence[Tensor],
    scale: float,
    output_slices: Sequence[int],
    **kwargs: Any,
) -> None:
    weights = lora_a_stacked, lora_b_stacked
    if torch.compiler.is_compiling():
        numbers: _Numbers = scale, list(output_slices), 0, True
        LORA(y, x, list(weights[0]), list(weights[1]), *numbers, "linear", self.interv_place)
        return
    compat.plain_adapter_wrapper().add_lora_linear(
        self, y, x, *weights, scale, output_slices, **kwargs
    )


def _shrink(
    self: Any, y: Any, x: Tensor, lora_a_stacked: Sequence[Tensor], scale: float, **kwargs: Any
) -> None:
    if torch.compiler.is_compiling():
        numbers: _Numbers = scale, [], 0, True
        LORA(y, x, list(lora_a_stacked), [], *numbers, "shrink", self.interv_place)
        return
    compat.plain_adapter_wrapper().add_shrink(self, y, x, lora_a_stacked, scale, **kwargs)


def _expand(
    self: Any,
    y: Tensor,
    x: Any,
    lora_b_stacked: Sequence[Tensor],
    output_slices: Sequence[int],
    offset_start: int = 0,
    add_inputs: bool = True,
    **kwargs: Any,
) -> None:
    if torch.compiler.is_compiling():
        numbers: _Numbers = 1.0, list(output_slices), offset_start, add_inputs
        LORA(y, x, [], list(lora_b_stacked), *numbers, "expand", self.interv_place)
        return
    rest = output_slices, offset_start, add_inputs
    compat.plain_adapter_wrapper().add_expand(self, y, x, lora_b_stacked, *rest, **kwargs)


def _embedding(
    self: Any, y: Tensor, x: Tensor, lora_b_stacked: Tensor, add_inputs: bool = True, **kwargs: Any
) -> None:
    if torch.compiler.is_compiling():
        numbers: _Numbers = 1.0, [], 0, add_inputs
        LORA(y, x, [], [lora_b_stacked], *numbers, "embedding", self.interv_place)
        return
    compat.plain_adapter_wrapper().add_lora_embedding(
        self, y, x, lora_b_stacked, add_inputs, **kwargs
    )


def _lora(
    y: Tensor,
    x: Tensor,
    a: Sequence[Tensor],
    b: Sequence[Tensor],
    scale: float,
    slices: Sequence[int],
    offset: int,
    add: bool,
    method: str,
    place: int,
) -> None:
    """Compute what vLLM computes without a trace, for the batch of this step."""
    wrapper = running_engine("an adapter").adapters[place]
    if method == "linear":
        wrapper.add_lora_linear(y, x, tuple(a), tuple(b), scale, tuple(slices))
    elif method == "shrink":
        wrapper.add_shrink(y, x, tuple(a), scale)
    elif method == "expand":
        wrapper.add_expand(y, x, tuple(b), tuple(slices), offset, add)
    else:
        wrapper.add_lora_embedding(y, x, b[0], add)


def _fake(*_: object) -> None:
    """Trace the op: it returns nothing and writes `y`, as its schema says."""


_LIBRARY.impl("lora", _lora, "CPU")
_LIBRARY._register_fake("lora", _fake)
LORA = torch.ops.interv.lora.default
