"""A spec together with where it came from: spans for errors, a folder for relative paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from interv.document.spec import Spec
from interv.errors import Source, Span

# A path into the spec, as pydantic names it: ("programs", 0, "statements", 2, "at").
SpecPath: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A `Spec`, the folder its paths are relative to, and the spans of its text, if it had one."""

    spec: Spec
    root: Path
    name: str = "<spec>"
    source: Source | None = None
    spans: Mapping[SpecPath, Span] = field(default_factory=dict)

    def span(self, *path: str | int) -> Span | None:
        """Return the span of that part of the spec, or of the nearest part around it."""
        for end in range(len(path), -1, -1):
            if (found := self.spans.get(path[:end])) is not None:
                return found
        return None

    def where(self, *path: str | int) -> str:
        """Name that part for people: `calm.interv:6`, or its path where there is no text."""
        span = self.span(*path)
        return str(span) if span else f"{self.name}:{'.'.join(str(part) for part in path)}"
