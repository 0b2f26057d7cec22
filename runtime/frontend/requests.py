"""Requests on their way into the engine: resolved or refused before they are queued."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from interv.document.wording import on_off
from interv.errors import IntervError, each
from interv.runtime import compat
from interv.runtime.choice import ASKED, REPORT, RESOLVED, Choice
from interv.runtime.config import InterventionConfig
from interv.runtime.frontend.admission import Admission, flag
from interv.runtime.frontend.exchange import EXCHANGE
from interv.runtime.frontend.prompt_embeddings import refuse_unknown_tokens
from interv.runtime.frontend.request_fields import (
    FIELDS,
    OFFLINE,
    OVER_HTTP,
    check_fields,
    fields_in,
)
from interv.runtime.kv.asked import ASKED_KV, asked_kv

# How many errors of one request its client reads.
_MOST_ERRORS = 8


def process_inputs(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """Resolve a request before it is queued; wraps `InputProcessor.process_inputs`."""
    params = kwargs.get("params", args[2] if len(args) > 2 else None)
    name = kwargs.get("request_id", args[0] if args else "")
    extra = _extra(params)
    choice = resolve_for(self, self.vllm_config, extra, str(name), bool(kwargs.get("resumable")))
    if choice is not None and (choice.key or choice.captures) and kwargs.get("resumable"):
        error = IntervError(
            "E508",
            "a prompt that is sent in pieces has no interventions",
            notes=["selectors count from the end of the prompt, which is not known yet"],
            helps=["send the whole prompt at once"],
        )
        raise compat.bad_request(str(error))
    if choice is not None and not hasattr(params, "extra_args"):
        if extra.keys() & FIELDS:
            raise compat.bad_request(str(_no_own()))
        if choice.captures:
            raise compat.bad_request(str(_not_generating()))
    made = original(self, *args, **kwargs)
    if choice is not None and getattr(made, "prompt_embeds", None) is not None:
        try:
            refuse_unknown_tokens(self.vllm_config.additional_config.bundle, choice)
        except IntervError as error:
            raise compat.bad_request(str(error)) from error
    if choice is not None and made.sampling_params is not None:
        extra = made.sampling_params.extra_args or {}
        said = {} if choice.kv is None else {ASKED_KV: on_off(choice.kv)}
        made.sampling_params.extra_args = {**extra, **said, RESOLVED: choice.plain()}
    return made


def _extra(params: Any) -> Mapping[str, Any]:
    """Return what a request says beside vLLM's own fields, over HTTP or in its parameters."""
    exchange = EXCHANGE.get()
    said = getattr(params, "extra_args", None) or getattr(params, "extra_kwargs", None) or {}
    return {**exchange.asked, **said} if exchange is not None else said


def admission_of(owner: Any, config: compat.VllmConfig) -> Admission | None:
    """Return what resolves the requests of an engine, None where the engine edits nothing."""
    carried = config.additional_config
    if not isinstance(carried, InterventionConfig):
        return None
    if not hasattr(owner, "interv"):
        owner.interv = Admission(carried, config)
    admission: Admission = owner.interv
    return admission


def resolve_for(
    owner: Any,
    config: compat.VllmConfig,
    extra: Mapping[str, Any],
    request: str = "",
    resumable: bool = False,
) -> Choice | None:
    """Return the choice of a request to an engine, None where the engine edits nothing.

    `owner` keeps what is remembered between requests. Raises what vLLM answers with HTTP 400.
    """
    try:
        if (admission := admission_of(owner, config)) is not None:
            check_fields(extra, OFFLINE)
            return admission.resolve(extra, request, resumable)
        asked_kv(extra, None)
        if extra.get(ASKED) is not None or flag(extra.get(REPORT)):
            raise _not_armed(extra)
    except IntervError as error:
        raise compat.bad_request(told(error)) from error
    return None


def _not_generating() -> IntervError:
    return IntervError(
        "E561",
        "a request that generates nothing is not captured",
        notes=["its program captures, and its answer would say nothing of it"],
        helps=["ask for 'off', or for a program that only edits"],
    )


def _no_own() -> IntervError:
    return IntervError(
        "E513",
        "a request that generates nothing has no program of its own",
        notes=["it gets the default program, or no edit where there is none"],
        helps=[f"leave '{ASKED}' and its like out of the request"],
    )


def told(error: IntervError) -> str:
    """Print what is wrong with a request; a small request makes no large answer."""
    found = each(error)
    more = len(found) - _MOST_ERRORS
    shown = [str(one) for one in found[:_MOST_ERRORS]]
    return "\n\n".join([*shown, f"and {more} more errors"] if more > 0 else shown)


def _not_armed(extra: Mapping[str, Any]) -> IntervError:
    return IntervError(
        "E504",
        "this engine has no interventions",
        notes=[f"the request asks for {extra.get(ASKED, REPORT)!r}"],
        helps=["start it with --intervention FILE"],
    )


async def check_model(original: Any, self: Any, request: Any) -> Any:
    """Refuse a request over HTTP before it is answered; wraps `BaseServing._check_model`.

    Requests without a JSON body, as of audio, are looked at only here.
    """
    client = getattr(self, "engine_client", None)
    if client is not None:
        extra = _said_over_http(request, client.vllm_config)
        if extra.keys() & FIELDS:
            choice = await resolve_early(client, extra)
            if getattr(request, "use_beam_search", False) and not _is_off(choice, extra):
                raise compat.bad_request(str(_no_beams()))
    return await original(self, request)


async def resolve_early(client: Any, extra: Mapping[str, Any]) -> Choice | None:
    """Resolve what is asked for over HTTP before it is answered, or raise HTTP 400.

    A request's own program is compiled while others are served; it is remembered then.
    """
    owner, config, asked = client.input_processor, client.vllm_config, extra.get(ASKED)
    admission = admission_of(owner, config)
    if admission is not None and admission.takes_long(asked):
        try:
            await asyncio.wrap_future(admission.compiling(asked))
        except IntervError as error:
            raise compat.bad_request(told(error)) from error
    return resolve_for(owner, config, extra)


def _said_over_http(request: Any, config: compat.VllmConfig) -> Mapping[str, Any]:
    xargs: Mapping[str, Any] = getattr(request, "vllm_xargs", None) or {}
    exchange = EXCHANGE.get()
    if exchange is not None and exchange.looked_at:
        return {**exchange.asked, **xargs}
    if not isinstance(config.additional_config, InterventionConfig):
        return xargs
    unknown = getattr(request, "model_extra", None) or {}
    try:
        said = fields_in({**unknown, "vllm_xargs": xargs}, OVER_HTTP)
        if said and "vllm_xargs" in unknown:
            raise _no_own()  # nothing of it would reach the engine
    except IntervError as error:
        raise compat.bad_request(told(error)) from error
    return said


def _is_off(choice: Choice | None, extra: Mapping[str, Any]) -> bool:
    """Say whether a request asks for no edit and nothing else, and all that it starts get it."""
    exchange = EXCHANGE.get()
    plain = choice is not None and not choice.key and not choice.captures
    return plain and exchange is not None and extra.keys() & FIELDS == {ASKED}


def _no_beams() -> IntervError:
    return IntervError(
        "E507",
        "beam search does not carry a request's intervention",
        notes=["its beams would get the default program"],
        helps=["leave 'use_beam_search' or 'intervention' out of the request"],
    )
