"""What interv does on the routes of vLLM's server: one look at each body, before it is answered.

The look is a dependency of vLLM's own, which all routes with a JSON body have: the body is read
and parsed already, and nothing has been answered. What the request asks for then travels beside
the route (`exchange.py`), so that a route applies it whether it has a place for it or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from interv.errors import IntervError
from interv.runtime import compat
from interv.runtime.captures import routes
from interv.runtime.config import KEY, InterventionConfig
from interv.runtime.frontend.answers import Answers
from interv.runtime.frontend.armed_route import armed_router
from interv.runtime.frontend.exchange import EXCHANGE
from interv.runtime.frontend.request_fields import OF_TOKENS, OVER_HTTP, fields_in
from interv.runtime.frontend.requests import resolve_early, told

# Routes that have the model run, and so take programs; /invocations is one of the first two.
RUNS = (
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/chat/completions/batch",
    "/v1/responses",
    "/v1/messages",
    "/cohere/v2/chat",
    "/invocations",
    "/generative_scoring",
    "/v1/systemone",
    "/inference/v1/generate",
)
# Routes that answer with a request for one of them.
RENDERS = (
    "/v1/completions/render",
    "/v1/chat/completions/render",
    "/v1/responses/render",
    "/v1/messages/render",
    "/cohere/v2/chat/render",
)


def build_app(original: Any, *args: Any, **kwargs: Any) -> Any:
    """Add interv's routes to a server, and what it does on vLLM's own; wraps `build_app`."""
    app = routes.build_app(original, *args, **kwargs)
    app.include_router(armed_router())
    said = args[0] if args else kwargs["args"]
    if getattr(said, "intervention", None) or KEY in (said.additional_config or {}):
        # vLLM has put its own middleware together already, where it stands by SageMaker's rules.
        if app.middleware_stack is None:
            app.add_middleware(Answers)
        else:
            app.middleware_stack = Answers(app.middleware_stack)
        _add_look(app, compat.json_check())
    return app


def _add_look(app: Any, check: Callable[[Any], Any]) -> None:
    """Have every route look at its body after vLLM's own check of it."""
    look = _look_after(check)
    found = [
        one
        for route in app.routes
        for one in getattr(getattr(route, "dependant", None), "dependencies", [])
        if one.call is check
    ]
    for one in found:
        one.call = look
    if not found:
        # FastAPI's own way, which makes up the whole dependency again for each request.
        app.dependency_overrides[check] = look


def _look_after(check: Callable[[Any], Any]) -> Any:
    async def look(raw_request: Any) -> None:
        await check(raw_request)
        exchange = EXCHANGE.get()
        try:
            body = await raw_request.json()
        except ValueError:
            return  # the route says so itself
        if exchange is None or not isinstance(body, Mapping):
            return
        client = getattr(raw_request.app.state, "engine_client", None)
        exchange.looked_at = True
        exchange.asked = await _asked(raw_request.scope["route"].path, body, client)

    from fastapi import Request

    # FastAPI reads the annotation, which is a name of this function.
    look.__annotations__ |= {"raw_request": Request}
    return look


async def _asked(route: str, body: Mapping[str, Any], client: Any) -> Mapping[str, Any]:
    """Return what a body asks for. Raises what vLLM answers with HTTP 400."""
    config = getattr(client, "vllm_config", None)
    if not isinstance(getattr(config, "additional_config", None), InterventionConfig):
        return {}
    try:
        asked = fields_in(body, OF_TOKENS if route == "/inference/v1/generate" else OVER_HTTP)
        if asked and route not in RUNS + RENDERS:
            raise _runs_nothing(route)
    except IntervError as error:
        raise compat.bad_request(told(error)) from error
    if asked:
        await resolve_early(client, asked)
    return asked


def _runs_nothing(route: str) -> IntervError:
    return IntervError(
        "E512",
        f"{route} takes no interventions",
        notes=[f"routes that do: {', '.join(RUNS)}"],
        helps=["leave interv's fields out of the request"],
    )
