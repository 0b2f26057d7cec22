"""Keep some pairs back, to tell how well a direction does on texts that it was not made from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from interv.errors import IntervError, raise_all
from interv.extract.pairs import Pair

# A direction needs an average, and a separation needs a spread.
FEWEST = 2


@dataclass(frozen=True, slots=True)
class Split:
    """Places of pairs, ascending: those that make the directions, and those that judge them."""

    train: tuple[int, ...]
    held: tuple[int, ...]


def split_pairs(pairs: Sequence[Pair], holdout: float, seed: int) -> Split:
    """Hold back the share `holdout` of the pairs, chosen by `seed`; none of them for 0.

    Raises E283 for too few pairs, E284 where a text stands on several lines: held back once and
    used once, it would be judged by itself.
    """
    # By hashes, whose order no version of a library changes.
    order = sorted(range(len(pairs)), key=lambda i: hashlib.sha256(f"{seed} {i}".encode()).digest())
    count = max(FEWEST, round(holdout * len(pairs))) if holdout > 0 else 0
    held, train = sorted(order[:count]), sorted(order[count:])
    if len(train) < FEWEST:
        raise _too_few(len(pairs), holdout)
    if held:
        raise_all(_repeated(pairs))
    return Split(tuple(train), tuple(held))


def _too_few(count: int, holdout: float) -> IntervError:
    wanted = FEWEST * (2 if holdout > 0 else 1)
    return IntervError(
        "E283",
        f"{count} pairs are too few: {FEWEST} must be left to make the directions",
        notes=(f"at least {wanted} are needed with --holdout {holdout:g}; some 50 do well",),
    )


def _repeated(pairs: Sequence[Pair]) -> list[IntervError]:
    first: dict[tuple[str | None, str], tuple[str, str]] = {}
    errors = []
    for pair in pairs:
        for side in ("positive", "negative"):
            key = (pair.prompt, getattr(pair, side))
            if key not in first:
                first[key] = (pair.where, side)
                continue
            where, other = first[key]
            errors.append(
                IntervError(
                    "E284",
                    f"the {side} of {pair.where} is the {other} of {where} again",
                    notes=("a text that is both used and held back would be judged by itself",),
                    helps=("leave one of them out, or hold nothing back (--holdout 0)",),
                )
            )
    return errors
