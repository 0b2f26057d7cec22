"""Whose files are whose: locks that the kernel frees when their holder ends, however it ends.

What an engine keeps in a folder that engines share (`/dev/shm`, `/tmp`) has names that begin with
the engine's own, and beside them is `NAME.lock`. Each of its processes holds that file by a shared
`flock` for as long as it lives. Whoever gets the exclusive one knows that no process of that engine
lives, in this or another PID namespace, and removes what is there. No number of a process is ever
looked at, which means nothing in another container.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

SHARED = Path("/dev/shm")
_LOCKS = re.compile(r"^(interv-[A-Za-z0-9-]{1,80})\.lock$")
# Told of what is about to be removed; says whether nothing that is worth keeping is in it.
Rescue: TypeAlias = Callable[[Path], bool]


def temporary() -> Path:
    """Return the folder for files on disk."""
    return Path(tempfile.gettempdir())


def shared_place() -> Path:
    """Return the folder for files in memory, which may be the one for files on disk."""
    return SHARED if SHARED.is_dir() and os.access(SHARED, os.W_OK | os.X_OK) else temporary()


def new_name() -> str:
    """Return a name that no other engine has."""
    return f"interv-{uuid.uuid4().hex}"


class Hold:
    """The right of this process to what is called `NAME.…` in a folder, until `release`.

    Several processes may hold one name, and one process several times. Nothing is released when
    the object goes: only by `release`, or by the kernel at the end of the process.
    """

    def __init__(self, place: Path, name: str) -> None:
        """Wait while somebody removes what an earlier holder of the name left."""
        self._lock = place / f"{name}.lock"
        while True:
            file = os.open(self._lock, os.O_RDWR | os.O_CREAT | _SAFE, 0o600)
            fcntl.flock(file, fcntl.LOCK_SH)
            if _is_still(file, self._lock):
                break
            os.close(file)  # it was removed in between
        self._file: int | None = file

    def release(self, rescue: Rescue | None = None) -> None:
        """Let go; the last holder removes what there is. Again, it does nothing."""
        if self._file is None:
            return
        os.close(self._file)
        self._file = None
        _clear(self._lock, rescue)


def sweep(place: Path, rescue: Rescue | None = None) -> None:
    """Remove what engines of this user have left in a folder, and no living process holds."""
    for lock in place.glob("interv-*.lock"):
        _clear(lock, rescue)


_SAFE = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def _clear(lock: Path, rescue: Rescue | None) -> None:
    """Remove what belongs to a lock unless a process holds it; the lock itself goes last."""
    named = _LOCKS.match(lock.name)
    if named is None:
        return
    try:
        file = os.open(lock, os.O_RDWR | _SAFE)
    except OSError:  # gone, another user's, or a link
        return
    try:
        if _is_mine(os.fstat(file)) and _locked(file) and _is_still(file, lock):
            others = [one for one in lock.parent.glob(f"{named[1]}.*") if one != lock]
            if all([_remove(one, rescue) for one in others]):
                lock.unlink(missing_ok=True)
    finally:
        os.close(file)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_still(file: int, path: Path) -> bool:
    """Say whether an open file is what its path leads to."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file), path.lstat())
    return False


def _is_mine(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()


def _remove(path: Path, rescue: Rescue | None) -> bool:
    """Remove a file or a folder of this user's, and say whether it is gone; follow no link."""
    try:
        found = path.lstat()
        if found.st_uid != os.geteuid():
            return False
        if not stat.S_ISDIR(found.st_mode):
            path.unlink()
            return True
        if rescue is not None and not rescue(path):
            return False
        shutil.rmtree(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
