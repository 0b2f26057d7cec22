"""Records on their way to a sink, in files that outlive the process which wrote them.

    FOLDER/sink.json          the sink that they are for
    FOLDER/00000001.safetensors

A file is there from before its request is answered until its sink has it. What a killed process
left is stored by whoever removes its folder (`rescue.py`).
"""

from __future__ import annotations

import os
import threading
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from interv.document.spec import SinkDecl
from interv.sinks.publish import write_part
from interv.sinks.record import Captured
from interv.sinks.schema import SUFFIX

ABOUT = "sink.json"


class About(BaseModel):
    """Which sink a journal is for; `device` and `inode` are of `root`.

    By them a process of another container knows that a folder of that name is not the one meant.
    """

    model_config = ConfigDict(frozen=True)

    decl: SinkDecl
    root: Path
    device: int
    inode: int

    @classmethod
    def of(cls, decl: SinkDecl, root: Path) -> About:
        """Describe a sink whose relative paths are under `root`."""
        found = root.stat()
        return cls(decl=decl, root=root.resolve(), device=found.st_dev, inode=found.st_ino)

    def is_here(self) -> bool:
        """Say whether `root` is the folder that was meant."""
        try:
            found = self.root.stat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (self.device, self.inode)


class Journal:
    """The records of one sink, in a folder that is made when the first comes."""

    def __init__(self, folder: Path, about: About | None) -> None:
        self.folder, self.about = folder, about
        self._count = 0
        self._lock = threading.Lock()

    def write(self, captured: Captured) -> Path:
        """Write a record to a file of its own; raises what the disk says."""
        from interv.sinks.container import encode, write

        with self._lock:
            if not self._count:
                self._begin()
            self._count += 1
            stem = f"{self._count:08d}"
        data = partial(write, encoded=encode(captured, exact=True))
        part = write_part(self.folder, stem, data, fsync=False)
        path = self.folder / f"{stem}{SUFFIX}"
        os.replace(part, path)
        return path

    def _begin(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.about is not None:
            (self.folder / ABOUT).write_text(self.about.model_dump_json(), encoding="utf-8")


def read_record(path: Path) -> Captured:
    """Return the record of a file; its rows are mapped, and stay when the file is removed."""
    from interv.sinks.reading import CaptureFile

    with CaptureFile(path) as file:
        return next(file.captured())
