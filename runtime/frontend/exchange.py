"""One request over HTTP and its answer: what it asks for, and what its engine requests tell.

A route of vLLM's server turns a body into one or more requests to the engine, and what those tell
into an answer; not every route hands through what interv reads and writes. So both travel beside
it, in a variable of the task that answers and of all tasks that it starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

# What vLLM hands through from the scheduler to an answer, and what of it is interv's.
CARRIED = "kv_transfer_params"
ROWS, CAPTURES = "interv", "interv_captures"
_LAST_NUMBER = re.compile(r"(\d+)$")


@dataclass(slots=True, eq=False)
class Told:
    """What the samples of one prompt tell when they end, by sample; None for one that fails."""

    request: str
    samples: list[Mapping[str, Any] | None]
    open: int = -1

    def __post_init__(self) -> None:
        self.open = len(self.samples)

    def note(self, sample: int, told: Mapping[str, Any] | None) -> None:
        """Note that a sample has ended."""
        self.samples[sample] = told
        self.open -= 1


def together(told: Sequence[Told]) -> dict[str, Any]:
    """Return what one or more prompts tell, as it stands in an answer.

    Of one sample of one prompt it is what that tells. Of more it is a list for each field, with an
    entry for each choice of the answer; an entry of captured rows then says which `sample` it is.
    """
    samples = [(number, one) for each in told for number, one in enumerate(each.samples)]
    if len(samples) == 1:
        return ours(samples[0][1])
    whole: dict[str, Any] = {}
    for name in (ROWS, CAPTURES):
        found = [(number, (one or {}).get(name)) for number, one in samples]
        if any(one is not None for _, one in found):
            whole[name] = [
                {**one, "sample": number} if name == CAPTURES and one is not None else one
                for number, one in found
            ]
    return whole


def ours(told: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what is interv's of what the scheduler tells."""
    return {name: one for name, one in (told or {}).items() if name in (ROWS, CAPTURES)}


@dataclass(slots=True, eq=False)
class Exchange:
    """What one HTTP request asks for in interv's fields, and what is told for its answer."""

    asked: Mapping[str, Any] = field(default_factory=dict)
    looked_at: bool = False  # whether its body was, and not only what vLLM made of it
    prompts: list[Told] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether all that has to be told is known."""
        return all(one.open <= 0 for one in self.prompts)

    def told(self) -> dict[str, Any]:
        """Return what the answer has to say, nothing where nothing is told."""
        # Several prompts are numbered by vLLM, in the order of the answer's choices.
        return together(sorted(self.prompts, key=_number))


def _number(told: Told) -> int:
    found = _LAST_NUMBER.search(told.request)
    return int(found[1][-18:]) if found else 0


EXCHANGE: ContextVar[Exchange | None] = ContextVar("interv_exchange", default=None)
