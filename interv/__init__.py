"""Declarative interventions on a language model's residual stream, compiled into vLLM.

Everything is imported when it is first used, so `import interv` loads neither torch nor vLLM.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from interv.builder import (
        after,
        all_of,
        any_of,
        before,
        between,
        everything,
        gate,
        generated,
        layers,
        new_document,
        post_attn,
        post_block,
        pre_attn,
        prompt,
        token,
    )
    from interv.captures import Captures, load_captures
    from interv.document.as_python import to_python
    from interv.document.document import Document
    from interv.document.spec import Spec
    from interv.dsl.expression import parse_expression
    from interv.dsl.formatter import format_text
    from interv.dsl.printer import print_spec as to_text
    from interv.errors import IntervError
    from interv.load import dump_json, dump_yaml, load_data, load_document, load_text
    from interv.request.arguments import edited_rows, failure, openai_args, sampling_args
    from interv.request.captured_rows import capture_results, captured, mark
    from interv.runtime.config import engine_args

_HOMES = {
    "to_python": "interv.document.as_python",
    **dict.fromkeys(("capture_results", "captured", "mark"), "interv.request.captured_rows"),
    **dict.fromkeys(("Captures", "load_captures"), "interv.captures"),
    "Document": "interv.document.document",
    "parse_expression": "interv.dsl.expression",
    "format_text": "interv.dsl.formatter",
    "IntervError": "interv.errors",
    "engine_args": "interv.runtime.config",
    "Spec": "interv.document.spec",
    **dict.fromkeys(("all_of", "any_of", "everything", "gate", "generated"), "interv.builder"),
    **dict.fromkeys(("layers", "new_document", "post_attn", "post_block"), "interv.builder"),
    **dict.fromkeys(("pre_attn", "prompt", "token"), "interv.builder"),
    **dict.fromkeys(("after", "before", "between"), "interv.builder"),
    **dict.fromkeys(("dump_json", "dump_yaml", "load_data"), "interv.load"),
    **dict.fromkeys(("load_document", "load_text"), "interv.load"),
    **dict.fromkeys(
        ("edited_rows", "failure", "openai_args", "sampling_args"), "interv.request.arguments"
    ),
}

__all__ = [  # noqa: RUF022  (in the order in which a reader meets them)
    "load_document",
    "load_text",
    "load_data",
    "dump_json",
    "dump_yaml",
    "format_text",
    "to_text",
    "to_python",
    "parse_expression",
    "new_document",
    "pre_attn",
    "post_attn",
    "post_block",
    "layers",
    "everything",
    "prompt",
    "generated",
    "token",
    "after",
    "before",
    "between",
    "all_of",
    "any_of",
    "gate",
    "engine_args",
    "sampling_args",
    "openai_args",
    "edited_rows",
    "failure",
    "captured",
    "capture_results",
    "mark",
    "load_captures",
    "Captures",
    "Document",
    "IntervError",
    "Spec",
]


def __getattr__(name: str) -> object:
    """Import a public name from its home on first use."""
    if name == "to_text":
        return import_module("interv.dsl.printer").print_spec
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'interv' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
