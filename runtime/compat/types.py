"""Names for objects of vLLM, whose modules cannot be imported where vLLM is not installed."""

from __future__ import annotations

from typing import Any, TypeAlias

VllmConfig: TypeAlias = Any
Runner: TypeAlias = Any
Worker: TypeAlias = Any
