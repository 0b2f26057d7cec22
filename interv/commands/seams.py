"""What `interv doctor` says of vLLM's internals: which are there, and by which way each is used."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

from interv.commands.findings import MARKS, Finding
from interv.runtime import compat
from interv.terminal import terminal

_NEEDED_BY: Mapping[compat.Need, str] = {
    "interv": "everything",
    "kv": "KV policies",
    "http": "the server",
}
WHAT = "seams"


def look_at_seams() -> Finding:
    """Judge whether this vLLM has what interv is attached to; no model is loaded."""
    if importlib.util.find_spec("vllm") is None:
        return Finding(WHAT, "fail", "no vLLM")
    found = compat.look()
    there = f"{sum(one.way is not None for one in found)} of {len(found)} are there"
    if (error := compat.fault()) is not None:
        why = "; ".join((error.message, *error.notes[:-1]))
        return Finding(WHAT, "fail", f"{there}: {why}", f"install {compat.tried()}")
    lost = [
        f"none for {who}: {lacks}"
        for need, who in _NEEDED_BY.items()
        if (lacks := compat.lacks(need))
    ]
    if lost:
        return Finding(WHAT, "warn", "; ".join([there, *lost]), f"install {compat.tried()}")
    if compat.is_newer():
        return Finding(WHAT, "warn", f"{there}, but interv was tried on {compat.tried()}")
    older = [one.seam.title for one in found if one.way]
    more = f"; in the way of an older vLLM: {', '.join(older)}" if older else ""
    return Finding(WHAT, "ok", f"{there}{more}")


def show_seams() -> None:
    """Print a table of all seams: who needs each, and the first name of the way that was found."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading in ("", "seam", "process", "needed by", "way", "by"):
        table.add_column(heading, overflow="fold")
    for one in compat.look():
        mark = Text(*MARKS["ok" if one.way is not None else "fail"])
        way = "none" if one.way is None else f"{one.way + 1} of {len(one.seam.candidates)}"
        seam = one.seam
        needed = _NEEDED_BY[seam.needed_by]
        table.add_row(mark, seam.title, seam.process, needed, way, _told(one.names))
    terminal().print(table)


def _told(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0].removeprefix('vllm.')}{more}"
