"""What is measured: each case is a document, or none for stock vLLM with the plugin installed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from interv.spec import Ablate, At, Cap, Program, SiteRef, Spec, Statement, Steer, VectorDecl


@dataclass(frozen=True)
class Case:
    """One engine to measure; `target` is the slowdown to stay within, in percent."""

    name: str
    target: float | None
    statements: Callable[[int], tuple[Statement, ...]] | None
    plugins: bool = True


def _at(*layers: int) -> SiteRef:
    return SiteRef(name="post_block", layers=layers or ("*",))


def _three(layers: int) -> tuple[Statement, ...]:
    at = _at()
    return (
        Steer(vector="v", at=at, scale=0.01),
        Cap(vector="w", at=at, low=-5.0, high=5.0),
        Ablate(vector="v", at=at, strength=0.1),
    )


def _never(layers: int) -> tuple[Statement, ...]:
    """Return the same edits for tokens that no answer of the benchmark is long enough to have."""
    late = At(phase="generated", index=100_000)
    return tuple(one.model_copy(update={"when": late}) for one in _three(layers))


CASES = (
    Case("stock", None, None, plugins=False),
    Case("plugin installed, no intervention", 0.2, None),
    Case("one op, one layer", 1.0, lambda n: (Steer(vector="v", at=_at(n // 2), scale=0.1),)),
    Case("3 ops of mixed kinds, every layer", 3.0, _three),
    Case("armed, no token selected", 0.5, _never),
)


def document(case: Case, layers: int, hidden_size: int, folder: Path) -> list[Path]:
    """Write a case's document and vectors; return the files to serve it with."""
    if case.statements is None:
        return []
    rng = np.random.default_rng(0)
    for name in ("v", "w"):
        save_file(
            {name: rng.normal(size=hidden_size).astype(np.float32)}, folder / f"{name}.safetensors"
        )
    spec = Spec(
        vectors=tuple(VectorDecl(name=n, path=f"{n}.safetensors") for n in ("v", "w")),
        programs=(Program(name="p", statements=case.statements(layers)),),
        default="p",
    )
    path = folder / f"{case.name.replace(' ', '_').replace(',', '')}.json"
    path.write_text(spec.model_dump_json())
    return [path]
