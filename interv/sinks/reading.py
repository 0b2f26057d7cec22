"""Read files of captured rows that anybody may have written: everything is checked before use."""

from __future__ import annotations

import contextlib
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from interv.errors import IntervError
from interv.sinks.record import Captured, Part
from interv.sinks.schema import FORMAT, Contents, PartLabels, RecordLabels

if TYPE_CHECKING:
    import torch

    from interv.sinks.container import Encoded

MOST_LABELS = 64 * 1024 * 1024


class CaptureFile:
    """An open file: its labels were checked against its tensors, of which none is read yet.

    Raises E273 for a file that is damaged, is none of ours, or whose labels are not true.
    """

    def __init__(self, path: Path, *, framework: str = "pt") -> None:
        from safetensors import SafetensorError, safe_open

        self.path = path
        try:
            status = path.stat()
            # To open a pipe would wait for somebody who writes into it.
            if not stat.S_ISREG(status.st_mode):
                raise self.damaged("it is not a regular file")
            self.bytes = status.st_size
            # It checks sizes, offsets and overlaps against the file before anything is read.
            self._file: Any = safe_open(path, framework=framework)
        except SafetensorError as error:
            raise self.damaged(str(error)) from error
        except OSError as error:
            raise self.damaged((error.strerror or str(error)).lower()) from error
        self.records = self._labels()

    def __enter__(self) -> CaptureFile:
        return self

    def __exit__(self, *_: object) -> None:
        # The tensors that were read keep what they need of the file.
        with contextlib.suppress(AttributeError):
            del self._file

    def damaged(self, *notes: str) -> IntervError:
        """Return E273 for this file."""
        return IntervError("E273", f"'{self.path}' is not a file of captured rows", notes=notes)

    def position(self, part: PartLabels) -> torch.Tensor:
        """Return the positions of a part, int64 [n], ascending; raises E273 where they do not."""
        position: torch.Tensor = self._file.get_tensor(f"{part.tokens}.position")
        if bool((position < 0).any()) or bool((position[1:] <= position[:-1]).any()):
            raise self.damaged(f"the positions of {part.name} do not ascend")
        return position

    def token_id(self, part: PartLabels) -> torch.Tensor:
        """Return the ids of the tokens that were fed at those positions, int64 [n]."""
        tokens: torch.Tensor = self._file.get_tensor(f"{part.tokens}.token_id")
        return tokens

    def rows(self, part: PartLabels, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Return rows `[start, stop)` of a part, in the stored dtype; only those are read."""
        from interv.sinks.container import rows_of

        tensors = {}
        for name in shapes(part):
            key = f"{part.rows}.{name}"
            tensors[name] = (
                self._file.get_tensor(key)
                if name == "v"
                else self._file.get_slice(key)[start : part.shape[0] if stop is None else stop]
            )
        return rows_of(part, tensors)

    def described(self) -> Encoded:
        """Return its labels without its rows, as whoever wrote it had them; raises E273."""
        from interv.sinks.container import Encoded, tokens_at

        parts = {part.tokens: part for record in self.records for part in record.parts}
        tokens = {
            name: tokens_at(self.position(part), self.token_id(part))
            for name, part in parts.items()
        }
        return Encoded({}, self.records, tokens)

    def captured(self) -> Iterator[Captured]:
        """Yield every record whole."""
        from interv.sinks.container import rebuild

        for record in self.records:
            yield rebuild(record, [self._part(one) for one in record.parts])

    def _part(self, part: PartLabels) -> Part:
        tokens = self.position(part), self.token_id(part)
        return Part(part.site, part.layer, part.after, self.rows(part), *tokens)

    def _labels(self) -> tuple[RecordLabels, ...]:
        labels = self._file.metadata() or {}
        if labels.get("format") != FORMAT:
            raise self.damaged(f"its labels do not say '{FORMAT}'")
        text = labels.get("records", "")
        if len(text) > MOST_LABELS:
            raise self.damaged(f"its labels are larger than {MOST_LABELS >> 20} MiB")
        try:
            records = Contents.model_validate_json(f'{{"records":{text}}}').records
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(one) for one in first["loc"])
            raise self.damaged(
                f"its labels are wrong at {where}: {first['msg'].lower()}"
            ) from error
        names = set(self._file.keys())
        for record in records:
            for part in record.parts:
                self._check(part, names)
        return records

    def _check(self, part: PartLabels, names: set[str]) -> None:
        """Compare what a part says of its tensors with what the file has."""
        expected = {f"{part.rows}.{key}": one for key, one in shapes(part).items()}
        for key in ("position", "token_id"):
            expected[f"{part.tokens}.{key}"] = ("I64", (part.shape[0],))
        for name, (dtype, shape) in expected.items():
            if name not in names:
                raise self.damaged(f"it has no tensor '{name}'")
            found = self._file.get_slice(name)
            got = (found.get_dtype(), tuple(found.get_shape()))
            if got != (dtype, shape):
                said = f"{dtype} {list(shape)}"
                raise self.damaged(f"tensor '{name}' is {got[0]} {list(got[1])}, not {said}")


def shapes(part: PartLabels) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the dtype and the shape of each tensor of a part's form."""
    m, d = part.shape
    if part.form == "whole":
        return {"rows": (part.dtype, (m, d))}
    if part.form == "low_rank":
        rank = part.rank or 0
        kept = "F32" if part.dtype == "F16" else part.dtype
        return {"us": (kept, (m, rank)), "v": (kept, (rank, d))}
    return {"q": ("I8" if part.form == "int8" else "F8_E4M3", (m, d)), "scale": ("F32", (m,))}


def is_ours(path: Path) -> bool:
    """Say whether a file begins as one of captured rows; whether it is one is not known yet."""
    with contextlib.suppress(OSError):
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                head = file.read(min(size, status.st_size, MOST_LABELS))
                return json.dumps(FORMAT).encode() in head
    return False
