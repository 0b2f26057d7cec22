"""Captured rows of one request on a direction, token by token, with the text of each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from interv.captures.query import Captures
from interv.captures.visible import visible
from interv.captures.wanted import listed
from interv.document.wording import layer_text
from interv.errors import IntervError

if TYPE_CHECKING:
    from interv.vectors import Directions


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """One value a token: `value` and `position` [n], and `text` where a tokenizer was given."""

    title: str
    prompt_tokens: int
    position: npt.NDArray[np.int64]
    token_id: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    text: tuple[str, ...] | None

    def label(self, i: int) -> str:
        """Return what to call a token: its text, or else its id."""
        return self.text[i] if self.text is not None else f"#{self.token_id[i]}"


def project(captures: Captures, vectors: Directions, model: Path | None = None) -> Projection:
    """Project the rows of one place of one request: h·v/‖v‖ for each, in float64.

    `model` is a folder with a `tokenizer.json`, for the text of tokens. Raises E278 where the rows
    are of several places or requests, or the direction has another width or no such layer, and
    E533 for a tokenizer that cannot be read.
    """
    if len(captures.pieces) != 1:
        raise _several(captures)
    piece = captures.pieces[0]
    layer, width = piece.part.layer, piece.part.shape[1]
    if vectors.layers is not None and layer not in vectors.layers:
        message = f"'{vectors.path}' has no direction for layer {layer}"
        raise IntervError("E278", message, notes=(f"layers: {layer_text(vectors.layers)}",))
    if vectors.width != width:
        message = f"'{vectors.path}' is {vectors.width} wide, the captured rows are {width}"
        raise IntervError("E278", message)
    direction = vectors.at(layer).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        value = captures.rows.double().numpy() @ (direction / np.linalg.norm(direction))
    tokens = captures.token_id.numpy()
    position = captures.position.numpy()
    request = visible(piece.record.request)
    title = f"request {request}: {piece.part.name} on {vectors.path.name}"
    text = token_texts(model, tokens.tolist(), position.tolist()) if model is not None else None
    return Projection(title, piece.record.prompt_tokens, position, tokens, value, text)


def token_texts(model: Path, ids: Sequence[int], position: Sequence[int]) -> tuple[str, ...]:
    """Return the text that each token adds to the one before it; raises E533.

    A token that is only a part of a character, or unknown to the tokenizer, is shown by its id.
    """
    from tokenizers import Tokenizer

    file = model / "tokenizer.json" if model.is_dir() else model
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise IntervError("E533", f"'{file}' is not a tokenizer: {error}") from error

    def decode(*tokens: int) -> str:
        return str(tokenizer.decode(list(tokens), skip_special_tokens=False))

    texts = []
    for i, token in enumerate(ids):
        text = decode(token)
        # A leading space is only written behind another token.
        if i and position[i - 1] + 1 == position[i]:
            before = decode(ids[i - 1])
            pair = decode(ids[i - 1], token)
            text = pair.removeprefix(before) if pair.startswith(before) else text
        texts.append(text if text and "\ufffd" not in text else f"#{token}")
    return tuple(texts)


def _several(captures: Captures) -> IntervError:
    labels = [(one.record, one.part) for one in captures.pieces]
    facts = {
        "request": {record.request for record, _ in labels},
        "sample": {str(record.sample) for record, _ in labels},
        "statement": {record.statement for record, _ in labels},
        "place": {part.name for _, part in labels},
    }
    found = [f"{name}s: {listed(there)}" for name, there in facts.items()]
    message = "rows of several places or requests are not one line over a text"
    helps = ("choose one: --request, --sample, --site, --layer, --after",)
    return IntervError("E278", message, notes=found, helps=helps)
