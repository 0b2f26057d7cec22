"""`python -m benchmarks.kv_page`: the tables and the plot of docs/kv.md, from measured results."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PLOT = Path(__file__).parents[1] / "docs/kv_quality.png"
PAGE = "docs/kv.md"
COLOURS = {"r1kv": "#c2410c", "snapkv": "#1d4ed8", "streaming": "#15803d"}
Found = Mapping[str, Any]


def results(kind: str) -> Found:
    """Return what was measured of a kind."""
    found: Found = json.loads((RESULTS / f"kv-{kind}.json").read_text(encoding="utf-8"))
    return found


def memory() -> str:
    """Return throughput at equal KV memory."""
    found = results("memory")
    lines = ["| | tokens a second | tokens a core second | preemptions |", "|---|---|---|---|"]
    for row in found["rows"]:
        name = "stock" if row["case"] == "stock" else f"`{found['arguments']['policy']}`"
        cells = [
            f"{row[key]:.1f}" + (f", {row[f'ratio_{key}']:.1f} ×" if f"ratio_{key}" in row else "")
            for key in ("tok_s", "tok_cpu_s")
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | {row['preemptions']:.0f} |")
    return "\n".join(lines)


def quality() -> str:
    """Return perplexity and retrieval by policy and budget."""
    rows = results("quality")["rows"]
    full, by = rows[0], {(row["policy"], row["budget"]): row for row in rows}
    kinds = [*COLOURS]
    lines = [
        "| budget | " + " | ".join(f"`{one}`" for one in kinds) + " |",
        "|---" * (len(kinds) + 1) + "|",
    ]
    lines += [
        f"| {budget} | " + " | ".join(_cell(by[kind, budget]) for kind in kinds) + " |"
        for budget in dict.fromkeys(row["budget"] for row in rows[1:])
    ]
    return "\n".join([*lines, f"| all | {_cell(full)} | | |"])


def _cell(row: Found) -> str:
    return f"{row['perplexity']:.2f} · {row['found']:.0%}"


def cost() -> str:
    """Return what one compaction takes."""
    rows = results("cost")["rows"]
    lines = (
        ["tokens", *(f"{row['tokens']}" for row in rows)],
        ["---"] * (len(rows) + 1),
        ["ms of one core", *(f"{row['ms']:.0f}" for row in rows)],
    )
    return "\n".join(f"| {' | '.join(line)} |".replace(" --- ", "---") for line in lines)


TABLES: Mapping[str, Callable[[], str]] = {"memory": memory, "quality": quality, "cost": cost}


def draw(path: Path) -> None:
    """Write quality by budget as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = results("quality")["rows"]
    figure = Figure(figsize=(8, 3.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    said = {"perplexity": "perplexity (lower is better)", "found": "numbers found again"}
    for axes, (key, label) in zip(figure.subplots(1, 2), said.items(), strict=True):
        axes.axhline(rows[0][key], color="#475569", lw=1, ls=":", label="full cache")
        for kind, colour in COLOURS.items():
            own = [row for row in rows if row["policy"] == kind]
            budgets, values = [row["budget"] for row in own], [row[key] for row in own]
            axes.plot(budgets, values, "o-", color=colour, ms=4, label=kind)
        axes.set_xscale("log", base=2)
        axes.set_xticks(budgets, [str(one) for one in budgets])
        axes.set_xlabel("budget (tokens)")
        axes.set_ylabel(label)
        axes.legend(fontsize=8)
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    draw(PLOT)
    for name, table in TABLES.items():
        print(f"{name}\n\n{table()}\n")
