"""What is measured: an engine, and what its requests ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from interv.document.spec import (
    Ablate,
    At,
    Cap,
    Capture,
    KvPolicy,
    Program,
    SinkDecl,
    SiteRef,
    Spec,
    Statement,
    Steer,
    VectorDecl,
)

# What a run measures unless its arguments say otherwise: tokens of each prompt, tokens generated.
WORK = {"run": "edits", "batch": 16, "prompt": 16, "tokens": 32, "dtype": "bfloat16"}


@dataclass(frozen=True)
class Case:
    """One column of a run; cases of one `engine` take turns on the same engine.

    `target` is the slowdown to stay within, in percent; `configurations` how many different ones
    the batch has, None where the requests say nothing.
    """

    name: str
    target: float | None
    engine: str
    configurations: int | None = None

    def asked(self, batch: int) -> list[str | None]:
        """Return what each request of a batch asks for."""
        if self.configurations is None:
            return [None] * batch
        if self.configurations == 0:
            return ["off"] * batch
        return [f"p*{1 + i % self.configurations / 1024}" for i in range(batch)]


def _at(*layers: int) -> SiteRef:
    return SiteRef(name="post_block", layers=layers or ("*",))


def _three(layers: int) -> tuple[Statement, ...]:
    at = _at()
    return (
        Steer(vector="v", at=at, scale=0.01),
        Cap(vector="w", at=at, low=-5.0, high=5.0),
        Ablate(vector="v", at=at, strength=0.1),
    )


def _ends(layers: int) -> SiteRef:
    return _at(0, layers // 2, layers - 1)


# What each engine serves; stock is without even the plugin.
ENGINES: dict[str, Callable[[int], tuple[Statement, ...]] | None] = {
    "stock": None,
    "plugin": None,
    "one": lambda layers: (Steer(vector="v", at=_at(layers // 2), scale=0.1),),
    "three": _three,
    "capture last": lambda layers: (
        Capture(at=_ends(layers), tokens=At(phase="prompt", index=-1), to="acts"),
    ),
    "capture 3": lambda layers: (Capture(at=_ends(layers), to="acts"),),
    "capture all": lambda layers: (Capture(at=_at(), to="acts"),),
    "kv": lambda layers: (),
}
RUNS = {
    "edits": (
        Case("stock", None, "stock"),
        Case("plugin installed, no intervention", 0.2, "plugin"),
        Case("armed, no request uses it", 0.5, "three", 0),
        Case("one op, one layer", 1.0, "one"),
        Case("3 ops of mixed kinds, every layer", 3.0, "three"),
    ),
    "configurations": (
        Case("stock", None, "stock"),
        *(
            Case(f"{n} configuration{'s' * (n != 1)} in the batch", 3.0, "three", n)
            for n in (0, 1, 16, 64, 256)
        ),
    ),
    # Each batch counts until its rows are in files.
    "captures": (
        Case("stock", None, "stock"),
        Case("armed, no request captures", 0.5, "capture last", 0),
        Case("3 layers, last prompt token", 1.0, "capture last"),
        Case("3 layers, every token", 5.0, "capture 3"),
        Case("every layer, every token", None, "capture all"),
    ),
    # No request is as long as the budget.
    "kv": (Case("stock", None, "stock"), Case("KV policy, nothing is compacted", 0.5, "kv")),
}


def document(engine: str, layers: int, hidden_size: int, folder: Path) -> list[Path]:
    """Write an engine's document and vectors; return the files to serve it with."""
    statements = ENGINES[engine]
    if statements is None:
        return []
    path = folder / f"{engine}.json"
    if engine == "kv":
        path.write_text(
            Spec(kv=KvPolicy(policy="r1kv", options=(("budget", 256),))).model_dump_json()
        )
        return [path]
    rng = np.random.default_rng(0)
    for name in ("v", "w"):
        save_file(
            {name: rng.normal(size=hidden_size).astype(np.float32)}, folder / f"{name}.safetensors"
        )
    captures = any(isinstance(one, Capture) for one in statements(layers))
    acts = SinkDecl(name="acts", kind="filesystem", args=(engine.replace(" ", "-"),))
    spec = Spec(
        sinks=(acts,) if captures else (),
        vectors=tuple(VectorDecl(name=n, path=f"{n}.safetensors") for n in ("v", "w")),
        programs=(Program(name="p", statements=statements(layers)),),
        default="p",
    )
    path.write_text(spec.model_dump_json())
    return [path]
