"""The parts of a run on a card, in order: what is wrong first, then what is slow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One part: a process of its own, ended after `limit_s`.

    `tests` are pytest's arguments; of the others `measure` names the function that measures.
    """

    name: str
    about: str
    limit_s: int
    tests: tuple[str, ...] = ()
    measure: str = ""


def _answers(name: str, about: str, limit_s: int = 120) -> Part:
    file = "tests/gpu/test_answers.py"
    return Part(name, about, limit_s, (file, "-k", f"{name.replace('-', '_')}"))


_KERNELS = ("update", "kinds", "update_norm")
PARTS = (
    Part(
        "kernels",
        "every Triton kernel against the float64 reference, on the card",
        180,
        (
            *(f"tests/kernels/test_{one}.py" for one in ("update", "kinds", "update_norm")),
            "-ktriton",
        ),
    ),
    _answers("stock", "answers that no edit touches equal stock vLLM's, bit by bit"),
    _answers("hooks", "every op equals Transformers with forward hooks"),
    _answers("eager", "CUDA graphs answer as eager engines do"),
    _answers("counted", "rows that were edited are counted"),
    _answers("hidden-states", "captured rows are Transformers' hidden states"),
    _answers("kv-policy", "a KV policy answers as Transformers with it"),
    Part("times", "microseconds of an update against the roofline", 120, measure="times"),
    Part("host", "microseconds of the host before a step", 60, measure="host"),
    Part("start", "seconds to start, cold and warm, against stock", 240, measure="start"),
    Part("small", "tokens a second against stock: 1.5B, dummy weights", 300, measure="small"),
    Part("large", "tokens a second against stock: 8B, dummy weights", 400, measure="large"),
)
