"""Captured rows as one tensor, chosen by their labels, with the labels as columns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from interv.captures.scan import Found, scan
from interv.captures.wanted import Query, Wanted, nothing_found, positions, texts
from interv.document.wording import counted
from interv.errors import IntervError, raise_all
from interv.sinks.reading import CaptureFile
from interv.sinks.schema import PartLabels, RecordLabels

if TYPE_CHECKING:
    import torch

ELEMENT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows `[start, stop)` of one part in one file."""

    path: Path
    index: tuple[int, int]  # of the record in the file, and of the part in the record
    record: RecordLabels
    part: PartLabels
    start: int
    stop: int

    @property
    def count(self) -> int:
        """Return the number of its rows."""
        return self.stop - self.start


class Captures:
    """Rows that a query chose, `[N, H]`, and their labels, each with N entries.

    `rows`, `position`, `token_id`, `layer`, `sample` and `after` are tensors, `request`, `site`,
    `tag` and `program` arrays of texts. Nothing is read from the files before it is asked for.
    `records` are the labels of the records that the rows are of, `incomplete` says what may be
    missing from the folder.
    """

    def __init__(
        self,
        folder: Path,
        pieces: Sequence[Piece],
        incomplete: Sequence[str] = (),
        most_mib: int = 8192,
    ) -> None:
        self.folder = folder
        self.pieces = tuple(pieces)
        self.incomplete = tuple(incomplete)
        self._most_bytes = most_mib << 20

    def __len__(self) -> int:
        return sum(piece.count for piece in self.pieces)

    def __repr__(self) -> str:
        requests = counted(len({piece.record.request for piece in self.pieces}), "request")
        return f"<{counted(len(self), 'row')} of {requests} in {self.folder}>"

    @property
    def records(self) -> tuple[RecordLabels, ...]:
        """Return the labels of the records that rows were chosen of."""
        found = {(piece.path, piece.index[0]): piece.record for piece in self.pieces}
        return tuple(found.values())

    @cached_property
    def rows(self) -> torch.Tensor:
        """Return the rows [N, H] in their stored dtype.

        Raises E278 where they differ in width or dtype, E277 where they are too many, and E273
        where a file is damaged.
        """
        import torch

        from interv.sinks.container import ROW_DTYPES

        kinds = {(piece.part.dtype, piece.part.shape[1]) for piece in self.pieces}
        if len(kinds) > 1:
            shown = ", ".join(sorted(f"{dtype} of width {width}" for dtype, width in kinds))
            message = "these rows are of several kinds and are not one tensor"
            helps = ("choose those of one model: program=…, request=…",)
            raise IntervError("E278", message, notes=(f"found: {shown}",), helps=helps)
        dtype, width = next(iter(kinds))
        self._check_size(len(self) * width * ELEMENT_BYTES[dtype])
        out = torch.empty((len(self), width), dtype=ROW_DTYPES[dtype])
        self._fill(out, lambda file, one: file.rows(one.part, one.start, one.stop))
        return out

    @cached_property
    def position(self) -> torch.Tensor:
        """Return the absolute positions of the rows, int64 [N]."""
        return self._tokens(lambda file, one: file.position(one.part)[one.start : one.stop])

    @cached_property
    def token_id(self) -> torch.Tensor:
        """Return the ids of the tokens that were fed at those positions, int64 [N]."""
        return self._tokens(lambda file, one: file.token_id(one.part)[one.start : one.stop])

    @cached_property
    def layer(self) -> torch.Tensor:
        """Return the layers of the rows, int64 [N]."""
        return self._numbers(lambda one: one.part.layer)

    @cached_property
    def sample(self) -> torch.Tensor:
        """Return which of its request's n samples each row is of, int64 [N]."""
        return self._numbers(lambda one: one.record.sample)

    @cached_property
    def after(self) -> torch.Tensor:
        """Return whether each row is the stream after its site's edits, bool [N]."""
        return self._numbers(lambda one: one.part.after).bool()

    @cached_property
    def request(self) -> npt.NDArray[np.object_]:
        """Return the clients' ids of the requests, [N]."""
        return self._texts(lambda one: one.record.request)

    @cached_property
    def site(self) -> npt.NDArray[np.object_]:
        """Return the sites of the rows, [N]."""
        return self._texts(lambda one: one.part.site)

    @cached_property
    def tag(self) -> npt.NDArray[np.object_]:
        """Return the tags of the requests, [N]."""
        return self._texts(lambda one: one.record.tag)

    @cached_property
    def program(self) -> npt.NDArray[np.object_]:
        """Return the programs whose statements took the rows, [N]."""
        return self._texts(lambda one: one.record.program)

    def _check_size(self, size: int) -> None:
        if size > self._most_bytes:
            message = f"these rows take {size >> 20} MiB, {self._most_bytes >> 20} are allowed"
            helps = ("choose fewer, or allow more: most_mib=…",)
            raise IntervError("E277", message, helps=helps)

    def _fill(self, out: torch.Tensor, read: Callable[[CaptureFile, Piece], torch.Tensor]) -> None:
        start = 0
        for path, pieces in groupby(self.pieces, key=lambda one: one.path):
            with CaptureFile(path) as file:
                for piece in pieces:
                    _still_there(file, piece)
                    out[start : start + piece.count] = read(file, piece)
                    start += piece.count

    def _tokens(self, read: Callable[[CaptureFile, Piece], torch.Tensor]) -> torch.Tensor:
        import torch

        out = torch.empty(len(self), dtype=torch.int64)
        self._fill(out, read)
        return out

    def _numbers(self, label: Callable[[Piece], int]) -> torch.Tensor:
        import torch

        counts = torch.tensor([one.count for one in self.pieces])
        return torch.tensor([label(one) for one in self.pieces]).repeat_interleave(counts)

    def _texts(self, label: Callable[[Piece], str]) -> npt.NDArray[np.object_]:
        texts: npt.NDArray[Any] = np.array([label(one) for one in self.pieces], dtype=object)
        return np.repeat(texts, [one.count for one in self.pieces])


