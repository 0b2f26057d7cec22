"""`python -m benchmarks.table`: the tables of the pages, from the results they were measured in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.cases import RUNS, WORK

RESULTS = Path(__file__).parent / "results"
# Which page shows which results.
TABLES = {
    "README.md": RESULTS / "cpu-smollm2.json",
    "docs/requests.md": RESULTS / "cpu-smollm2-configurations.json",
    "docs/captures.md": RESULTS / "cpu-smollm2-captures.json",
    "docs/kv.md": RESULTS / "cpu-smollm2-kv.json",
}


def markdown(path: Path) -> str:
    """Return the results as a table, with the machine and the work below it."""
    results: dict[str, Any] = json.loads(path.read_text())
    run = results["arguments"].get("run", "edits")
    targets = {case.name: case.target for case in RUNS[run]}
    lines = ["| case | time against stock vLLM | quartiles | target |", "|---|---|---|---|"]
    for row in results["rows"]:
        if row["case"] == "stock":
            continue
        target = targets[row["case"]]
        bound = "" if target is None else f"≤ {target:g} %"
        low, high = row["quartiles"]
        spread = f"{low:+.1%} … {high:+.1%}"
        lines.append(f"| {row['case']} | {row['median']:+.1%} | {spread} | {bound} |")
    machine, work = results["machine"], results["arguments"]
    rounds, engines = work["rounds"] * work["instances"], work["instances"]
    count = "one engine" if engines == 1 else f"{engines} engines"
    lines += [
        "",
        f"{work['model']}, {work['dtype']}, {work['batch']} requests × {work['tokens']} tokens;",
        f"{machine['cores']} cores of {machine['cpu']}, vLLM {machine['vllm']},",
        f"torch {machine['torch']}; medians of {rounds} paired rounds with {count}",
        f"of each case, {machine['when']}. Again: `make bench{_arguments(work)}`.",
    ]
    return "\n".join(lines)


def _arguments(work: dict[str, Any]) -> str:
    said = [f"--{one} {work[one]}" for one, usual in WORK.items() if work.get(one, usual) != usual]
    return f' ARGS="{" ".join(said)}"' if said else ""


if __name__ == "__main__":
    for page, results in TABLES.items():
        print(f"{page}\n\n{markdown(results)}\n")
