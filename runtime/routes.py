"""`/v1/captures`: what was captured over HTTP, beside the routes of vLLM's own server.

    GET    /v1/captures/HANDLE               what became of the request's rows
    GET    /v1/captures/HANDLE/rows/N        the N-th record in memory, as a safetensors file
    DELETE /v1/captures/HANDLE               forget the records in memory
    POST   /v1/captures/HANDLE/mark          store what `keep marked` holds of the request

The handle stands in the answer to the request. The server's API key guards these as all of /v1.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Any

from interv.captured_rows import mark_with
from interv.errors import IntervError
from interv.runtime.armed_route import armed_router
from interv.runtime.config import InterventionConfig
from interv.sinks.results import Result, Results, engine_folder
from interv.sinks.spool import Spool

_MOST_WAIT_S = 60.0


def build_app(original: Any, *args: Any, **kwargs: Any) -> Any:
    """Add the routes to a server's application; wraps `build_app` of vLLM's server."""
    app = original(*args, **kwargs)
    app.include_router(_router())
    app.include_router(armed_router())
    return app


def _router() -> Any:
    from fastapi import APIRouter, Query, Request, Response

    router = APIRouter(prefix="/v1/captures", tags=["captures"])

    async def results(
        request: Request, handle: str, wait_s: float = Query(0, ge=0, le=_MOST_WAIT_S)
    ) -> Any:
        where = _Where.of(request)
        found = await where.found(handle, wait_s)
        return {"handle": handle, "results": [asdict(one) for one in found]}

    async def rows(request: Request, handle: str, number: int) -> Any:
        where = _Where.of(request)
        held = _in_memory(await where.found(handle, 0))
        if not 0 <= number < len(held):
            raise _refused(404, f"'{handle}' has {len(held)} records in memory")
        data = await asyncio.to_thread(_read, held[number])
        return Response(data, media_type="application/octet-stream")

    async def forget(request: Request, handle: str) -> Any:
        where = _Where.of(request)
        found = await where.found(handle, 0)
        gone = [_spool(one).forget(str(one.detail["handle"])) for one in _in_memory(found)]
        return {"handle": handle, "forgotten": sum(gone)}

    async def mark(request: Request, handle: str) -> Any:
        where = _Where.of(request)
        try:
            return {"handle": handle, "marked": await mark_with(where.client, handle)}
        except IntervError as error:
            raise _refused(404, str(error)) from error

    # FastAPI reads the annotations, which are names of this function.
    for function in (results, rows, forget, mark):
        function.__annotations__ |= {"request": Request, "return": Any}
    router.add_api_route("/{handle}/mark", mark, methods=["POST"])
    router.add_api_route("/{handle}", results, methods=["GET"])
    router.add_api_route("/{handle}/rows/{number}", rows, methods=["GET"])
    router.add_api_route("/{handle}", forget, methods=["DELETE"])
    return router


class _Where:
    """Where the engine behind a server keeps what it captured."""

    def __init__(self, client: Any, folder: Path, stages: int) -> None:
        self.client, self._stages = client, stages
        self._results = Results(folder)

    @classmethod
    def of(cls, request: Any) -> _Where:
        client = getattr(request.app.state, "engine_client", None)
        config = getattr(client, "vllm_config", None)
        carried = getattr(config, "additional_config", None)
        if not (isinstance(carried, InterventionConfig) and carried.bundle.captures):
            raise _refused(404, "this server captures nothing")
        stages = config.parallel_config.pipeline_parallel_size  # type: ignore[union-attr]
        return cls(client, engine_folder(carried.engine), stages)

    async def found(self, handle: str, wait_s: float) -> tuple[Result, ...]:
        """Return the results of a request, of as many samples as have any yet."""
        try:
            return await asyncio.to_thread(self._results.wait, handle, self._stages, wait_s)
        except IntervError as error:
            raise _refused(404, str(error)) from error


def _in_memory(found: tuple[Result, ...]) -> list[Result]:
    return [one for one in found if "handle" in one.detail]


def _spool(result: Result) -> Spool:
    # A spool is a folder of handles, which are folders of files.
    return Spool(Path(str(result.detail["path"])).parents[1])


def _read(result: Result) -> bytes:
    try:
        (file,) = _spool(result).files(str(result.detail["handle"]))
    except IntervError as error:
        raise _refused(404, str(error)) from error
    return file.read_bytes()


def _refused(status: int, message: str) -> Exception:
    from fastapi import HTTPException

    made: Exception = HTTPException(status, message)
    return made
