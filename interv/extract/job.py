"""What is asked of the engine that activations come from, and how its errors come back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from interv.errors import IntervError, each, raise_all
from interv.extract.pairs import Pair
from interv.extract.tokens import Wording

MEAN = "mean"
ACTIVATIONS = "activations.npy"
# The line of the child's steps that says how many texts are done.
DONE = "done "


@dataclass(frozen=True, slots=True)
class Job:
    """Which activations are wanted: at one site of these layers, at one position of each text.

    `position` counts from the end of the prompt, from -1, or is "mean": over the text's tokens.
    `folder` is where the activations are left, float32 [2, N, L, H], positives first.
    """

    model: str
    pairs: tuple[Pair, ...]
    site: str
    layers: tuple[int, ...]
    position: int | str
    wording: Wording
    dtype: str
    folder: str

    def dump(self) -> str:
        """Return the job as JSON."""
        return json.dumps(asdict(self))


def load_job(text: str) -> Job:
    """Return the job that `Job.dump` wrote."""
    data: dict[str, Any] = json.loads(text)
    pairs = tuple(Pair(**one) for one in data["pairs"])
    wording = Wording(**data["wording"])
    layers = tuple(data["layers"])
    return Job(**{**data, "pairs": pairs, "wording": wording, "layers": layers})


def dump_error(error: IntervError) -> dict[str, Any]:
    """Return an error as data; spans are left out."""
    parts = [[one.code, one.message, one.notes, one.helps] for one in each(error)]
    return {"refused": parts}


def raise_refused(found: Mapping[str, Sequence[Any]]) -> None:
    """Raise the error that `dump_error` wrote, or nothing where there is none."""
    raise_all(
        [
            IntervError(code, message, notes=notes, helps=helps)
            for code, message, notes, helps in found.get("refused", ())
        ]
    )
