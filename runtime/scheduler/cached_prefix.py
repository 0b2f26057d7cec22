"""How far a cached prefix may reach: not over a prompt token that is captured.

The rows of a token are there only where it runs. What is cached of the prompt before the first
captured token is used as always; requests that capture nothing of their prompt lose nothing. Nor
does it reach over the queries that a KV policy judges a request's first compaction by.
"""

from __future__ import annotations

from typing import Any

from interv.codegen.bundle import Bundle
from interv.passes.graph.selector_masks import select, tokens_of_request
from interv.runtime.choice import Choice
from interv.runtime.kv.scheduler.schedule import most_cached

# Where the position is kept among the attributes of the scheduler's request.
FIRST = "interv_first_captured"


def first_captured(bundle: Bundle, choice: Choice, prompt: list[int]) -> int | None:
    """Return the position of the first prompt token that a request captures, None for none."""
    own = [one for bit, one in enumerate(bundle.captures) if choice.captures >> bit & 1]
    selectors = [bundle.selectors[one.selector] for one in own]
    tokens = tokens_of_request(selectors, prompt, len(prompt))
    found = []
    for selector in selectors:
        wanted = select(tokens, selector).nonzero()
        found += [int(wanted[0])] if len(wanted) else []
    return min(found, default=None)


def note_first(request: Any, bundle: Bundle, choice: Choice) -> None:
    """Note on the scheduler's request which of its prompt tokens is the first to be captured."""
    if choice.captures:
        # A prompt of embeddings has no ids; no `token(…)` holds for it.
        ids = request.prompt_token_ids or [-1] * request.num_prompt_tokens
        setattr(request, FIRST, first_captured(bundle, choice, list(ids)))


def get_computed_blocks(original: Any, self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
    """Look up a request's cached blocks up to the first token that has to be run.

    Wraps `KVCacheManager.get_computed_blocks`, which always leaves the last token to be run; the
    same bound is what we lower.
    """
    bounds = [getattr(request, FIRST, None), most_cached(self, request)]
    most = min((one for one in bounds if one is not None), default=None)
    if most is None:
        return original(self, request, *args, **kwargs)
    coordinator = self.coordinator
    find = coordinator.find_longest_cache_hit

    def bounded(hashes: Any, longest: int, *rest: Any, **more: Any) -> Any:
        return find(hashes, min(longest, most), *rest, **more)

    coordinator.find_longest_cache_hit = bounded
    try:
        return original(self, request, *args, **kwargs)
    finally:
        del coordinator.find_longest_cache_hit
