"""Two runs that must answer alike, with edits as well as they do on stock vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.engine.answer import Answer


@dataclass
class Pair:
    """The answers to the same requests under two ways of running them."""

    one: Sequence[Answer]
    other: Sequence[Answer]

    def distance(self) -> float:
        """Return the largest difference of any log-probability; infinite where tokens differ."""
        each = zip(self.one, self.other, strict=True)
        return max(a.distance(b) if a.ids == b.ids else float("inf") for a, b in each)

    def widest(self) -> float:
        """Return the same over the most likely tokens at each place, not the chosen ones alone."""
        each = zip(self.one, self.other, strict=True)
        near = [abs(p - q) for a, b in each for p, q in zip(a.top, b.top, strict=True)]
        return max([self.distance(), *near])


def assert_as_stable_as_stock(stock: Pair, edited: Pair, what: str) -> None:
    """Assert that edits make no difference between two runs that stock vLLM does not make.

    Where stock is equal to the last bit, the edited answers must be; otherwise the largest
    difference of the edited log-probabilities is bounded by that of the stock ones, and tokens
    must be equal in both. Stock's difference is taken over the most likely tokens at each place:
    that of the few chosen ones may be nothing by luck of rounding.
    """
    bound, found = stock.widest(), edited.distance()
    shown = f"{what}: edited answers differ by {found}, stock ones by {bound}"
    assert bound < float("inf"), shown
    assert found <= bound, shown
    if bound == 0:
        assert list(edited.one) == list(edited.other), shown
