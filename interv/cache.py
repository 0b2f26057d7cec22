"""Where interv keeps what it made once: the demo's model, compiled kernels."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(override: Path | None = None) -> Path:
    """Return the folder of what is kept: `override`, else INTERV_CACHE, else the user's cache."""
    from platformdirs import user_cache_path

    if override is not None:
        return override.expanduser().resolve()
    if from_env := os.environ.get("INTERV_CACHE"):
        return Path(from_env).expanduser().resolve()
    return user_cache_path("interv")
