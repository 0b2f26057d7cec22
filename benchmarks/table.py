"""`python -m benchmarks.table`: README's table, from the results it was measured in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES

RESULTS = Path(__file__).parent / "results" / "cpu-smollm2.json"


def markdown(path: Path = RESULTS) -> str:
    """Return the results as a table, with the machine and the work below it."""
    results: dict[str, Any] = json.loads(path.read_text())
    targets = {case.name: case.target for case in CASES}
    lines = ["| case | time against stock vLLM | quartiles | target |", "|---|---|---|---|"]
    for row in results["rows"]:
        if (target := targets[row["case"]]) is None:
            continue
        low, high = row["quartiles"]
        spread = f"{low:+.1%} … {high:+.1%}"
        lines.append(f"| {row['case']} | {row['median']:+.1%} | {spread} | ≤ {target:g} % |")
    machine, work = results["machine"], results["arguments"]
    rounds, engines = work["rounds"] * work["instances"], work["instances"]
    count = "one engine" if engines == 1 else f"{engines} engines"
    lines += [
        "",
        f"{work['model']}, {work['dtype']}, {work['batch']} requests × {work['tokens']} tokens;",
        f"{machine['cores']} cores of {machine['cpu']}, vLLM {machine['vllm']},",
        f"torch {machine['torch']}; medians of {rounds} paired rounds with {count}",
        f"of each case, {machine['when']}. Again: `make bench`.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown())
