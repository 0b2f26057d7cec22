"""A request that the engine has ended as failed: the client that waits for it is told why."""

from __future__ import annotations

from typing import Any

from interv.request.arguments import FAILURE
from interv.runtime import compat


def process_outputs(original: Any, self: Any, outputs: Any, *args: Any, **kwargs: Any) -> Any:
    """Raise for the client that waits what its request failed of.

    Wraps `OutputProcessor.process_outputs`. Offline the output says it (`interv.failure`).
    """
    failed = [one for one in outputs if FAILURE in (one.kv_transfer_params or ())]
    states = [(self.request_states.get(one.request_id), one) for one in failed]
    result = original(self, outputs, *args, **kwargs)
    for state, one in states:
        if state is None or state.queue is None:
            continue
        state.queue.put(compat.bad_request(one.kv_transfer_params[FAILURE]))
        if state.parent_req is not None:
            others = [*state.parent_req.child_requests]
            result.reqs_to_abort.extend(self.abort_requests(others, internal=True))
    return result
