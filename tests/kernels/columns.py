"""Random columns of every kind, as slots hold them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from interv.codegen.bundle import Column
from interv.passes.graph.column import Kind, Mode
from interv.passes.placing.plan import GATES

# A step's gates: places that columns read, places that gates are stored at, one of nobody.
READ_PLACES, STORE_PLACES, PLACES = (0, 1), (2, 3), 5
MOST_JOINT = 4
# Below this the weight of a gate is told from 1 in float32, for readings of up to 5.
SHARPNESS = 3.0
# One column each, and how likely each is.
_KINDS = {
    "steer": 0.1,
    "cap": 0.1,
    "at most": 0.05,
    "at least": 0.05,
    "ablate": 0.1,
    "concept": 0.1,
    "idle": 0.05,
    "gate": 0.15,
    "keep norm": 0.1,
    "replace": 0.1,
    "joint": 0.1,
    "share": 0.1,
    "share, keep norm": 0.05,
    "ablate, keep norm": 0.05,
    "ablate further": 0.05,
    "open beyond": 0.15,
    "decay": 0.15,
    "rotate": 0.1,
}
NAMES = tuple(_KINDS)


def random_columns(
    count: int, rows: int, seed: int, names: tuple[str, ...] = NAMES
) -> list[Column]:
    """Make `count` columns of the kinds that `names` has, over a bank of `rows`.

    Each has a selector of its own, sees any earlier ones and may have an earlier gate, or one of
    an earlier site; the columns of a JOINT block share what they must share.
    """
    rng = np.random.default_rng([seed, count])
    chances = np.array([_KINDS[name] for name in names])
    made: list[Column] = []
    while len(made) < count:
        name = str(rng.choice(names, p=chances / chances.sum()))
        shared = Column(
            -1, -1, selector=int(rng.choice([0, 1, 31, 32, 62, 63])), sees=_sees(made, rng)
        )
        if name == "rotate" and len(made) + 2 <= count and rows > 1:
            made += _plane(made, rows, shared, rng)
        elif name == "rotate":
            continue
        elif name == "joint":
            size = min(int(rng.integers(1, MOST_JOINT + 1)), count - len(made), rows)
            made += _block(len(made), size, rows, shared, rng)
        else:
            made.append(_column(name, made, rows, shared, rng))
    return made


def _sees(made: list[Column], rng: np.random.Generator) -> int:
    """Return bits of earlier columns, never those of gates."""
    some = int(rng.integers(2**63))
    return sum(1 << i for i, one in enumerate(made) if some >> i & 1 and one.kind != Kind.GATE)


def _column(
    name: str, made: list[Column], rows: int, shared: Column, rng: np.random.Generator
) -> Column:
    a, b = (int(row) for row in rng.integers(rows, size=2))
    low, high = sorted(float(x) for x in rng.normal(size=2))
    scale = float(rng.normal())
    if name == "gate":
        stored = {one.store for one in made}
        free = [place for place in STORE_PLACES if place not in stored]
        store = free[0] if free and rng.random() < 0.7 else -1
        sharp = float(rng.uniform(-SHARPNESS, SHARPNESS))
        own = _any_decay(made, rng)
        shared = replace(shared, gate=own)
        return replace(shared, a=a, kind=Kind.GATE, alpha=sharp, low=low, store=store)
    if name == "open beyond":
        own = _any_decay(made, rng)
        return replace(shared, a=a, gate=own, kind=Kind.GATE, **_opening(low, high, rng))
    if name == "decay":
        rate = float(rng.uniform(0.5, 1))
        return replace(shared, kind=Kind.GATE, alpha=np.log2(rate), mode=Mode.DECAY)
    gate = _any_gate(made, rng)
    shared = replace(shared, gate=gate)
    if name == "replace":
        # Under a gate never all of the stream, so that what is left can be told from nothing.
        strength = 0.6 if gate >= 0 else float(rng.choice([0.25, 0.6, 1.0]))
        return replace(shared, b=b, kind=Kind.REPLACE, alpha=4 * scale, strength=strength)
    # An ablation leaves something, or a second one would read nothing but rounding errors, and
    # whether they are zero decides what is counted.
    return {
        "steer": replace(shared, b=b, alpha=scale),
        "cap": replace(shared, a=a, b=a, strength=0.75, low=low, high=high),
        "at most": replace(shared, a=a, b=a, strength=1.0, high=high),
        "at least": replace(shared, a=a, b=a, strength=1.0, low=low),
        "ablate": replace(shared, a=a, b=a, beta=-0.9),
        "concept": replace(shared, a=a, b=b, beta=0.5, alpha=0.1),
        "idle": replace(shared, a=a, b=a, strength=0.0, low=low, high=high),
        "keep norm": replace(shared, b=b, kind=Kind.KEEP_NORM, alpha=2 * scale),
        "share": replace(shared, b=b, alpha=0.4 * scale, mode=Mode.SHARE),
        "share, keep norm": replace(
            shared, b=b, kind=Kind.KEEP_NORM, alpha=0.4 * scale, mode=Mode.SHARE
        ),
        "ablate, keep norm": replace(
            shared, a=a, b=a, kind=Kind.KEEP_NORM, strength=0.8, low=0.0, high=0.0
        ),
        "ablate further": replace(
            shared, a=a, b=a, strength=1.5, low=0.0, high=0.0, mode=Mode.OVER
        ),
    }[name]


def _opening(low: float, high: float, rng: np.random.Generator) -> dict[str, float]:
    """Return the numbers of a gate of the modes that are no plain sigmoid."""
    mode = Mode(int(rng.integers(1, 8)) << 1)
    ends = ((low, high), (low, np.inf), (-np.inf, high))[int(rng.integers(3))]
    if not mode & Mode.STEP:
        ends = (low, np.inf)
    alpha = float(rng.uniform(-SHARPNESS, SHARPNESS))
    return {"mode": mode, "alpha": alpha, "low": ends[0], "high": ends[1]}


def _any_decay(made: list[Column], rng: np.random.Generator) -> int:
    """Return nothing that weighs a gate, or a decay among earlier columns."""
    here = [i for i, one in enumerate(made) if one.mode & Mode.DECAY]
    return int(rng.choice([-1, *here]))


def _any_gate(made: list[Column], rng: np.random.Generator) -> int:
    """Return no gate, a gate among earlier columns, or a place of the step's gates."""
    here = [i for i, one in enumerate(made) if one.kind == Kind.GATE]
    some = [-1, -1, *here, GATES + int(rng.choice(READ_PLACES))]
    return int(rng.choice(some))


