"""A request whose stream is not finite ends in the scheduler.

It ends in the step in which that was found, so that no token which was computed from it is
answered; what it published to the prefix cache from that step on is taken back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from interv.errors import IntervError
from interv.request.arguments import FAILURE
from interv.runtime import compat
from interv.runtime.choice import KNOWN, Choice
from interv.runtime.wire import NOT_FINITE

# What the scheduler's request carries: why it fails, and what its output says beside that.
WHY, SAID = "interv_why", "interv_said"


def not_finite(choice: Choice, dtype: str, largest: float) -> IntervError:
    """Return the error of a request whose stream is not finite."""
    asked = "an inline program" if not choice.terms else f"'{Choice.of(choice.terms).key}'"
    return IntervError(
        "E590",
        "the residual stream of this request became infinite or not a number",
        notes=[f"it asked for {asked}", f"the largest value of {dtype} is {largest:.3g}"],
        helps=["ask for a smaller multiplier, or for an edit with a smaller scale"],
    )


def update_from_output(
    original: Any, self: Any, scheduled: Any, output: Any, *args: Any, **kwargs: Any
) -> Any:
    """End the requests whose stream is not finite; wraps `Scheduler.update_from_output`."""
    names = getattr(output, NOT_FINITE, ())
    ended = _end(self, scheduled, names) if names else []
    result = original(self, scheduled, output, *args, **kwargs)
    for request in ended:
        said = {**getattr(request, SAID, {}), FAILURE: getattr(request, WHY)}
        compat.add_output(result, request, said)
    return result


def _end(scheduler: Any, scheduled: Any, names: Iterable[str]) -> list[Any]:
    """End requests as failed; return those that had not ended before."""
    known = [scheduler.requests.get(name) for name in names]
    running = [one for one in known if one is not None and not one.is_finished()]
    computed = _computed(scheduled)
    dtype = scheduler.vllm_config.model_config.dtype
    for one in running:
        error = not_finite(getattr(one, KNOWN), *compat.largest(dtype))
        setattr(one, WHY, str(error))
        _unpublish(scheduler.kv_cache_manager, one.request_id, computed[one.request_id])
    ended: list[Any] = compat.end_failed(scheduler, [one.request_id for one in running])
    return ended


def _computed(scheduled: Any) -> dict[str, int]:
    """Return how many tokens of each request were there before the step."""
    later = scheduled.scheduled_cached_reqs
    found = dict(zip(later.req_ids, later.num_computed_tokens, strict=True))
    return found | {one.req_id: one.num_computed_tokens for one in scheduled.scheduled_new_reqs}


def _unpublish(manager: Any, name: str, computed: int) -> None:
    """Let nobody find the blocks that a request wrote in its last steps."""
    groups = zip(manager.coordinator.single_type_managers, manager.get_block_ids(name), strict=True)
    bad = {block for one, ids in groups for block in ids[computed // one.block_size :]}
    manager.evict_blocks(bad)
