"""`GET /v1/interventions`: what the engine behind a server is armed with.

It says nothing that a client who may send requests may not know: names, sites and counts, no path.
The server's API key guards it as all of /v1.
"""

from __future__ import annotations

from typing import Any

from interv.runtime.armed import Armed
from interv.runtime.config import InterventionConfig
from interv.runtime.counters import HELD, USED
from interv.runtime.metrics import opened


def add_route(app: Any) -> Any:
    """Add the route to a server's application, which is returned."""
    from fastapi import APIRouter, Request

    async def interventions(request: Request) -> Any:
        client = getattr(request.app.state, "engine_client", None)
        carried = getattr(getattr(client, "vllm_config", None), "additional_config", None)
        if not isinstance(carried, InterventionConfig):
            raise _none_here()
        counters = list(opened(carried))
        used, held = (sum(int(one.head[place]) for one in counters) for place in (USED, HELD))
        return Armed(carried).data(used, held)

    # FastAPI reads the annotations, which are names of this function.
    interventions.__annotations__ |= {"request": Request, "return": Any}
    router = APIRouter(prefix="/v1/interventions", tags=["interventions"])
    router.add_api_route("", interventions, methods=["GET"])
    app.include_router(router)
    return app


def _none_here() -> Exception:
    from fastapi import HTTPException

    made: Exception = HTTPException(404, "this server was started without --intervention")
    return made
