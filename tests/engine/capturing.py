"""What is captured of requests, and what Transformers' own hidden states say it must be."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file

from tests.engine.answer import Ask
from tests.engine.models import HIDDEN_SIZE, LAYERS, VOCABULARY
from tests.engine.oracle import Oracle
from tests.engine.programs import Directions

# Every site at the first, a middle and the last block; `edited` is steered at one site that it
# also captures, before and after; `some` has two captures of different tokens at one place.
# The model's answers have some of these every few tokens.
OPENS, CLOSES = (", ".join(map(str, range(first, VOCABULARY, 9))) for first in (3, 8))
DOCUMENT = """interv 1
vector v = "v.safetensors"
sink rows = memory()
sink acts = filesystem("acts/")
program every {
  capture at pre_attn[0, 2, 3] to rows
  capture at post_attn[0, 2, 3] to rows
  capture at post_block[0, 2, 3] to rows
}
program last { capture at post_block[*] tokens prompt[-1] to rows }
program edited {
  steer v at post_block[1] scale 0.5 when prompt[2:] or generated
  capture at post_block[1] tokens prompt[1:4] or generated to rows
  capture at post_block[1] after to rows
  capture at pre_attn[2] to rows
}
program some {
  capture at post_attn[1] tokens generated[1:3] to rows
  capture at post_attn[1] tokens token(70, 71, 72) or prompt[0] to rows
  capture at post_attn[1] tokens between token(OPENS) and token(CLOSES) to rows
}
program plain { steer v at post_block[0] scale 0.25 }
program shared { capture at post_block[0] tokens prompt[-1] to rows sample 0.5 }
program kept { capture at post_block[0] to acts keep marked }
program stored { capture at post_block[-1] tokens prompt to acts }
default every
""".replace("OPENS", OPENS).replace("CLOSES", CLOSES)
PROGRAMS = ("every", "last", "edited", "some", "plain", "off", "last + some", "edited + last")
SITES = ("pre_attn", "post_attn", "post_block")

# (site, layer, after, capture) -> positions and rows
Records = dict[tuple[str, int, bool, int], tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]
# position, length of the prompt, token id, the ids before it
Selects = Callable[[int, int, int, list[int]], bool]


@dataclass(frozen=True)
class Take:
    """One capture statement, as the test means it."""

    places: tuple[tuple[str, int], ...]
    selects: Selects = lambda position, prompt, token, earlier: True
    after: bool = False


def _opened(earlier: list[int]) -> bool:
    return next((one % 9 == 3 for one in reversed(earlier) if one % 9 in (3, 8)), False)


_ENDS = (0, 2, 3)
_TAKES = {
    "every": [Take(tuple((site, layer) for layer in _ENDS)) for site in SITES],
    "last": [
        Take(tuple(("post_block", n) for n in range(LAYERS)), lambda i, p, t, e: i == p - 1),
    ],
    "edited": [
        Take((("post_block", 1),), lambda i, p, t, e: (1 <= i < 4 and i < p) or i >= p),
        Take((("post_block", 1),), after=True),
        Take((("pre_attn", 2),)),
    ],
    "some": [
        Take((("post_attn", 1),), lambda i, p, t, e: 1 <= i - p < 3),
        Take((("post_attn", 1),), lambda i, p, t, e: t in (70, 71, 72) or i == 0),
        Take((("post_attn", 1),), lambda i, p, t, e: t % 9 != 8 and _opened(e)),
    ],
}
_ORDER = ("every", "last", "edited", "some")


def takes(program: str | None) -> list[Take]:
    """Return the captures of a request's expression, in the order in which they are declared."""
    asked = (program or "every").split(" + ")
    return [take for name in _ORDER if name in asked for take in _TAKES[name]]


def write_document(folder: Path) -> Path:
    """Write the document and its vector."""
    Directions.random(HIDDEN_SIZE, 5.0).save(folder)
    path = folder / "capturing.interv"
    path.write_text(DOCUMENT)
    return path


def mixture(count: int, tokens: int = 6, longest: int = 40, seed: int = 3) -> list[Ask]:
    """Return requests of different prompts, lengths and programs."""
    rng = random.Random(seed)
    return [
        Ask(
            [3 + int((VOCABULARY - 3) * rng.random() ** 2) for _ in range(rng.randint(1, longest))],
            PROGRAMS[i % len(PROGRAMS)],
            rng.randint(1, tokens),
        )
        for i in range(count)
    ]


@dataclass
class Expected:
    """The oracle: a forward hook at every site, and the one edit of the programs."""

    model: Path
    folder: Path
    _oracle: Oracle | None = field(default=None, repr=False)

    def rows(self, ask: Ask, ids: list[int]) -> Records:
        """Return what must have been captured of a request that was answered with `ids`."""
        fed = (ask.prompt + ids)[:-1]
        streams = self._streams(ask, ids)
        found: Records = {}
        for number, take in enumerate(takes(ask.program)):
            chosen = [i for i, t in enumerate(fed) if take.selects(i, len(ask.prompt), t, fed[:i])]
            for site, layer in take.places:
                if chosen:
                    rows = streams[site, layer][take.after][chosen]
                    found[site, layer, take.after, number] = np.array(chosen), rows
        return found

    def _streams(
        self, ask: Ask, ids: list[int]
    ) -> dict[tuple[str, int], tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """Return the stream before and after the edits of each site, `[T, H]` both."""
        self._oracle = self._oracle or Oracle(self.model)
        v = load_file(self.folder / "v.safetensors")["v"]
        asked, prompt = (ask.program or "every").split(" + "), len(ask.prompt)
        seen: dict[tuple[str, int], tuple[npt.NDArray[Any], npt.NDArray[Any]]] = {}

        def at(place: tuple[str, int]) -> Callable[[torch.Tensor], torch.Tensor]:
            def edit(h: torch.Tensor) -> torch.Tensor:
                new = h.clone()
                if "edited" in asked and place == ("post_block", 1):
                    new[:, min(2, prompt) :] += 0.5 * v
                if "plain" in asked and place == ("post_block", 0):
                    new += 0.25 * v
                seen[place] = (h[0].numpy().copy(), new[0].numpy().copy())
                return new

            return edit

        places = [(site, layer) for site in SITES for layer in range(LAYERS)]
        self._oracle.follow(ask.prompt, ids, {place: at(place) for place in places})
        return seen


def compare(got: Records, expected: Records, what: object) -> float:
    """Check labels, and return the largest difference of a row's element."""
    assert got.keys() == expected.keys(), what
    worst = 0.0
    for key, (positions, rows) in expected.items():
        found, mine = got[key]
        assert found.tolist() == positions.tolist(), (what, key)
        assert mine.shape == rows.shape, (what, key)
        worst = max(worst, float(np.abs(mine - rows).max(initial=0.0)))
    return worst
