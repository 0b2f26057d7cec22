"""What was captured of a request that an engine on this machine has answered.

outputs = llm.generate(prompts, SamplingParams(**interv.sampling_args("probe")))
for record in interv.captured(outputs[0]):
    print(record.statement, [part.rows.shape for part in record.parts])
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interv.errors import IntervError
from interv.request.arguments import carried

if TYPE_CHECKING:
    from interv.sinks.record import Captured
    from interv.sinks.results import Result

_KEY = "interv_captures"


def captured(output: Any, timeout_s: float = 30.0) -> tuple[Captured, ...]:
    """Return the rows that `memory` sinks hold of a finished request, a record for each capture.

    `output` is vLLM's `RequestOutput`, an answer of the OpenAI SDK or the last chunk of a streamed
    one, or the JSON of either; a record says of which `request` and `sample` it is. The rows lie in
    shared memory and are not copied; they are gone some time later (`ttl_s` of the sink). Waits
    until all sinks are done with the request. Raises IntervError E562 where nothing was captured
    of it, E563 after `timeout_s`, E565 where rows did not reach their sink.
    """
    results = capture_results(output, timeout_s)
    lost = [one for one in results if one.status in ("error", "dropped")]
    if lost:
        raise IntervError(
            "E565",
            f"rows that {lost[0].statement} captured did not reach sink '{lost[0].sink}'",
            notes=[one.error for one in lost[:8]],
        )
    found: dict[tuple[str, int, str], Captured] = {}
    for one in results:
        for record in _in_memory(one):
            # The last part of a handle is the capture's number, alike on all pipeline stages.
            key = one.request, record.sample, str(one.detail["handle"]).rpartition(".")[2]
            before = found[key].parts if key in found else ()
            found[key] = replace(record, parts=(*before, *record.parts))
    return tuple(found.values())


def _in_memory(result: Result) -> Sequence[Captured]:
    from interv.sinks.spool import Spool

    if "handle" not in result.detail:
        return ()
    # A spool is a folder of handles, which are folders of files.
    return Spool(Path(str(result.detail["path"])).parents[1]).read(str(result.detail["handle"]))


def capture_results(output: Any, timeout_s: float = 30.0) -> tuple[Result, ...]:
    """Return what became of the rows of a finished request: one result a capture and sample.

    Waits as `captured` does. Raises IntervError E562 and E563.
    """
    from interv.sinks.results import wait_for

    deadline = time.monotonic() + timeout_s
    found: list[Result] = []
    for handle, samples in _handles(output).items():
        found += wait_for(handle, samples, max(0.0, deadline - time.monotonic()))
    return tuple(found)


def mark(llm: Any, request: Any) -> int:
    """Store what `keep marked` captures hold of a request; return how many records that were.

    `llm` is a `vllm.LLM` or another engine with `collective_rpc`; `request` is an answer, its
    handle, or the id that the request has. Raises IntervError E559 for an id that several requests
    have of which rows are held, E562 for an answer of which nothing was captured, and E566 where
    nothing is held.
    """
    if not isinstance(request, str):
        return sum(_mark(llm, handle) for handle in _handles(request))
    found = llm.collective_rpc("interv_held", args=(request,))
    return _mark(llm, _only({handle for handles in found for handle in handles}, request))


def _mark(llm: Any, handle: str) -> int:
    return _marked(llm.collective_rpc("interv_mark", args=(handle,)), handle)


async def mark_with(client: Any, handle: str) -> int:
    """Do the same through an asynchronous client of the engine, by the handle only."""
    return _marked(await client.collective_rpc("interv_mark", args=(handle,)), handle)


def _only(handles: set[str], request: str) -> str:
    """Return the handle of the one request that is called so, or what it is called if none is."""
    if len(handles) > 1:
        raise IntervError(
            "E559",
            f"rows of {len(handles)} requests are held that are called '{request}'",
            helps=["mark one of them by its answer or by its handle"],
        )
    return next(iter(handles), request)


def _marked(found: Sequence[int], request: str) -> int:
    if not sum(found):
        raise IntervError(
            "E566",
            f"no rows of request '{request}' are held",
            notes=["they are held from its end until the ring needs the place"],
        )
    return sum(found)


def _handles(output: Any) -> Mapping[str, int]:
    """Return the handle of each prompt, and of how many samples there are any rows."""
    told = carried(output).get(_KEY)
    entries = told if isinstance(told, Sequence) else [told]
    handles = Counter(str(one["handle"]) for one in entries if one)
    if not handles:
        raise IntervError(
            "E562",
            "nothing was captured of this request",
            notes=["it has not finished, or its program has no capture for it"],
        )
    return handles
