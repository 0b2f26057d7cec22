"""`GET /v1/interventions`: what a server is armed with, for operators and for `interv doctor`.

It changes nothing and asks the engine for nothing: the bundle says what there is, the shared
counters what is in use. No path of the server is in the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from interv import __version__
from interv.codegen.bundle import Bundle
from interv.document.sites import Site
from interv.runtime.armed import site_texts
from interv.runtime.config import InterventionConfig
from interv.runtime.counters import HELD, USED
from interv.runtime.frontend.metrics import opened

PATH = "/v1/interventions"


def armed_router() -> Any:
    """Return the route, for vLLM's application; the server's API key guards it as all of /v1."""
    from fastapi import APIRouter, Request

    router = APIRouter(tags=["interventions"])

    async def interventions(request: Request) -> Any:
        client = getattr(request.app.state, "engine_client", None)
        config = getattr(client, "vllm_config", None)
        return described(getattr(config, "additional_config", None))

    # FastAPI reads the annotations, which are names of this function.
    interventions.__annotations__ |= {"request": Request, "return": Any}
    router.add_api_route(PATH, interventions, methods=["GET"])
    return router


def described(carried: object) -> Mapping[str, Any]:
    """Return what an engine is armed with, as JSON has it; `armed` is false where it is not."""
    if not isinstance(carried, InterventionConfig):
        return {"interv": __version__, "armed": False}
    bundle = carried.bundle
    counters = list(opened(carried.counters, bundle))
    used, held = (sum(int(one.head[place]) for one in counters) for place in (USED, HELD))
    return {
        "interv": __version__,
        "armed": True,
        "documents": list(carried.documents),
        "programs": [_program(bundle, name) for name in bundle.programs],
        "default": bundle.default,
        "inline": bundle.inline,
        "sites": list(site_texts(bundle.spliced)),
        "sinks": [{"name": use.decl.name, "kind": use.decl.kind} for use in bundle.sinks],
        "kv": None if bundle.kv is None else _policy(bundle),
        "slots": {"total": carried.slots * len(counters), "used": used},
        "reports": carried.seats * len(counters),
        "held": held,
    }


def _program(bundle: Bundle, name: str) -> dict[str, Any]:
    """Say where a program edits and captures."""
    edited = [table.site for table in bundle.sites if name in table.programs]
    taken: list[Site] = [s for one in bundle.captures if one.program == name for s in one.sites]
    own: dict[str, Any] = {"name": name, "edits": list(site_texts(edited))}
    return {**own, "captures": list(site_texts(taken))}


def _policy(bundle: Bundle) -> dict[str, Any]:
    assert bundle.kv is not None
    return {**asdict(bundle.kv), "own": dict(bundle.kv.own)}
