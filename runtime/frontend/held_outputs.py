"""How a request that tells something ends: none of its answers leaves before what is told is known.

What a request had edited and where its captured rows are, the scheduler tells when it frees the
request. Two ends miss that. A stop string is found in the text, outside the engine's core: vLLM
answers at once and aborts the request in the core afterwards. And of several samples vLLM passes on
only what the last one tells. So the output of a request that ends by a stop string waits here for
the core, which tells of it in its next step, and what samples tell is put together.

An abort names a request twice where a stop string ended it, so that the core can tell that end from
a client's; naming it again changes nothing for vLLM, and takes every way that aborts take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from interv.request.arguments import FAILURE
from interv.runtime import compat
from interv.runtime.choice import RESOLVED
from interv.runtime.frontend.exchange import EXCHANGE, Told, ours, together

_HELD = "interv_held"
_TELLS = "interv_tells"


@dataclass(slots=True, eq=False)
class _Tells:
    """What is known of one sample in the output processor."""

    told: Told
    sample: int
    held: dict[str, _Held]  # the processor's, by the sample's id
    waits: bool = True  # for the core, where a stop string ends it


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """An output that is ready but for what the core has to tell."""

    state: Any
    output: tuple[Any, ...]  # the arguments of `make_request_output`


def add_request(
    original: Any,
    self: Any,
    request: Any,
    prompt: Any,
    parent_req: Any = None,
    *args: Any,
    **more: Any,
) -> Any:
    """Note a sample that will tell something; wraps `OutputProcessor.add_request`."""
    result, parent = original(self, request, prompt, parent_req, *args, **more), parent_req
    state = self.request_states.get(request.request_id)
    if _is_told_of(request) and not hasattr(state, _TELLS):
        whole = state if parent is None else parent
        if not hasattr(whole, "interv_told"):
            whole.interv_told = Told(state.external_req_id, [None] * (parent.n if parent else 1))
            if (exchange := EXCHANGE.get()) is not None:
                exchange.prompts.append(whole.interv_told)
        held = self.__dict__.setdefault(_HELD, {})
        setattr(state, _TELLS, _Tells(whole.interv_told, state.request_index, held))
    return result


def _is_told_of(request: Any) -> bool:
    extra: Mapping[str, Any] = getattr(request.sampling_params, "extra_args", None) or {}
    plain = extra.get(RESOLVED)
    return plain is not None and (plain["report"] or "label" in plain)


def make_request_output(
    original: Any,
    self: Any,
    new_token_ids: Any,
    pooling_output: Any,
    finish_reason: Any,
    stop_reason: Any,
    kv_transfer_params: Any = None,
    *args: Any,
    **more: Any,
) -> Any:
    """Keep the output of a stop string, and put together what samples tell.

    Wraps `RequestState.make_request_output`.
    """
    said, told = (new_token_ids, pooling_output, finish_reason, stop_reason), kv_transfer_params
    tells: _Tells | None = getattr(self, _TELLS, None)
    if tells is None or finish_reason is None:
        return original(self, *said, told, *args, **more)
    # The pieces of a streamed prompt end by themselves, too; the core keeps such a request.
    waits = tells.waits and not self.streaming_input
    if waits and compat.is_stop(finish_reason) and not ours(told):
        tells.held[self.request_id] = _Held(self, said)
        return None
    tells.told.note(tells.sample, told)
    output = original(self, *said, told, *args, **more)
    if output is not None and output.finished and (whole := together([tells.told])):
        output.kv_transfer_params = {**(told or {}), **whole}
    return output


def process_outputs(original: Any, self: Any, outputs: Any, *args: Any, **more: Any) -> Any:
    """Let go of outputs whose core has told, keep new ones; wraps the processor's method."""
    held: dict[str, _Held] = self.__dict__.setdefault(_HELD, {})
    free: list[Any] = []
    if held:
        # Of a request that has ended here the core may have gone on for a step.
        late = [one for one in outputs if one.request_id in held]
        outputs = [one for one in outputs if one.request_id not in held]
        ends = [one for one in late if one.finished]
        free = [_let_go(self, held.pop(one.request_id), one) for one in ends]
    done = original(self, outputs, *args, **more)
    done.request_outputs[:0] = [one for one in free if one is not None]
    for name in [name for name in done.reqs_to_abort if name in held]:
        # It has not ended yet for those who ask, wait or abort.
        state = held[name].state
        self.request_states[name] = state
        self.external_req_ids[state.external_req_id].append(name)
        done.reqs_to_abort.append(name)
    return done


def _let_go(processor: Any, held: _Held, late: Any) -> Any:
    """Give an output to its queue, or return it where there is none."""
    state = held.state
    if processor.request_states.get(state.request_id) is not state:
        return None  # aborted by its client meanwhile
    getattr(state, _TELLS).waits = False
    output = state.make_request_output(*held.output, late.kv_transfer_params)
    processor._finish_request(state)
    if output is None or state.queue is None:
        return output
    state.queue.put(output)
    return None


def tell_failures(original: Any, self: Any, outputs: Any, *args: Any, **kwargs: Any) -> Any:
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
