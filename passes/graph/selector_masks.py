"""Selectors over a flat batch of tokens: the tensor form of `interv.document.selectors.holds`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from interv.document.markers import following
from interv.document.spec import (
    After,
    And,
    At,
    Before,
    Between,
    Everything,
    InPhase,
    Not,
    Or,
    Positions,
    Selector,
    Slice,
    Stride,
    Token,
)
from interv.passes.graph.along import Along, Walk
from interv.passes.graph.position_tables import listed


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """What a selector may ask of the `T` tokens of a batch; each `[T]` int64."""

    position: Tensor  # absolute, from 0
    prompt_length: Tensor  # of the original prompt of the token's request
    token_id: Tensor
    along: Along | None = None  # what came before, for selectors that follow it


def tokens_of_request(
    selectors: Iterable[Selector], ids: Sequence[int], prompt_length: int
) -> Tokens:
    """Return all tokens of one request, `ids`, for selectors to look at."""
    followed = [leaf for one in selectors for leaf in following(one)]
    position = torch.arange(len(ids))
    length = torch.full_like(position, prompt_length)
    fed = torch.tensor(ids, dtype=torch.int64)
    return Tokens(position, length, fed, Walk(followed).along(ids, 0) if followed else None)


def select(tokens: Tokens, selector: Selector) -> Tensor:
    """Return which tokens a selector holds for, bool `[T]`."""
    match selector:
        case Everything():
            return torch.ones_like(tokens.position, dtype=torch.bool)
        case Token():
            device = tokens.token_id.device
            wanted = torch.tensor(list(selector.ids), dtype=torch.int64, device=device)
            return torch.isin(tokens.token_id, wanted)
        case After() | Before() | Between():
            assert tokens.along is not None, "whoever selects by the past has to know it"
            return tokens.along.holds(selector)
        case Not():
            return ~select(tokens, selector.term)
        case And():
            return reduce(torch.logical_and, [select(tokens, term) for term in selector.terms])
        case Or():
            return reduce(torch.logical_or, [select(tokens, term) for term in selector.terms])
        case InPhase() | At() | Slice() | Stride():
            return _positions(tokens, selector)
        case Positions():
            return listed(tokens.position, tokens.prompt_length, selector)


def generated_index(tokens: Tokens) -> Tensor:
    """Return how many generated tokens come before each, `[T]`; 0 for the tokens of a prompt."""
    return (tokens.position - tokens.prompt_length).clamp(min=0)


def _positions(tokens: Tokens, selector: InPhase | At | Slice | Stride) -> Tensor:
    in_prompt = tokens.position < tokens.prompt_length
    if selector.phase == "prompt":
        return in_prompt & _within(tokens.position, tokens.prompt_length, selector)
    return ~in_prompt & _within(tokens.position - tokens.prompt_length, None, selector)


def _within(
    index: Tensor, length: Tensor | None, selector: InPhase | At | Slice | Stride
) -> Tensor:
    """Compare indices into a phase; `length` is None where the phase's end is not known yet."""
    everywhere = torch.ones_like(index, dtype=torch.bool)
    match selector:
        case At():
            return index == _bound(selector.index, length)
        case Slice() | Stride():
            after = (
                everywhere if selector.start is None else index >= _bound(selector.start, length)
            )
            before = everywhere if selector.stop is None else index < _bound(selector.stop, length)
            if isinstance(selector, Slice):
                return after & before
            since = index - _bound(selector.start or 0, length)
            return after & before & (since % selector.step == 0)
        case _:
            return everywhere


def _bound(bound: int, length: Tensor | None) -> Tensor | int:
    if bound >= 0:
        return bound
    assert length is not None, "generated[-i] is refused before this point"
    return length + bound