def _plane(made: list[Column], rows: int, shared: Column, rng: np.random.Generator) -> list[Column]:
    """Return the two columns of a rotation, as a rule over rows that are not orthonormal."""
    gate, strength = _any_gate(made, rng), float(rng.choice([0.5, 1.0]))
    low = float(rng.choice([-np.inf, 0.0]))
    shared = replace(shared, gate=gate, kind=Kind.ROTATE, strength=strength, low=low)
    pair = rng.choice(rows, size=2, replace=False)
    angle = float(rng.uniform(0, 2 * np.pi))
    return [
        replace(shared, a=int(row), b=int(row), alpha=alpha, block=block)
        for row, alpha, block in zip(pair, (np.cos(angle), np.sin(angle)), (2, 0), strict=True)
    ]


def _block(
    start: int, size: int, rows: int, shared: Column, rng: np.random.Generator
) -> list[Column]:
    """Return columns that are solved together: caps, half-open ones and pins."""
    made = []
    for i, row in enumerate(rng.choice(rows, size=size, replace=False)):
        low, high = sorted(float(x) for x in rng.normal(size=2))
        bounds = ((low, high), (low, np.inf), (-np.inf, high), (low, low))[int(rng.integers(4))]
        others = ((1 << size) - 1) ^ (1 << i)
        made.append(
            replace(
                shared,
                a=int(row),
                b=int(row),
                kind=Kind.JOINT,
                strength=1.0,
                low=bounds[0],
                high=bounds[1],
                sees=shared.sees | others << start,
                block=size if i == 0 else 0,
            )
        )
    return made
