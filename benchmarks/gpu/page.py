"""The page of a run on a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def page(result: Mapping[str, Any]) -> str:
    """Return a Markdown page: what holds, then the tables of what was measured."""
    card, machine = result["card"], result["machine"]
    title = card["name"] if card else "Without a card: the command was tried on a CPU"
    versions = ", ".join(f"{name} {machine[name]}" for name in ("interv", "vllm", "torch"))
    lines = [f"# {title}", "", f"{machine['when']}, {versions}, Python {machine['python']}."]
    if card:
        lines[-1] += f" Compute capability {card['capability']}, {card['memory_gib']} GiB."
    lines += ["", "| part | holds | seconds |", "|---|---|--:|"]
    for part in result["parts"]:
        holds = "yes" if part["passed"] else f"**no**: {part['code']}"
        lines.append(f"| {part['about']} | {holds} | {part['seconds']:.0f} |")
    for part in result["parts"]:
        if part.get("rows"):
            lines += ["", f"## {part['about'].capitalize()}", "", *table(part["rows"])]
        if part.get("notes"):
            lines += ["", part["notes"]]
    return "\n".join(lines) + "\n"


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return rows of the same names as a table; numbers to the right."""
    names = list(rows[0])
    numbers = [isinstance(rows[0][name], int | float) for name in names]
    lines = ["| " + " | ".join(names) + " |"]
    lines.append("|" + "|".join("--:" if one else "---" for one in numbers) + "|")
    lines += ["| " + " | ".join(_cell(row[name]) for name in names) + " |" for row in rows]
    return lines


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
