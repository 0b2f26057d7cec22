"""What a client sends to choose its program, and where it finds what was edited.

client.chat.completions.create(model=…, messages=…, **interv.openai_args("calm*1.5 + formal"))
llm.generate(prompts, SamplingParams(max_tokens=64, **interv.sampling_args("off")))
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from interv.document.spec import Spec
from interv.document.wording import on_off

# Where an output says why its request failed.
FAILURE = "interv_failure"
# A request expression, a whole document as text, or a document as data.
Asked: TypeAlias = str | Spec
# `interv` may also be, or begin, the name of a program: a document goes on with its version.
_DOCUMENT = re.compile(r"\s*\{|(?:\s|#[^\n]*\n)*interv\s+[^\s*+]")


def sampling_args(
    asked: Asked | None = None, *, report: bool = False, tag: str = "", kv: bool | None = None
) -> dict[str, Any]:
    """Return the keyword arguments of `vllm.SamplingParams` that choose what a request gets.

    `asked` is an expression such as `calm*1.5 + formal`, `off`, or an inline program where the
    engine takes them; without it the request gets the default program. With `report` the output
    says which rows were edited (`edited_rows`), `tag` is a word that captured rows are labelled
    with, and `kv` says whether the KV cache is compressed, whatever programs and policy say.
    Raises IntervError E1xx for an expression that cannot be read; whether its names are known
    only the engine can say.

    >>> sampling_args("calm*1.5")
    {'extra_args': {'intervention': 'calm*1.5'}}
    """
    return {"extra_args": _fields(asked, report, tag, kv)}


def openai_args(
    asked: Asked | None = None, *, report: bool = False, tag: str = "", kv: bool | None = None
) -> dict[str, Any]:
    """Return the same for the `create` calls of the OpenAI SDK.

    Other fields of `extra_body` have to be merged by hand: it is one argument.

    >>> openai_args("off", report=True)["extra_body"]
    {'vllm_xargs': {'intervention': 'off', 'intervention_report': 'true'}}
    """
    fields = _fields(asked, report, tag, kv)
    if report:
        fields["intervention_report"] = "true"
    return {"extra_body": {"vllm_xargs": fields}}


def _fields(asked: Asked | None, report: bool, tag: str, kv: bool | None) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if asked is not None:
        fields["intervention"] = _text(asked)
    fields |= {"intervention_report": True} if report else {}
    fields |= {"intervention_tag": tag} if tag else {}
    return fields if kv is None else fields | {"intervention_kv": on_off(kv)}


def _text(asked: Asked) -> str:
    if isinstance(asked, Spec):
        return _document(asked)
    if not is_document(asked):
        from interv.dsl.expression import parse_expression

        parse_expression(asked)
    return asked


def _document(spec: Spec) -> str:
    from interv.load import dump_json

    return dump_json(spec)


def is_document(text: str) -> bool:
    """Say whether a request's text is a whole document, as text or JSON, not an expression."""
    return _DOCUMENT.match(text) is not None


# Rows edited, by program and site.
Rows: TypeAlias = dict[str, dict[str, int]]


def edited_rows(output: Any) -> Rows | list[Rows | None] | None:
    """Return how many rows of its own a finished request had edited, by program and site.

    `output` is vLLM's `RequestOutput`, an answer of the OpenAI SDK or the last chunk of a streamed
    one, or the JSON of either. For several choices (`n`, or several prompts) it is a list in the
    order of their index, with None for one that failed. None where the request asked for no report.
    """
    rows: Rows | list[Rows | None] | None = carried(output).get("interv")
    return rows


def failure(output: Any) -> str | None:
    """Return why the engine ended a request whose residual stream became infinite or NaN.

    `output` is vLLM's `RequestOutput`, whose samples say `finish_reason` "error" for it. Over HTTP
    there is no such output: the answer is this text with status 400. None for every other request.
    """
    said: str | None = carried(output).get(FAILURE)
    return said


def carried(output: Any) -> Mapping[str, Any]:
    """Return what interv says in an answer, nothing where it says nothing."""
    for holder in (output, _get(output, "response")):  # an event of /v1/responses has one
        if found := _get(holder, "kv_transfer_params"):
            return dict(found)
    return {}


def _get(output: Any, name: str) -> Any:
    if isinstance(output, Mapping):
        return output.get(name)
    more = getattr(output, "model_extra", None) or {}
    return getattr(output, name, None) or more.get(name)
