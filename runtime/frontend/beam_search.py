"""Beam search: its beams get the default program where that means the same for them."""

from __future__ import annotations

from typing import Any

from interv.codegen.bundle import Bundle
from interv.document.spec import (
    After,
    And,
    Before,
    Between,
    Everything,
    Not,
    Or,
    Selector,
    Token,
)
from interv.errors import IntervError
from interv.runtime import compat
from interv.runtime.config import InterventionConfig
from interv.runtime.frontend.exchange import EXCHANGE


def beam_search(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """Refuse beams that the default program would edit wrongly; wraps `beam_search`.

    Each step of a beam is a request of its own, whose prompt is all that was generated before.
    """
    exchange = EXCHANGE.get()
    if exchange is not None and exchange.asked:
        return original(self, *args, **kwargs)  # for 'off', or it had been refused
    engine = getattr(self, "engine_client", None) or self.llm_engine
    carried = engine.vllm_config.additional_config
    if isinstance(carried, InterventionConfig) and follows_prompt(carried.bundle):
        error = IntervError(
            "E515",
            f"beam search cannot have the default program '{carried.bundle.default}'",
            notes=[
                "a step of a beam is fed as a prompt, so 'prompt' and 'generated' would be wrong,"
                " and rows would be captured again in each",
            ],
            helps=["ask for 'off' over HTTP, or have the default edit every token alike"],
        )
        raise compat.bad_request(str(error))
    return original(self, *args, **kwargs)


def follows_prompt(bundle: Bundle) -> bool:
    """Say whether what the default program does depends on where the prompt of a request ends."""
    if any(one.program == bundle.default for one in bundle.captures):
        return True
    columns = [
        column for table in bundle.sites for column in table.programs.get(bundle.default or "", ())
    ]
    return any(_in_phase(bundle.selectors[column.selector]) for column in columns)


def _in_phase(selector: Selector) -> bool:
    match selector:
        case Everything() | Token() | After() | Before() | Between():
            return False
        case Not(term=term):
            return _in_phase(term)
        case And(terms=terms) | Or(terms=terms):
            return any(map(_in_phase, terms))
    return True
