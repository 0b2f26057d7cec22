"""What is asked of an engine, and what an engine or the oracle answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """Token ids, the log-probability of each, and those of the prompt's tokens after the first."""

    ids: list[int]
    logprobs: list[float]
    prompt_logprobs: list[float]
    # What the engine says it edited: rows by program and site, where the request asked for it.
    edited: dict[str, dict[str, int]] | None = None
    # How many tokens of the prompt were found in the prefix cache.
    cached: int | None = field(default=None, compare=False)
    # The largest log-probabilities at each token, in falling order, where they were asked for.
    top: list[float] = field(default_factory=list, compare=False)

    # Why the engine ended the request, where it did, and what it says of the sample's end.
    failed: str | None = field(default=None, compare=False)
    ended: str | None = field(default=None, compare=False)

    def distance(self, other: Answer) -> float:
        """Return the largest difference between two answers' log-probabilities."""
        mine = self.logprobs + self.prompt_logprobs
        theirs = other.logprobs + other.prompt_logprobs
        return max((abs(a - b) for a, b in zip(mine, theirs, strict=True)), default=0.0)


@dataclass(frozen=True)
class Ask:
    """One request: greedy unless `sampling` says otherwise, and every token is generated.

    `arrives` and `leaves` count the engine's steps: the request is added before the step of that
    number, and aborted before the step of that number where it has not finished by then.
    """

    prompt: list[int]
    program: str | None = None  # the request's expression; None says nothing
    tokens: int = 8
    arrives: int = 0
    leaves: int | None = None
    report: bool = False
    sampling: dict[str, Any] = field(default_factory=dict)
    kv: str | None = None  # what the request says of its cache; None says nothing
    salt: str | None = None  # requests of another one share no cached prefix
    lora: str | None = None  # the folder of an adapter
    priority: int = 0  # the lowest runs first, where an engine schedules so
    embeds: Any = field(default=None, compare=False)  # [T, H], in place of the prompt's ids


@dataclass
class Seen:
    """What the scheduler did while requests ran, as seen from outside."""

    steps: int = 0
    peak_running: int = 0  # most requests in one forward pass
    chunks: int = 0  # most forward passes that one request's prompt took
    preempted: int = 0
    evicted: int = 0  # blocks of the prefix cache that were taken for something else
    recomputed: int = 0  # tokens that were generated before a preemption and fed again after it
    drafted: int = 0
    accepted: int = 0
