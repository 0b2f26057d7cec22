"""`/v1/captures`: what was captured over HTTP, beside the routes of vLLM's own server.

    GET    /v1/captures/HANDLE               what became of the request's rows
    GET    /v1/captures/HANDLE/rows/N        the N-th record in memory, as a safetensors file
    DELETE /v1/captures/HANDLE               forget the records in memory
    POST   /v1/captures/HANDLE/mark          store what `keep marked` holds of the request

The handle stands in the answer to the request. The server's API key guards these as all of /v1.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from interv.errors import IntervError
from interv.request.captured_rows import mark_with
from interv.runtime.captures.waiters import Gone, TooMany, Waiters
from interv.runtime.config import InterventionConfig
from interv.sinks.results import Result, Results, check_handle, engine_folder, not_there
from interv.sinks.spool import Spool

_MOST_WAIT_S = 60.0
# The folders of an absolute path: in quotes, where names may have spaces, and bare.
_QUOTED, _BARE = re.compile(r"'/(?:[^'/]*/)*"), re.compile(r"(?<![^\s=:(\[{,\"])/(?:[^\s'\"/]*/)*")
# nginx's status for a client that did not wait for its answer; nobody reads it.
_CLIENT_GONE = 499


def build_app(original: Any, *args: Any, **kwargs: Any) -> Any:
    """Add the routes to a server's application; wraps `build_app` of vLLM's server."""
    app = original(*args, **kwargs)
    app.include_router(_router(Waiters()))
    return app


def _router(waiters: Waiters) -> Any:
    from fastapi import APIRouter, Query, Request, Response

    router = APIRouter(prefix="/v1/captures", tags=["captures"])

    async def results(
        request: Request, handle: str, wait_s: float = Query(0, ge=0, le=_MOST_WAIT_S)
    ) -> Any:
        try:
            found = await _Where.of(request).wait(waiters, handle, wait_s)
        except TooMany:
            return _too_many()
        return {"handle": handle, "results": [public(one) for one in found]}

    async def rows(request: Request, handle: str, number: int) -> Any:
        held = _in_memory(_Where.of(request).now(handle))
        if not 0 <= number < len(held):
            raise _refused(404, f"'{handle}' has {len(held)} records in memory")
        data = await asyncio.to_thread(_read, held[number])
        return Response(data, media_type="application/octet-stream")

    async def forget(request: Request, handle: str) -> Any:
        found = _Where.of(request).now(handle)
        gone = [_spool(one).forget(str(one.detail["handle"])) for one in _in_memory(found)]
        return {"handle": handle, "forgotten": sum(gone)}

    async def mark(request: Request, handle: str) -> Any:
        where = _Where.of(request)
        try:
            check_handle(handle)
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
    """Where the engine behind a server keeps what it captured, for one request to it."""

    def __init__(self, request: Any, client: Any, folder: Path) -> None:
        self._request, self.client = request, client
        self._results = Results(folder)

    @classmethod
    def of(cls, request: Any) -> _Where:
        client = getattr(request.app.state, "engine_client", None)
        config = getattr(client, "vllm_config", None)
        carried = getattr(config, "additional_config", None)
        if not (isinstance(carried, InterventionConfig) and carried.bundle.captures):
            raise _refused(404, "this server captures nothing")
        return cls(request, client, engine_folder(carried.engine))

    async def wait(self, waiters: Waiters, handle: str, wait_s: float) -> tuple[Result, ...]:
        """Return the results of a request, of as many samples as have any after `wait_s`.

        Raises `TooMany` where it is not waited for.
        """
        try:
            look = self._results.complete
            found = await waiters.wait(lambda: look(handle), self._request, wait_s)
            if found is None:
                raise not_there(handle, len(self._results.read(handle)), wait_s)
        except IntervError as error:
            raise _refused(404, str(error)) from error
        except Gone as error:
            raise _refused(_CLIENT_GONE, "the client has gone") from error
        return found

    def now(self, handle: str) -> tuple[Result, ...]:
        """Return the results of a request that are there."""
        try:
            found = self._results.complete(handle)
            if found is None:
                raise not_there(handle, len(self._results.read(handle)), 0)
        except IntervError as error:
            raise _refused(404, str(error)) from error
        return found


def public(result: Result) -> dict[str, Any]:
    """Return what a client over HTTP is told of a result: no folder of the server's."""
    detail = {
        name: without_folders(value) if isinstance(value, str) else value
        for name, value in result.detail.items()
    }
    # Rows in memory have a number here, and neither a file nor a key.
    if "handle" in detail:
        detail = {name: value for name, value in detail.items() if name not in ("handle", "path")}
    return {**asdict(result), "detail": detail, "error": without_folders(result.error)}


def without_folders(text: str) -> str:
    """Return a text with the last part of every absolute path in it only.

    >>> without_folders("no such file or directory ('/srv/my acts/a.0.part')")
    "no such file or directory ('a.0.part')"
    """
    return _BARE.sub("", _QUOTED.sub("'", text))


def _in_memory(found: tuple[Result, ...]) -> list[Result]:
    return [one for one in found if "handle" in one.detail]


def _spool(result: Result) -> Spool:
    # A spool is a folder of handles, which are folders of files.
    return Spool(Path(str(result.detail["path"])).parents[1])


def _read(result: Result) -> bytes:
    try:
        (file,) = _spool(result).files(str(result.detail["handle"]))
        return file.read_bytes()
    except IntervError as error:
        # It names the key of the record, which is none of the client's words.
        raise _refused(404, error.message.replace(str(result.detail["handle"]), "it")) from error
    except FileNotFoundError as error:
        raise _refused(404, "the rows are forgotten") from error


def _refused(status: int, message: str) -> Exception:
    from fastapi import HTTPException

    made: Exception = HTTPException(status, message)
    return made


def _too_many() -> Any:
    """Return what vLLM's handler makes of a refusal, and the header that it would drop."""
    from fastapi.responses import JSONResponse

    message = "too many clients wait for captures: ask again, or without wait_s"
    error = {"message": message, "type": "Too Many Requests", "param": None, "code": 429}
    return JSONResponse({"error": error}, 429, {"Retry-After": "1"})
