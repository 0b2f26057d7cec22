"""Records as the bytes of one safetensors file, and the labels and tensors that a file holds.

A file's `__metadata__` has `format` and `records`: the labels of its records as JSON. Its tensors
are `SITE.LAYER[.after].rows` (or `.us` and `.v`, or `.q` and `.scale`), and the int64 tensors
`tokens.N.position` and `.token_id`, which parts with the same tokens share. In a file of several
records each name begins with the number of its record: `7.post_block.12.rows`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, cast, get_args

import torch

from interv.sinks.compress import Packed, Quantize, pack, unpack
from interv.sinks.record import Captured, Part
from interv.sinks.schema import FORMAT, Contents, PartLabels, RecordLabels, RowType, Tokens

DTYPE_NAMES: Mapping[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.int64: "I64",
    torch.int8: "I8",
}
ROW_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items() if name in get_args(RowType)}


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A file before it is written: tensors by name, and the labels that say what they are."""

    tensors: Mapping[str, torch.Tensor]
    records: tuple[RecordLabels, ...]
    tokens: Mapping[str, Tokens]

    @property
    def bytes(self) -> int:
        """Return the bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def encode(captured: Captured, quantize: Quantize = "none", *, exact: bool = False) -> Encoded:
    """Return one record as tensors and labels, its rows in the form it asks for.

    `exact` keeps them as they are, whatever the statement's rank.
    """
    tensors: dict[str, torch.Tensor] = {}
    tokens: dict[str, Tokens] = {}
    shared: list[tuple[str, Part]] = []
    parts = []
    for part in captured.parts:
        assert part.rows.ndim == 2
        assert part.position.shape == part.token_id.shape == part.rows.shape[:1]
        group = next((name for name, one in shared if _same_tokens(one, part)), None)
        if group is None:
            group = f"tokens.{len(shared)}"
            shared.append((group, part))
            tokens[group] = tokens_at(part.position, part.token_id)
            tensors[f"{group}.position"] = part.position
            tensors[f"{group}.token_id"] = part.token_id
        packed = pack(part.rows, None if exact else captured.rank, quantize)
        name = f"{part.site}.{part.layer}{'.after' if part.after else ''}"
        tensors |= {f"{name}.{key}": value for key, value in packed.tensors.items()}
        parts.append(_part_labels(part, packed, name, group))
    return Encoded(tensors, (_record_labels(captured, parts),), tokens)


def merge(files: Sequence[Encoded]) -> Encoded:
    """Return the records of several as one file; the names of record r begin with `r.`."""
    tensors: dict[str, torch.Tensor] = {}
    tokens: dict[str, Tokens] = {}
    records: list[RecordLabels] = []
    for file in files:
        assert len(file.records) == 1, "records are merged once"
        lead = f"{len(records)}."
        tensors |= {lead + name: tensor for name, tensor in file.tensors.items()}
        tokens |= {lead + name: one for name, one in file.tokens.items()}
        record = file.records[0]
        parts = tuple(
            one.model_copy(update={"rows": lead + one.rows, "tokens": lead + one.tokens})
            for one in record.parts
        )
        records.append(record.model_copy(update={"parts": parts}))
    return Encoded(tensors, tuple(records), tokens)


def write(file: IO[bytes], encoded: Encoded) -> int:
    """Write a safetensors file to an open file, and return its bytes.

    Tensors follow each other without a copy of all of them being made; those of the largest
    elements come first, so that each is aligned.
    """
    order = sorted(encoded.tensors.items(), key=lambda one: (-one[1].element_size(), one[0]))
    contents = Contents(records=encoded.records)
    labels = json.dumps(contents.model_dump(mode="json")["records"], separators=(",", ":"))
    header: dict[str, object] = {"__metadata__": {"format": FORMAT, "records": labels}}
    start = 0
    for name, tensor in order:
        stop = start + tensor.nbytes
        header[name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for _, tensor in order:
        file.write(_data(tensor))
    return 8 + len(text) + start


def rebuild(record: RecordLabels, parts: Iterable[Part]) -> Captured:
    """Return a record from its labels and its parts."""
    labels = record.model_dump(exclude={"parts"})
    return Captured(**labels, parts=tuple(parts))


def rows_of(part: PartLabels, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the rows of a part from the tensors of its form, in the stored dtype."""
    return unpack(part.form, tensors, ROW_DTYPES[part.dtype])


def tokens_at(positions: torch.Tensor, token_ids: torch.Tensor) -> Tokens:
    """Return ascending positions, int64 [n], as runs, with the ids of their tokens."""
    runs: list[tuple[int, int]] = []
    for position in positions.tolist():
        if runs and runs[-1][1] == position:
            runs[-1] = (runs[-1][0], position + 1)
        else:
            runs.append((position, position + 1))
    return Tokens(positions=tuple(runs), token_ids=tuple(token_ids.tolist()))


def _record_labels(captured: Captured, parts: Sequence[PartLabels]) -> RecordLabels:
    return RecordLabels(
        request=captured.request,
        sample=captured.sample,
        tag=captured.tag,
        program=captured.program,
        statement=captured.statement,
        digest=captured.digest,
        model=captured.model,
        prompt_tokens=captured.prompt_tokens,
        tokens=captured.tokens,
        ended=captured.ended,
        rank=captured.rank,
        parts=tuple(parts),
    )


def _part_labels(part: Part, packed: Packed, name: str, group: str) -> PartLabels:
    return PartLabels(
        site=cast(Any, part.site),
        layer=part.layer,
        after=part.after,
        dtype=cast(RowType, DTYPE_NAMES[part.rows.dtype]),
        shape=(part.rows.shape[0], part.rows.shape[1]),
        form=packed.form,
        rank=packed.rank,
        error=packed.error,
        why=packed.why,
        rows=name,
        tokens=group,
    )


def _same_tokens(one: Part, other: Part) -> bool:
    return torch.equal(one.position, other.position) and torch.equal(one.token_id, other.token_id)


def _data(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().contiguous().reshape(-1)
    # numpy has no bfloat16 and no fp8, so that their bytes are written instead.
    return memoryview(cast(Any, flat.view(torch.uint8).numpy()))
