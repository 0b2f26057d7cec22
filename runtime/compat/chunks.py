"""How the end of a request's chunk is moved, in each version that asks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeAlias

from interv.runtime.compat.classes import scheduler_class
from interv.runtime.compat.lookup import way
from interv.runtime.compat.seams_kv import CHUNKS


class Clips(Protocol):
    """What moves the ends of one scheduler's chunks."""

    def clip(self, request: Any, count: int, new: int) -> int:
        """Return how many of `new` tokens a request of `count` computed ones may be given."""


# What moves the ends of a scheduler's chunks, None for nothing.
Of: TypeAlias = Callable[[Any], Clips | None]


@functools.cache
def chunk_seams(of: Of) -> Iterable[tuple[Any, str, Any]]:
    """Return what has a scheduler's chunks end where `of(scheduler)` says."""
    if way(CHUNKS) == 0:
        return [(scheduler_class(), "_reserve_prefill_lookahead", reserve(of))]
    return [(scheduler_class(), "_mamba_block_aligned_split", split(of))]


def reserve(of: Of) -> Any:
    """From 0.28 on every chunk passes one method, behind all that makes it shorter."""

    def reserved(
        original: Any,
        self: Any,
        request: Any,
        num_computed_tokens: int,
        num_new_tokens: int,
        *args: Any,
        **kwargs: Any,
    ) -> int:
        new: int = original(self, request, num_computed_tokens, num_new_tokens, *args, **kwargs)
        clips = of(self)
        return new if clips is None else clips.clip(request, num_computed_tokens, new)

    return reserved


def split(of: Of) -> Any:
    """Before, chunks of models with Mamba layers pass one: with a policy, which refuses them."""

    def aligned(
        original: Any,
        self: Any,
        request: Any,
        num_new_tokens: int,
        num_new_local_computed_tokens: int = 0,
        num_external_computed_tokens: int = 0,
        *args: Any,
        **kwargs: Any,
    ) -> int:
        found = num_new_local_computed_tokens, num_external_computed_tokens
        clips = of(self)
        if clips is None:
            whole: int = original(self, request, num_new_tokens, *found, *args, **kwargs)
            return whole
        return clips.clip(request, request.num_computed_tokens + sum(found), num_new_tokens)

    return aligned


def ask_for_chunks(scheduler: Any) -> None:
    """Have a scheduler whose chunks are clipped ask for each of them."""
    if way(CHUNKS) != 0:
        scheduler.need_mamba_block_aligned_split = True
