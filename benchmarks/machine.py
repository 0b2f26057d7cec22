"""Where and with what a result was measured."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any


def machine(*more: str) -> dict[str, Any]:
    """Return the processor, the day, and the versions of torch, vLLM, interv and `more`."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1] for line in info.read_text().splitlines() if "model name" in line]
    return {
        "cpu": names[0].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "when": datetime.now(UTC).date().isoformat(),
        **{name: metadata.version(name) for name in ("torch", "vllm", "interv", *more)},
    }
