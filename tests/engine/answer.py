"""What an engine or the oracle answers to one prompt."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Answer:
    """Token ids, the log-probability of each, and those of the prompt's tokens after the first."""

    ids: list[int]
    logprobs: list[float]
    prompt_logprobs: list[float]

    def distance(self, other: Answer) -> float:
        """Return the largest difference between two answers' log-probabilities."""
        mine = self.logprobs + self.prompt_logprobs
        theirs = other.logprobs + other.prompt_logprobs
        return max(abs(a - b) for a, b in zip(mine, theirs, strict=True))
