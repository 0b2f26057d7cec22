"""`python -m benchmarks.gpu.measured PART FILE`: one part that measures, as a process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    """Measure, and write what was found."""
    name, out, *rest = sys.argv[1:]
    from benchmarks.gpu import speed, updates

    measures: dict[str, Callable[[bool], dict[str, Any]]] = {
        "times": updates.times,
        "host": updates.host,
        "start": speed.start,
        "small": speed.small,
        "large": speed.large,
    }
    Path(out).write_text(json.dumps(measures[name]("--standin" in rest)))


if __name__ == "__main__":
    main()
