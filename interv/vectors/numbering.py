"""How a bank numbers its directions: by blocks, or by the hidden states of Transformers.

`hidden_states[0]` is what the embedding gives, the stream entering block 0; `hidden_states[i + 1]`
is the output of block i. Most models of Transformers give the last of them behind the final norm.
"""

from __future__ import annotations

from collections.abc import Mapping

from interv.document.wording import layer_text
from interv.errors import IntervError
from interv.vectors.directions import Vector
from interv.vectors.raw import BadFile

BLOCKS, HIDDEN_STATES = NUMBERINGS = ("blocks", "hidden_states")


def said_rows(beside: Mapping[str, object], facts: Mapping[str, str]) -> str | None:
    """Return the numbering that a file says under `rows`; raise BadFile for one that is none."""
    said = beside.get("rows", facts.get("rows"))
    if said is None:
        return None
    if said not in NUMBERINGS:
        raise BadFile(f"its 'rows' is {str(said)[:40]!r}, not one of: {', '.join(NUMBERINGS)}")
    return str(said)


def by_blocks(
    found: dict[int, Vector] | Vector, rows: int | None, shown: str
) -> tuple[dict[int, Vector], int | None, str]:
    """Return a bank by hidden states as one by blocks, how many blocks it is for, and a note.

    Raises E238 for one direction, which has no numbers, and where nothing but row 0 is there.
    """
    if not isinstance(found, dict):
        raise IntervError(
            "E238",
            f"'{shown}' holds one direction, which 'rows {HIDDEN_STATES}' cannot number",
            helps=("leave 'rows' out: the document says at which layers it is used",),
        )
    moved = {layer - 1: row for layer, row in found.items() if layer}
    if not moved:
        raise IntervError(
            "E238",
            f"'{shown}' holds hidden_states[0] alone, which no block gives",
            notes=("hidden_states[0] is the stream entering block 0: pre_attn[0]",),
        )
    dropped = "; that of hidden_states[0], the embedding, is left out" if 0 in found else ""
    note = f"hidden_states[i + 1] is layer i: layers {layer_text(moved)}{dropped}"
    return moved, None if rows is None else rows - 1, note


def behind_norm(rows: int) -> str:
    """Say what the last row of a bank of so many blocks is."""
    return (
        f"most models give hidden_states[{rows}] behind the final norm: then the direction of "
        f"layer {rows - 1} is of another stream than post_block[{rows - 1}]"
    )
