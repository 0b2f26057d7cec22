"""`filesystem("acts/")`: captured rows as safetensors files in a folder, with a manifest."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from interv.document.wording import layer_text
from interv.errors import IntervError
from interv.sinks.base import Detail, Mib, Sink, SinkOptions
from interv.sinks.publish import Collision, publish, slug, sync_folder, write_part
from interv.sinks.record import Captured

if TYPE_CHECKING:
    from interv.sinks.container import Encoded
    from interv.sinks.present import Present

# So many records or places fill a shard of few rows: the header of a file stays small.
MOST_RECORDS = 4096
MOST_PARTS = 16384


class FilesystemOptions(SinkOptions):
    """Where files go, how many there are, and how they are written."""

    folder: Annotated[str, Field(min_length=1)]
    layout: Literal["packed", "per_file", "sharded"] = "packed"
    on_collision: Collision = "suffix"
    shard_mib: Mib = 256
    shard_s: Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)] = 30
    quantize: Literal["none", "int8", "fp8"] = "none"
    fsync: bool = True


@dataclass(slots=True)
class _Shard:
    """Records that wait to be written together, and whom to tell."""

    files: list[Encoded] = field(default_factory=list)
    told: list[Future[Detail]] = field(default_factory=list)
    bytes: int = 0
    parts: int = 0
    begun: float = 0.0


class Filesystem(Sink):
    """Write each record into a folder, which is made where it is missing.

    `packed` is a file a record, `per_file` a file for each place of it, `sharded` a file of many
    records: one is written when it has `shard_mib` of rows or is `shard_s` seconds old, and only
    then are its records' results known.
    """

    Options: ClassVar[type[SinkOptions]] = FilesystemOptions
    positional: ClassVar[tuple[str, ...]] = ("folder",)

    def __init__(self, options: Any, root: Path) -> None:
        super().__init__(options, root)
        from interv.sinks.manifest import ManifestWriter

        self.folder = root / options.folder
        try:
            self.folder.mkdir(exist_ok=True)
            self._manifest = ManifestWriter(self.folder, options.layout, fsync=options.fsync)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise IntervError("E550", f"'{self.folder}' cannot be written: {reason}") from error
        self._shard = _Shard()
        self._shards = 0
        self._present: Present | None = None

    @classmethod
    def faults(cls, options: SinkOptions, root: Path) -> Iterator[tuple[str, str]]:
        """Yield what a folder lacks: it must be one, or its parent there to make it in."""
        assert isinstance(options, FilesystemOptions)
        folder = root / options.folder
        if folder.exists() and not folder.is_dir():
            yield "folder", f"'{folder}' is not a folder"
        elif not folder.exists() and not folder.parent.is_dir():
            yield "folder", f"'{folder.parent}' does not exist"

    def put(self, captured: Captured) -> Detail | Future[Detail]:
        """Write a record, or keep it for its shard; raises E551 and what the disk says."""
        from interv.sinks.container import encode

        if not captured.parts:
            return {"bytes": 0, "files": 0}  # its selector chose no token of this request
        if self.options.layout == "sharded":
            return self._keep(encode(captured, self.options.quantize))
        records = [captured]
        if self.options.layout == "per_file":
            records = [replace(captured, parts=(part,)) for part in captured.parts]
        files = [encode(record, self.options.quantize) for record in records]
        return self._store(files, [_stem(record) for record in records])

    def missing(self, captured: Captured) -> Captured | None:
        """Return a record without the places that files of the folder have of it.

        A file that has some, and no line in the manifest, gets its line: the engine was killed
        between the two.
        """
        from interv.sinks.present import Present
        from interv.sinks.reading import CaptureFile

        self._present = self._present or Present(self.folder)
        for path in self._present.take_unlisted(captured):
            with CaptureFile(path) as file:
                self._manifest.add(path, file.bytes, file.described())
        parts = tuple(one for one in captured.parts if not self._present.has(captured, one))
        return replace(captured, parts=parts) if parts else None

    def tick(self) -> float | None:
        """Write a shard that is old enough."""
        if not self._shard.files:
            return None
        left = self._shard.begun + self.options.shard_s - time.monotonic()
        if left > 0:
            return float(left)
        self.flush()
        return None

    def flush(self) -> None:
        """Write the open shard, and tell those whose records are in it."""
        from interv.sinks.container import merge

        shard, self._shard = self._shard, _Shard()
        if not shard.files:
            return
        self._shards += 1
        name = f"shard-{self._manifest.session}-{self._shards:06d}"
        try:
            stored = self._store([merge(shard.files)], [name])
        except Exception as error:
            for future in shard.told:
                future.set_exception(error)
            return
        for file, future in zip(shard.files, shard.told, strict=True):
            future.set_result({**stored, "bytes": file.bytes})

    def close(self) -> None:
        """End the manifest's session."""
        self.flush()
        self._manifest.close()

    def _keep(self, encoded: Encoded) -> Future[Detail]:
        most = self.options.shard_mib << 20
        if self._shard.bytes + encoded.bytes > most:
            self.flush()
        shard, future = self._shard, Future[Detail]()
        if not shard.files:
            shard.begun = time.monotonic()
        shard.files.append(encoded)
        shard.told.append(future)
        shard.bytes += encoded.bytes
        shard.parts += len(encoded.records[0].parts)
        if shard.bytes >= most or len(shard.files) >= MOST_RECORDS or shard.parts >= MOST_PARTS:
            self.flush()
        return future

    def _store(self, files: Sequence[Encoded], stems: Sequence[str]) -> dict[str, str | int]:
        """Write files, all before the first gets its name, and list them in the manifest."""
        from interv.sinks.container import write

        parts: list[Path] = []
        fsync = self.options.fsync
        try:
            for encoded, stem in zip(files, stems, strict=True):
                data = partial(write, encoded=encoded)
                parts.append(write_part(self.folder, stem, data, fsync=fsync))
            sizes = [part.stat().st_size for part in parts]
            names = [self._publish(*one) for one in zip(parts, stems, sizes, files, strict=True)]
        finally:
            for part in parts:
                part.unlink(missing_ok=True)
        path = names[0] if len(names) == 1 else self.folder
        return {"path": str(path), "bytes": sum(sizes), "files": len(names)}

    def _publish(self, part: Path, stem: str, size: int, encoded: Encoded) -> Path:
        name = publish(part, stem, self.options.on_collision)
        if self.options.fsync:
            sync_folder(self.folder)
        self._manifest.add(name, size, encoded)
        return name


def _stem(captured: Captured) -> str:
    """Return the name of a record's file: `[TAG.]REQUEST.SAMPLE.PROGRAM.LINE.PLACES`.

    The places are in it because stages of a pipeline write one record each, of their own layers.
    """
    line = captured.statement.rpartition(":")[2]
    # Together less than the 255 characters that file systems allow, with room for what is added.
    words = [slug(captured.tag, 24, dots=False)] if captured.tag else []
    words += [slug(captured.request, 80, dots=False), str(captured.sample)]
    words += [slug(captured.program, 32, dots=False), slug(line, 24)]
    return ".".join([*words, slug(_places(captured), 48)])


def _places(captured: Captured) -> str:
    """Return sites and layers as a piece of a name: `post_block.10-20_29.pre_attn.0.after`."""
    layers: dict[tuple[str, bool], list[int]] = {}
    for part in captured.parts:
        layers.setdefault((part.site, part.after), []).append(part.layer)
    words = []
    for (site, after), found in layers.items():
        runs = layer_text(found).replace("..", "-").replace(", ", "_")
        words += [site, runs, *(["after"] if after else [])]
    return ".".join(words)
