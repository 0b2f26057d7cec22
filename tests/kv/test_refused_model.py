"""What of a model and its runner a KV policy is refused with, word for word."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from interv.errors import IntervError, IntervErrors
from interv.runtime import compat
from interv.runtime.kv.worker.attention import Keeping
from interv.runtime.kv.worker.refuse_model import refuse_blocks, refuse_layers, refuse_worker


class TPUModelRunner:
    """A runner that has only some of what is hooked into."""

    def get_kv_cache_spec(self) -> None: ...

    def _model_forward(self) -> None: ...


def test_a_runner_without_the_hooks_is_refused() -> None:
    with pytest.raises(IntervError) as caught:
        refuse_worker(TPUModelRunner())
    assert str(caught.value) == (
        "error[E571]: a KV policy cannot be attached to TPUModelRunner\n"
        "  = it lacks: initialize_kv_cache, _update_states"
    )


class SecondModelRunner:
    """A second runner that lost two of the hooks."""

    req_states = None

    def get_kv_cache_spec(self) -> None: ...

    def initialize_kv_cache(self) -> None: ...

    def execute_model(self) -> None: ...


def test_the_second_runner_has_hooks_of_its_own() -> None:
    with pytest.raises(IntervError) as caught:
        refuse_worker(SecondModelRunner())
    assert str(caught.value) == (
        "error[E571]: a KV policy cannot be attached to SecondModelRunner\n"
        "  = it lacks: add_requests, prepare_inputs"
    )


class SlidingWindowSpec:
    """Looks like a layer's cache that forgets."""

    def __init__(self, sliding_window: int) -> None:
        self.sliding_window = sliding_window


class Attending(Keeping):
    """Attention that a policy can be attached to."""

    def __init__(self, slopes: object = None) -> None:
        self.alibi_slopes = slopes


class OtherBackend:
    """Looks like a backend that is none of those."""

    @staticmethod
    def get_name() -> str:
        return "FLASHINFER"


@dataclass
class Layer:
    """A layer, as far as it is asked."""

    impl: Any = field(default_factory=Attending)
    kv_sharing_target_layer_name: str | None = None
    kv_cache: Any = None

    def get_attn_backend(self) -> type[OtherBackend]:
        return OtherBackend


def full(**changed: Any) -> Any:
    (kind,) = compat.full_attention_kinds()
    sizes = {"block_size": 16, "num_kv_heads": 2, "head_size": 64, "dtype": torch.float32}
    return kind(**sizes | changed)


def test_layers_without_full_attention_are_refused() -> None:
    specs = {"a": full(), "b": SlidingWindowSpec(512)}
    with pytest.raises(IntervError) as caught:
        refuse_layers(specs, {"a": Layer(), "b": Layer()})
    assert str(caught.value) == (
        "error[E572]: layer 'b' has no full attention: SlidingWindowSpec, window 512\n"
        "  = a KV policy drops what full attention would have kept\n"
        "  = leave 'kv' out of the document for this model"
    )


def test_the_first_few_layers_say_what_is_wrong_with_all() -> None:
    names = [f"layers.{i}" for i in range(30)]
    layers = {name: Layer(Attending([1.0])) for name in names}
    with pytest.raises(IntervErrors) as caught:
        refuse_layers({name: full() for name in names}, layers)
    assert str(caught.value).split("\n\n") == [
        f"error[E572]: layer '{name}' counts positions from its cache (ALiBi), which a KV policy"
        " leaves with gaps"
        for name in names[:3]
    ]


def test_shared_caches_are_refused() -> None:
    refuse_layers({"a": full()}, {"a": Layer()})
    shares = Layer(kv_sharing_target_layer_name="a")
    with pytest.raises(IntervError) as caught:
        refuse_layers({"a": full()}, {"a": Layer(), "b": shares})
    assert str(caught.value) == (
        "error[E572]: layers share the caches of others, a KV policy cannot: b"
    )


def test_keys_and_values_of_two_sizes_are_refused() -> None:
    with pytest.raises(IntervError) as caught:
        refuse_layers({"a": full(head_size_v=32)}, {"a": Layer()})
    assert str(caught.value) == (
        "error[E572]: layer 'a' has keys of size 64 and values of size 32,"
        " a KV policy wants one size"
    )


def test_other_attention_is_refused_by_its_name() -> None:
    with pytest.raises(IntervError) as caught:
        refuse_layers({"a": full()}, {"a": Layer(object())})
    assert str(caught.value) == (
        "error[E573]: layer 'a' attends by FLASHINFER, which a KV policy cannot be attached to\n"
        "  = backends that it can: CPU_ATTN, FLASH_ATTN, TRITON_ATTN\n"
        "  = choose one with --attention-backend"
    )


def test_blocks_that_attention_splits_are_refused() -> None:
    layer = Layer(kv_cache=torch.zeros(3, 2, 16, 8))
    refuse_blocks(layer, 16)
    with pytest.raises(IntervError) as caught:
        refuse_blocks(layer, 48)
    assert str(caught.value) == (
        "error[E573]: FLASHINFER splits blocks of 48 tokens into blocks of 16, a KV policy cannot\n"
        "  = start the engine with --block-size 16"
    )
