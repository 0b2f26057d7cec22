"""Requests on their way into the engine: resolved or refused before they are queued."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interv.errors import IntervError, each
from interv.runtime import compat
from interv.runtime.admission import Admission, flag
from interv.runtime.choice import ASKED, REPORT, RESOLVED, Choice
from interv.runtime.config import InterventionConfig
from interv.runtime.embeds import refuse_unknown_tokens
from interv.runtime.kv.asked import ASKED_KV, asked_kv
from interv.wording import on_off

# How many errors of one request its client reads.
_MOST_ERRORS = 8


def process_inputs(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """Resolve a request before it is queued; wraps `InputProcessor.process_inputs`."""
    params = kwargs.get("params", args[2] if len(args) > 2 else None)
    name = kwargs.get("request_id", args[0] if args else "")
    extra = getattr(params, "extra_args", None) or {}
    choice = resolve_for(self, self.vllm_config, extra, str(name), bool(kwargs.get("resumable")))
    if choice is not None and choice.key and kwargs.get("resumable"):
        error = IntervError(
            "E508",
            "a prompt that is sent in pieces has no interventions",
            notes=["selectors count from the end of the prompt, which is not known yet"],
            helps=["send the whole prompt at once"],
        )
        raise compat.bad_request(str(error))
    if choice is not None and choice.captures and not hasattr(params, "extra_args"):
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
        carried = config.additional_config
        if isinstance(carried, InterventionConfig):
            if not hasattr(owner, "interv"):
                owner.interv = Admission(carried, config)
            choice: Choice = owner.interv.resolve(extra, request, resumable)
            return choice
        asked_kv(extra, None)
        if extra.get(ASKED) is not None or flag(extra.get(REPORT)):
            raise _not_armed(extra)
    except IntervError as error:
        raise compat.bad_request(_told(error)) from error
    return None


def _not_generating() -> IntervError:
    return IntervError(
        "E561",
        "a request that generates nothing is not captured",
        notes=["its program captures, and its answer would say nothing of it"],
        helps=["ask for 'off', or for a program that only edits"],
    )


def _told(error: IntervError) -> str:
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

    A stream's status is sent before its request is queued, so it is looked at here already.
    """
    extra = getattr(request, "vllm_xargs", None) or {}
    client = getattr(self, "engine_client", None)
    if client is not None and (ASKED in extra or REPORT in extra or ASKED_KV in extra):
        resolve_for(client.input_processor, client.vllm_config, extra)
        if getattr(request, "use_beam_search", False):
            raise compat.bad_request(str(_no_beams()))
    return await original(self, request)


def _no_beams() -> IntervError:
    return IntervError(
        "E507",
        "beam search does not carry a request's intervention",
        notes=["its beams would get the default program"],
        helps=["leave 'use_beam_search' or 'intervention' out of the request"],
    )
