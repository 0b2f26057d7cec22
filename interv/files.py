"""Open what a user names: a regular file, of a size that is looked at first.

A FIFO would wait for its writer, a device has no end, and either may hide behind a link. What is
wrong is an OSError, like a file that is not there, so that every reader words it as its own.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from io import BufferedReader
from pathlib import Path

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
