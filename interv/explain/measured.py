"""What was measured, as the plan shows it: rows and bytes of each table, times of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from interv.compile import Compilation
from interv.measuring.measurement import Measurement, Run
from interv.passes.graph.canonical import update
from interv.passes.graph.ops import OPS
from interv.passes.placing.plan import PlacedSite


@dataclass(frozen=True, slots=True)
class RowsMeasured:
    """What one program really edited at the sites of one table, in one round of the prompts."""

    program: str
    rows: int  # summed over the sites
    least: int  # of a site
    most: int
    fed: int  # rows that passed each site
    stream_bytes: int  # read and written for the edited rows


@dataclass(frozen=True, slots=True)
class StepMeasured:
    """The time of a decode step of one expression, all requests in it."""

    asked: str
    low_us: float  # first quartile
    median_us: float
    high_us: float  # third quartile
    ratio: float  # to the unedited step; medians of paired rounds
    rows: int
    stream_bytes: int


@dataclass(frozen=True, slots=True)
class MeasuredReport:
    """One run of all programs: on what, how much, and how long a step took."""

    machine: str
    engine: str
    dtype: str
    requests: int
    prompt_tokens: int
    new_tokens: int
    rounds: int
    fed: int  # tokens of a round
    steps: tuple[StepMeasured, ...]  # unedited first


def measured_report(compilation: Compilation, found: Measurement) -> MeasuredReport:
    """Say where the programs of a compilation were measured, and what a step took."""
    return MeasuredReport(
        machine=found.machine,
        engine=found.engine,
        dtype=found.dtype,
        requests=found.requests,
        prompt_tokens=found.prompt_tokens,
        new_tokens=found.new_tokens,
        rounds=found.rounds,
        fed=found.fed_tokens,
        steps=tuple(_step(run, compilation, found) for run in found.runs),
    )


def rows_measured(
    sites: Sequence[PlacedSite], hidden_size: int, found: Measurement
) -> tuple[RowsMeasured, ...]:
    """Say what each program that has columns in a table edited at its sites."""
    runs = {run.asked: run for run in found.runs}
    measured = []
    for program in sites[0].programs:
        counts = runs[program].rows.get(program, {})
        at = [counts.get(str(placed.site), 0) for placed in sites]
        moved = _bytes(sum(at), hidden_size, sites[0].width, found)
        measured.append(
            RowsMeasured(program, sum(at), min(at), max(at), found.fed_tokens, moved),
        )
    return tuple(measured)


def _step(run: Run, compilation: Compilation, found: Measurement) -> StepMeasured:
    low, median, high = (round(one, 1) for one in run.quartiles_us())
    counts: Mapping[str, int] = run.rows.get(run.asked, {})
    rows = sum(counts.values())
    moved = _bytes(rows, compilation.model.hidden_size, 1, found)
    return StepMeasured(run.asked, low, median, high, round(found.ratio(run), 4), rows, moved)


def _bytes(rows: int, hidden_size: int, columns: int, found: Measurement) -> int:
    """Return what edited rows moved: the elements that the model of cost says, of measured size."""
    elements = OPS[update.__name__].elements(hidden_size, columns)
    return rows * elements * found.element_bytes
