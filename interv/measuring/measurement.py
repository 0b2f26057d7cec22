"""What a run of programs on a real model measured: plain data between the run and the explain."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

UNEDITED = "off"  # the request expression of the run that the others are compared with


@dataclass(frozen=True, slots=True)
class Run:
    """What the requests of one expression came to, over all rounds.

    `rows` counts edited rows of one round by program and site; `step_us` are the times of its
    decode steps, a list a round.
    """

    asked: str
    rows: Mapping[str, Mapping[str, int]]
    step_us: tuple[tuple[float, ...], ...]

    def quartiles_us(self) -> tuple[float, float, float]:
        """Return first quartile, median and third quartile of all its steps."""
        every = sorted(one for steps in self.step_us for one in steps)
        low, median, high = statistics.quantiles(every, n=4, method="inclusive")
        return low, median, high


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was run where; the first run is the unedited one."""

    machine: str
    engine: str  # vLLM's version
    dtype: str  # of the stream
    element_bytes: int
    requests: int  # R, all in one batch
    prompt_tokens: int  # of all requests
    new_tokens: int  # of each request
    runs: tuple[Run, ...]

    @property
    def fed_tokens(self) -> int:
        """Return the rows that one round feeds at every site: the last token is only sampled."""
        return self.prompt_tokens + self.requests * (self.new_tokens - 1)

    @property
    def rounds(self) -> int:
        """Return how often each expression ran."""
        return len(self.runs[0].step_us)

    def ratio(self, run: Run) -> float:
        """Return a run's step time over the unedited one: the median over rounds of medians.

        The runs of one round follow each other, so a slow minute of the machine is in both.
        """
        pairs = zip(run.step_us, self.runs[0].step_us, strict=True)
        return statistics.median(
            statistics.median(edited) / statistics.median(plain) for edited, plain in pairs
        )

    def dump(self) -> str:
        """Return the measurement as JSON."""
        return json.dumps(asdict(self))


def load(data: Mapping[str, Any]) -> Measurement:
    """Return the measurement that `Measurement.dump` wrote."""
    runs = tuple(_run(one) for one in data["runs"])
    return Measurement(**{**data, "runs": runs})


def _run(data: Mapping[str, Any]) -> Run:
    steps: Sequence[Sequence[float]] = data["step_us"]
    return Run(data["asked"], data["rows"], tuple(tuple(one) for one in steps))
