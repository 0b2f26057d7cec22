"""Open what a user names: a regular file, of a size that is looked at first; and replace it whole.

A FIFO would wait for its writer, a device has no end, and either may hide behind a link. What is
wrong is an OSError, like a file that is not there, so that every reader may word it as its own.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from interv.errors import IntervError

MIB = 1 << 20
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def open_regular(path: Path, most_bytes: int | None = None) -> BufferedReader:
    """Open a regular file of at most `most_bytes` to read; raise OSError for anything else."""
    # Without waiting: to open a pipe waits for someone to write. A terminal is not taken over.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _check(os.fstat(handle), path, most_bytes)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_regular(path: Path, most_bytes: int | None = None) -> int:
    """Return the size of a regular file, for readers that open it by themselves.

    Raises OSError as `open_regular` does.
    """
    found = path.stat()
    _check(found, path, most_bytes)
    return found.st_size


def read_regular(path: Path, most_bytes: int) -> bytes:
    """Return what a regular file of at most `most_bytes` holds; raise OSError for anything else."""
    with open_regular(path, most_bytes) as file:
        # Some files of the system say that they are empty, and are not.
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise _too_large(path, most_bytes)
    return data


def read_text(path: Path, most_bytes: int) -> str:
    """Return the UTF-8 text of such a file. Raises IntervError E110 and E200."""
    try:
        return read_regular(path, most_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        notes = (f"byte {error.start} is not part of a character",)
        raise IntervError("E110", f"'{path}' is not UTF-8 text", notes=notes) from error
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> IntervError:
    """Return E200 for a file that cannot be read."""
    reason = error.strerror or str(error)
    reason = reason[:1].lower() + reason[1:]
    return IntervError("E200", f"'{path}' cannot be read: {reason}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a file to write that takes the place of `path` whole, or not at all; raises E232."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise IntervError("E232", f"'{path}' cannot be written", notes=(reason,)) from error
    finally:
        part.unlink(missing_ok=True)


def map_regular(path: Path, most_bytes: int | None = None) -> mmap.mmap | bytes:
    """Map a regular file, so that only what is looked at is read; raise OSError as above."""
    with open_regular(path, most_bytes) as file:
        if not os.fstat(file.fileno()).st_size:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _check(found: os.stat_result, path: Path, most_bytes: int | None) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for test, name in _KINDS if test(found.st_mode)), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))
    if most_bytes is not None and found.st_size > most_bytes:
        raise _too_large(path, most_bytes)


def _too_large(path: Path, most_bytes: int) -> OSError:
    return OSError(errno.EFBIG, f"it is larger than {most_bytes // MIB} MiB", str(path))