def load_captures(
    folder: str | Path,
    *,
    request: Wanted = None,
    tag: Wanted = None,
    program: Wanted = None,
    site: Wanted = None,
    layer: int | Collection[int] | None = None,
    sample: int | None = None,
    after: bool | None = None,
    position: int | slice | None = None,
    most_mib: int = 8192,
) -> Captures:
    """Choose rows of a folder that a filesystem sink has written, by their labels.

    `position` is absolute, one or a slice without a step. Labels are read and checked here, rows
    when they are asked for, and at most `most_mib` of them. Raises E275 where the folder holds
    nothing, E274 and E279 where its manifest is not true, E273 for a damaged file, and E276 where
    no row has these labels.
    """
    found = scan(Path(folder))
    raise_all(found.errors)
    layers = {layer} if isinstance(layer, int) else layer
    wanted = Query(
        request=texts(request),
        tag=texts(tag),
        program=texts(program),
        site=texts(site),
        layer=None if layers is None else frozenset(layers),
        sample=sample,
        after=after,
        position=positions(position),
    )
    pieces: list[Piece] = []
    for file in found.files:
        if any(any(True for _ in wanted.parts(one)) for one in file.records()):
            pieces += _pieces(file, wanted)
    if not pieces:
        raise nothing_found([record for file in found.files for record in file.records()], wanted)
    return Captures(found.path, pieces, found.incomplete, most_mib)


def _pieces(found: Found, wanted: Query) -> Iterator[Piece]:
    with CaptureFile(found.path) as file:
        if found.listed is not None and file.records != found.listed.records:
            message = f"'{found.path}' has other labels than the manifest says"
            raise IntervError("E274", message, helps=("it was replaced, or the manifest was",))
        for i, record in enumerate(file.records):
            for j in wanted.parts(record):
                part = record.parts[j]
                start, stop = 0, part.shape[0]
                if wanted.position is not None:
                    start, stop = _range(file.position(part), wanted.position)
                if start < stop:
                    yield Piece(found.path, (i, j), record, part, start, stop)


def _range(position: torch.Tensor, wanted: slice) -> tuple[int, int]:
    import torch

    ends = torch.tensor([wanted.start, wanted.stop])
    start, stop = torch.searchsorted(position, ends).tolist()
    return start, stop


def _still_there(file: CaptureFile, piece: Piece) -> None:
    i, j = piece.index
    if len(file.records) <= i or file.records[i] != piece.record:
        raise file.damaged("it was replaced after its labels were read")
    assert file.records[i].parts[j] == piece.part
