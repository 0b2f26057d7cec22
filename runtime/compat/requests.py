"""Requests: how they ended, how one is ended, and what is answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interv.runtime.compat.lookup import way
from interv.runtime.compat.seams_kv import PROMPT


def prompt_length(new: Any) -> int:
    """Return the length of the prompt of a request that is new to a runner."""
    if way(PROMPT) == 0:
        return int(new.prompt_len)
    return len(new.prompt_embeds if new.prompt_token_ids is None else new.prompt_token_ids)


def has_finished(request: Any) -> bool:
    """Say whether a request that ended came to its end, and was not aborted."""
    from vllm.v1.request import RequestStatus

    return request.status not in (RequestStatus.FINISHED_ABORTED, RequestStatus.FINISHED_ERROR)


def is_stop(reason: Any) -> bool:
    """Say whether a request ended because something that stops it was sampled."""
    from vllm.v1.engine import FinishReason

    return bool(reason == FinishReason.STOP)


def end_failed(scheduler: Any, names: Sequence[str]) -> list[Any]:
    """End requests as failed between two steps; return the scheduler's requests."""
    from vllm.v1.request import RequestStatus

    ended: list[Any] = scheduler.finish_requests(names, RequestStatus.FINISHED_ERROR)
    return ended


def add_output(outputs: dict[int, Any], request: Any, said: dict[str, Any]) -> None:
    """Add the last output of a request that ended between two steps to what a step answers.

    It has failed, or a stop string ended it, which the core knows as an abort.
    """
    from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, FinishReason
    from vllm.v1.engine.output_processor import EMPTY_CPU_TENSOR

    reason = request.get_finished_reason()
    output = EngineCoreOutput(
        request_id=request.request_id,
        new_token_ids=[],
        finish_reason=FinishReason.STOP if reason == FinishReason.ABORT else reason,
        events=request.take_events(),
        kv_transfer_params=said,
        trace_headers=request.trace_headers,
        pooling_output=EMPTY_CPU_TENSOR if request.pooling_params else None,
    )
    outputs.setdefault(request.client_index, EngineCoreOutputs()).outputs.append(output)


def bad_request(message: str) -> Exception:
    """Return the exception that vLLM answers with HTTP 400."""
    from vllm.exceptions import VLLMValidationError

    made: Exception = VLLMValidationError(message)
    return made
