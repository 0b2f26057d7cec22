"""`memory()`: captured rows in shared memory, to be had by handle for a while."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from interv.sinks.base import Detail, Mib, Sink, SinkOptions
from interv.sinks.record import Captured
from interv.sinks.spool import Spool, shared_folder


class MemoryOptions(SinkOptions):
    """How long rows are kept, and how many."""

    ttl_s: Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)] = 600
    mib: Mib = 1024


class Memory(Sink):
    """Keep records in a `Spool` under the engine's own keys, which are their handles.

    `folder` is the engine's, which other processes know; without it a new one is made.
    """

    Options: ClassVar[type[SinkOptions]] = MemoryOptions
    lasting: ClassVar[bool] = False

    def __init__(self, options: Any, root: Path, folder: Path | None = None) -> None:
        super().__init__(options, root)
        self.spool = Spool(folder or shared_folder(), options.ttl_s, options.mib << 20)

    def put(self, captured: Captured) -> Detail:
        """Keep a record under the id of its request."""
        return self.deliver(captured.request, captured)

    def deliver(self, key: str, captured: Captured) -> Detail:
        """Keep a record under the key it was submitted with; raises E556."""
        stored = self.spool.write(key, captured)
        return {"handle": key, "path": str(stored.path), "bytes": stored.bytes}

    def tick(self) -> float | None:
        """Remove what is too old, and ask to be called when the next may be."""
        self.spool.expire()
        kept = self.spool.list()
        return max(0.1, self.options.ttl_s - kept[0].age_s) if kept else None

    def close(self) -> None:
        """Remove everything."""
        self.spool.close()
