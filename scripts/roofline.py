"""Write the tables of docs/roofline.md: what one update moves, and its share of a model's step.

    python scripts/roofline.py

The prose of the page is written by hand; each table stands between `<!-- NAME -->` and
`<!-- /NAME -->`. A test compares the page with what this makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from page_tables import filled

from interv.passes.placing.cost import EAGER_LAUNCH_US, H200, update_cost

PAGE = Path("docs/roofline.md")

WIDTH = 4096
TOKENS = (1, 64, 256, 8192)
COLUMNS = (1, 4, 16)
# Requests of a decode step; more tokens than that are a step that reads prompts.
MOST_REQUESTS = 256
CONTEXT = 1024
# Dense bf16, the vendor's figure for the SXM board.
MATMUL_FLOPS_PER_US = 990_000_000.0


@dataclass(frozen=True, slots=True)
class Model:
    """A typical model of its size, weights and KV in bf16."""

    name: str
    parameters: float
    layers: int
    hidden_size: int
    kv_heads: int
    head_dim: int

    @property
    def kv_bytes(self) -> int:
        """Return what one token's keys and values take."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_dim

    def step_us(self, tokens: int) -> float:
        """Return the shortest possible step of T tokens on the H200.

        Up to MOST_REQUESTS they are T requests at CONTEXT tokens of context, and the step reads
        the weights once and every request's keys and values. More are T tokens of prompts, and
        the step lasts as long as its matmuls (attention left out) or that read.
        """
        weights = 2 * self.parameters
        if tokens <= MOST_REQUESTS:
            return (weights + tokens * CONTEXT * self.kv_bytes) / H200.bytes_per_us
        return max(weights / H200.bytes_per_us, 2 * self.parameters * tokens / MATMUL_FLOPS_PER_US)

    def updates_us(self, tokens: int, columns: int) -> float:
        """Return the predicted time of one update after every block, in a CUDA graph."""
        one = update_cost(tokens, self.hidden_size, columns, columns, H200)
        return self.layers * one.predicted_us


MODELS = (
    Model("1.5B", 1.54e9, 28, 1536, 2, 128),
    Model("8B", 8.03e9, 32, 4096, 8, 128),
)


def update_table() -> Iterator[str]:
    """Yield the rows of one update at WIDTH."""
    yield (
        "| T | K | stream, MB | bank, MB | Mflop | floor, µs | kernel, µs"
        " | in a CUDA graph, µs | launched alone, µs |"
    )
    yield "|--:" * 9 + "|"
    for tokens in TOKENS:
        for columns in COLUMNS:
            one = update_cost(tokens, WIDTH, columns, columns, H200)
            yield (
                f"| {tokens} | {columns} | {one.stream_bytes / 1e6:.3f}"
                f" | {one.bank_bytes / 1e6:.3f} | {one.flops / 1e6:.2f} | {one.floor_us:.2f}"
                f" | {one.kernel_us:.2f} | {one.predicted_us:.2f}"
                f" | {one.kernel_us + EAGER_LAUNCH_US:.2f} |"
            )


def models_table() -> Iterator[str]:
    """Yield the rows of the models that a share is taken of."""
    yield "| model | parameters | blocks | H | KV heads × width | weights, GB | KV a token, kB |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for one in MODELS:
        yield (
            f"| {one.name} | {one.parameters / 1e9:.2f} · 10⁹ | {one.layers} | {one.hidden_size}"
            f" | {one.kv_heads} × {one.head_dim} | {2 * one.parameters / 1e9:.2f}"
            f" | {one.kv_bytes / 1e3:.1f} |"
        )


def share_table() -> Iterator[str]:
    """Yield the shares of a step that updates after every block take."""
    heads = (f"{one.name}: step, ms | updates, µs | share" for one in MODELS)
    yield f"| T | K | {' | '.join(heads)} |"
    yield "|--:" * (2 + 3 * len(MODELS)) + "|"
    for tokens in TOKENS:
        for columns in COLUMNS:
            cells = (_share(one, tokens, columns) for one in MODELS)
            kind = "" if tokens <= MOST_REQUESTS else " (prompts)"
            yield f"| {tokens}{kind} | {columns} | {' | '.join(cells)} |"


def _share(model: Model, tokens: int, columns: int) -> str:
    step, updates = model.step_us(tokens), model.updates_us(tokens, columns)
    return f"{step / 1e3:.2f} | {updates:.1f} | {100 * updates / step:.2f} %"


def tables() -> Mapping[str, str]:
    """Return the tables of the page by name."""
    made = {"update": update_table(), "models": models_table(), "share": share_table()}
    return {name: "\n".join(rows) for name, rows in made.items()}


def main(root: Path) -> None:
    """Write the tables into the page of the repository at `root`."""
    page = root / PAGE
    page.write_text(filled(page.read_text(encoding="utf-8"), tables()), encoding="utf-8")


if __name__ == "__main__":
    main(Path.cwd())
