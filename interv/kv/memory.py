"""What a KV policy bounds: tokens and bytes of a request, and how many requests fit."""

from __future__ import annotations

from interv.kv.settings import KvSettings
from interv.model import KvFacts

# Keys and values are kept in bf16 or fp16 unless a user says otherwise.
_ITEM_BYTES = 2


def bytes_per_token(model: KvFacts) -> int:
    """Return the bytes of one token's keys and values in all layers, in bf16."""
    return 2 * model.num_layers * model.kv_heads * model.head_size * _ITEM_BYTES


def bound_lines(settings: KvSettings, model: KvFacts | None) -> tuple[str, ...]:
    """Say what a request holds at most, in tokens, and in bytes where the model is known."""
    limit = settings.limit
    lines = [f"a decoding request holds at most {limit} tokens"]
    if model is not None:
        lines[0] += f", {_size(limit * bytes_per_token(model))} of keys and values (bf16)"
    if settings.prefill:
        lines.append("prompts are compressed while they are read")
    else:
        lines.append("a longer prompt is held whole until it is done, then cut to the budget")
    if model is not None and model.max_length is not None and model.max_length > limit:
        whole = _size(model.max_length * bytes_per_token(model))
        ratio = model.max_length / limit
        lines.append(
            f"a request of {model.max_length} tokens would hold {whole} without it:"
            f" {ratio:.1f} × as many fit"
        )
    return tuple(lines)


def _size(count: int) -> str:
    return f"{count / 1e3:.1f} kB" if count < 1_000_000 else f"{count / 1e6:.2f} MB"
