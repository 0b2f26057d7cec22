"""Files that appear whole or not at all, under names that stay in their folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Literal, TypeAlias

from interv.errors import IntervError
from interv.sinks.schema import PART_SUFFIX, SUFFIX

Collision: TypeAlias = Literal["suffix", "error", "overwrite"]
LONGEST_SLUG = 120
_OTHER = re.compile(r"[^A-Za-z0-9._-]")
# What a file system that has no hard links says when it is asked for one.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def slug(text: str, longest: int = LONGEST_SLUG, *, dots: bool = True) -> str:
    """Return `text` as a piece of a file name: `[A-Za-z0-9._-]`, no dot in front, not empty.

    What had to change ends in eight digits of its sha256, so that two texts keep two names.
    Without `dots` no dot is in it, so that pieces can be joined by dots and stay apart.
    """
    name = _OTHER.sub("_", text if dots else text.replace(".", "_"))
    name = "_" + name[1:] if name.startswith(".") else name
    if name == text and 0 < len(name) <= longest:
        return name
    digits = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name[: longest - 9]}-{digits}"


def write_part(folder: Path, stem: str, write: Callable[[IO[bytes]], int], *, fsync: bool) -> Path:
    """Write a file that nobody reads yet, and return its path.

    Whatever `write` raises is passed on, and nothing is left behind.
    """
    part = folder / f".{stem}.{os.urandom(4).hex()}{PART_SUFFIX}"
    try:
        with open(part, "xb", buffering=1 << 20) as file:
            write(file)
            file.flush()
            if fsync:
                os.fsync(file.fileno())
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return part


def publish(part: Path, stem: str, on_collision: Collision) -> Path:
    """Give a written file its name in one step, and return it; `part` is gone afterwards.

    Where the name is taken, `suffix` takes the first free `stem--2`, `stem--3`, …, `overwrite`
    replaces the file, and `error` raises E551.
    """
    folder = part.parent
    try:
        if on_collision == "overwrite":
            target = folder / f"{stem}{SUFFIX}"
            os.replace(part, target)
            return target
        for name in _names(stem) if on_collision == "suffix" else [stem]:
            with contextlib.suppress(FileExistsError):
                return _place(part, folder / f"{name}{SUFFIX}")
    finally:
        part.unlink(missing_ok=True)
    raise IntervError(
        "E551",
        f"'{folder / stem}{SUFFIX}' exists already",
        helps=("on_collision = suffix keeps both, on_collision = overwrite replaces it",),
    )


def sync_folder(folder: Path) -> None:
    """Make the names in a folder safe against a crash of the machine."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _names(stem: str) -> Iterator[str]:
    yield stem
    number = 2
    while True:
        yield f"{stem}--{number}"
        number += 1


def _place(part: Path, target: Path) -> Path:
    """Move without replacing; raise FileExistsError where the name is taken."""
    try:
        os.link(part, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Claimed first, so that no other writer can take the name in between.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.replace(part, target)
    return target
