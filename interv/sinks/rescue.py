"""Store what a killed engine had on its way to its sinks, before its folder is removed."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future
from pathlib import Path

from pydantic import ValidationError

from interv.errors import IntervError
from interv.sinks.base import Detail, Sink
from interv.sinks.journal import ABOUT, About, read_record
from interv.sinks.known import make_sink
from interv.sinks.schema import SUFFIX

logger = logging.getLogger(__name__)
# How long one that ends may take for it; what is left is stored by the next that starts.
MOST_S = 5.0


def rescue(folder: Path, most_s: float = 600.0) -> bool:
    """Store the records of every journal in a folder that nobody writes to any more.

    Returns whether nothing is left there that waits for its sink. What is stored already (the
    engine was killed between that and its note of it) is not stored again.
    """
    until = time.monotonic() + most_s
    journals = [path.parent for path in sorted(folder.glob(f"**/{ABOUT}"))]
    return all([_store(journal, until) for journal in journals])


def rescue_soon(folder: Path) -> bool:
    """Do the same within a time that a process which ends has."""
    return rescue(folder, MOST_S)


def _store(journal: Path, until: float) -> bool:
    files = sorted(journal.glob(f"*{SUFFIX}"))
    if not files:
        return True
    try:
        about = About.model_validate_json((journal / ABOUT).read_bytes())
        sink = _opened(about, journal)
    except (IntervError, ValidationError, OSError) as error:
        logger.warning("interv: %s", error)
        return False
    kept = _put_all(sink, files, until)
    if kept:
        message = f"{kept} of {len(files)} records that a killed engine had wait in '{journal}'"
        logger.warning("interv: %s", IntervError("E558", message))
    if kept < len(files):
        count, name = len(files) - kept, about.decl.name
        logger.warning("interv: sink '%s' has %d records of an engine that was killed", name, count)
    return not kept


def _opened(about: About, journal: Path) -> Sink:
    if not about.is_here():
        raise IntervError(
            "E557",
            f"what a killed engine captured waits in '{journal}' and cannot be stored here",
            notes=[f"'{about.root}' is not the folder that sink '{about.decl.name}' was under"],
            helps=["start an engine where it is, or remove what waits"],
        )
    return make_sink(about.decl, about.root)


def _put_all(sink: Sink, files: list[Path], until: float) -> int:
    """Give files to a sink, remove those that it has stored, and return how many are left."""
    given: list[tuple[Path, Future[Detail] | None]] = []
    for path in files:
        if time.monotonic() > until:
            break
        try:
            missing = sink.missing(read_record(path))
            stored = sink.put(missing) if missing is not None else None
        except Exception as error:
            logger.warning("interv: '%s' was not stored: %s", path, error)
            continue
        given.append((path, stored if isinstance(stored, Future) else None))
    for end in (sink.flush, sink.close):
        try:
            end()
        except Exception as error:
            logger.warning("interv: a sink of an engine that was killed did not end: %s", error)
    done = [path for path, later in given if later is None or _is_stored(later)]
    for path in done:
        path.unlink(missing_ok=True)
    return len(files) - len(done)


def _is_stored(later: Future[Detail]) -> bool:
    return later.done() and not later.cancelled() and later.exception() is None
