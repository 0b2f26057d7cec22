"""The class that every kind of sink derives from, third parties' included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from interv.sinks.record import Captured

# What a request's result says of rows that were stored: "path", "bytes", "handle", …
Detail: TypeAlias = Mapping[str, str | int | float]
Mib: TypeAlias = Annotated[int, Field(ge=1, le=2**20)]


class SinkOptions(BaseModel):
    """What stands in the parentheses of any sink; a kind adds its own fields.

    `overflow` says what happens to a record when `queue_mib` of rows wait for the sink: `block`
    lets the engine wait, `drop` refuses the record and counts it, `spill` puts it into a folder
    of at most `spill_mib` until its turn, and blocks where that is full too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    overflow: Literal["block", "drop", "spill"] = "block"
    queue_mib: Mib = 256
    spill_mib: Mib = 4096


class Sink:
    """Take captured rows, one record at a time, on a thread that no other call of it runs on.

    A kind is a class with `Options`, `positional` and `put`; the rest has a default. `options` is
    what the document says, an instance of the kind's `Options`; `root` is the document's folder,
    under which relative paths are.
    """

    # What may stand in the parentheses, checked by pydantic.
    Options: ClassVar[type[SinkOptions]] = SinkOptions
    # Names of the options that may come without their name, in their order.
    positional: ClassVar[tuple[str, ...]] = ()
    # Whether what is stored outlives the engine, so that nothing on its way may be lost.
    lasting: ClassVar[bool] = True

    def __init__(self, options: Any, root: Path) -> None:
        self.options = options
        self.root = root

    @classmethod
    def faults(cls, options: SinkOptions, root: Path) -> Iterator[tuple[str, str]]:
        """Yield (option, what is wrong with it) for valid options that cannot work here.

        Asked when a document is checked: it opens and changes nothing.
        """
        yield from ()

    def put(self, captured: Captured) -> Detail | Future[Detail]:
        """Store one record, and return what the request's result says of it.

        Raising anything makes the request's result an error and leaves the sink in use. A sink
        that stores several records at once returns a future, and gives it the detail (or an
        exception) when the record is safe: only then does the request's result say so.
        """
        raise TypeError(f"{type(self).__name__} has no method 'put'")

    def deliver(self, key: str, captured: Captured) -> Detail | Future[Detail]:
        """Store one record that the engine knows as `key`; only `memory` needs the key."""
        return self.put(captured)

    def missing(self, captured: Captured) -> Captured | None:
        """Return what of a record is not stored yet, None where all of it is.

        Asked of records that a killed engine may have stored before it could note so.
        """
        return captured

    def tick(self) -> float | None:
        """Do what time asks for; return the seconds until the next call, None for no matter."""
        return None

    def flush(self) -> None:
        """Store what was held back to be stored together."""

    def close(self) -> None:
        """End: called once, after the last `put` and a `flush`."""
