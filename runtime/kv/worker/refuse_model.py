"""What of a model and its runner a KV policy cannot be attached to, refused at their start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interv.errors import IntervError, raise_all
from interv.runtime import compat
from interv.runtime.kv.worker.attention import BACKENDS, Keeping
from interv.runtime.kv.worker.batch import FirstBatches, SecondBatches


def refuse_worker(runner: compat.Runner) -> None:
    """Raise IntervError E571 for a runner that has none of the hooks."""
    kind = SecondBatches if compat.is_v2(runner) else FirstBatches
    wanted = ("get_kv_cache_spec", "initialize_kv_cache", *kind.HOOKS)
    missing = [name for name in wanted if not hasattr(runner, name)]
    if missing:
        raise IntervError(
            "E571",
            f"a KV policy cannot be attached to {type(runner).__name__}",
            notes=[f"it lacks: {', '.join(missing)}"],
        )


def refuse_layers(specs: Mapping[str, Any], layers: Mapping[str, Any]) -> None:
    """Raise IntervError E572 and E573 for layers whose cache cannot be compressed.

    `layers` are the model's by name, those of `specs` among them.
    """
    errors = [found for name in specs if (found := _fault(name, specs[name], layers[name]))]
    shared = [n for n, one in layers.items() if getattr(one, "kv_sharing_target_layer_name", None)]
    if shared:
        names = ", ".join(sorted(shared)[:3])
        errors.append(
            IntervError("E572", f"layers share the caches of others, a KV policy cannot: {names}")
        )
    # A model has many layers of a kind: the first few say it.
    raise_all(errors[:3])


def refuse_blocks(layer: Any, block_size: int) -> None:
    """Raise IntervError E573 where attention's blocks are not those of the scheduler."""
    found = int(layer.kv_cache.shape[-2])
    if found != block_size:
        raise IntervError(
            "E573",
            f"{compat.attention_name(layer)} splits blocks of {block_size} tokens into blocks of"
            f" {found}, a KV policy cannot",
            helps=[f"start the engine with --block-size {found}"],
        )


def _fault(name: str, spec: Any, layer: Any) -> IntervError | None:
    window = getattr(spec, "sliding_window", None) or getattr(spec, "attention_chunk_size", None)
    if type(spec) not in compat.full_attention_kinds() or window:
        return _not_full(name, spec, window)
    if spec.head_size_v != spec.head_size:
        return _uneven(name, spec)
    if not isinstance(layer.impl, Keeping):
        return _other_backend(name, compat.attention_name(layer))
    if getattr(layer.impl, "alibi_slopes", None) is not None:
        return _counting(name)
    return None


def _counting(name: str) -> IntervError:
    return IntervError(
        "E572",
        f"layer '{name}' counts positions from its cache (ALiBi), which a KV policy leaves with"
        " gaps",
    )


def _not_full(name: str, spec: Any, window: int | None) -> IntervError:
    kind = f"{type(spec).__name__}" + (f", window {window}" if window else "")
    return IntervError(
        "E572",
        f"layer '{name}' has no full attention: {kind}",
        notes=["a KV policy drops what full attention would have kept"],
        helps=["leave 'kv' out of the document for this model"],
    )


def _uneven(name: str, spec: Any) -> IntervError:
    return IntervError(
        "E572",
        f"layer '{name}' has keys of size {spec.head_size} and values of size {spec.head_size_v},"
        " a KV policy wants one size",
    )


def _other_backend(name: str, backend: str) -> IntervError:
    return IntervError(
        "E573",
        f"layer '{name}' attends by {backend}, which a KV policy cannot be attached to",
        notes=[f"backends that it can: {', '.join(BACKENDS)}"],
        helps=["choose one with --attention-backend"],
    )
