"""What a client sends to choose its program, and where it finds what was edited.

client.chat.completions.create(model=…, messages=…, **interv.openai_args("calm*1.5 + formal"))
llm.generate(prompts, SamplingParams(max_tokens=64, **interv.sampling_args("off")))
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from interv.spec import Spec

# A request expression, a whole document as text, or a document as data.
Asked: TypeAlias = str | Spec
# `interv` may also be, or begin, the name of a program: a document goes on with its version.
_DOCUMENT = re.compile(r"\s*\{|(?:\s|#[^\n]*\n)*interv\s+[^\s*+]")


def sampling_args(asked: Asked, *, report: bool = False, tag: str = "") -> dict[str, Any]:
    """Return the keyword arguments of `vllm.SamplingParams` that choose what a request gets.

    `asked` is an expression such as `calm*1.5 + formal`, `off`, or an inline program where the
    engine takes them; with `report` the output says which rows were edited (`edited_rows`), and
    `tag` is a word that captured rows are labelled with.
    Raises IntervError E1xx for an expression that cannot be read; whether its names are known
    only the engine can say.

    >>> sampling_args("calm*1.5")
    {'extra_args': {'intervention': 'calm*1.5'}}
    """
    return {"extra_args": _fields(asked, report, tag)}


def openai_args(asked: Asked, *, report: bool = False, tag: str = "") -> dict[str, Any]:
    """Return the same for the `create` calls of the OpenAI SDK.

    Other fields of `extra_body` have to be merged by hand: it is one argument.

    >>> openai_args("off", report=True)["extra_body"]
    {'vllm_xargs': {'intervention': 'off', 'intervention_report': 'true'}}
    """
    fields = _fields(asked, report, tag)
    if report:
        fields["intervention_report"] = "true"
    return {"extra_body": {"vllm_xargs": fields}}


def _fields(asked: Asked, report: bool, tag: str) -> dict[str, Any]:
    text = _document(asked) if isinstance(asked, Spec) else asked
    if isinstance(asked, str) and not is_document(asked):
        from interv.dsl.expression import parse_expression

        parse_expression(asked)
    fields: dict[str, Any] = {"intervention": text}
    fields |= {"intervention_report": True} if report else {}
    return fields | ({"intervention_tag": tag} if tag else {})


def _document(spec: Spec) -> str:
    from interv.load import dump_json

    return dump_json(spec)


def is_document(text: str) -> bool:
    """Say whether a request's text is a whole document, as text or JSON, not an expression."""
    return _DOCUMENT.match(text) is not None


def edited_rows(output: Any) -> dict[str, dict[str, int]] | None:
    """Return how many rows of its own a finished request had edited, by program and site.

    `output` is vLLM's `RequestOutput`, an answer of the OpenAI SDK, or the JSON of one. None
    where the request asked for no report.
    """
    field = "kv_transfer_params"
    if isinstance(output, Mapping):
        carried = output.get(field)
    else:
        carried = getattr(output, field, None) or (getattr(output, "model_extra", None) or {}).get(
            field
        )
    rows: dict[str, dict[str, int]] | None = (carried or {}).get("interv")
    return rows
