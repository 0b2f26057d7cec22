"""The table of vLLM's names, version by version: what it holds, and how it is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TypeAlias

from python_names import Found, Kind

TABLE = Path("tests/compat/vllm_names.json")


@dataclass(frozen=True, slots=True)
class Span:
    """What a name is in versions that follow each other, the first and the last included.

    No `last` is the newest, whichever that is: a version that changes nothing changes no line.
    """

    first: str
    last: str
    file: str
    kind: Kind
    form: str

    @property
    def found(self) -> Found:
        """Return what it is in each of them."""
        return Found(self.file, self.kind, self.form)


Spans: TypeAlias = Mapping[str, Sequence[Span]]


@dataclass(frozen=True, slots=True)
class Table:
    """The versions that were read, oldest first; a name without spans is in none of them."""

    versions: tuple[str, ...]
    names: Spans

    def find(self, name: str, version: str) -> Found | None:
        """Return what a name is in a version, None where it is not there."""
        place = self.versions.index
        for span in self.names.get(name, ()):
            last = span.last or self.versions[-1]
            if place(span.first) <= place(version) <= place(last):
                return span.found
        return None


def read_table(root: Path) -> Table:
    """Return the table of the repository at `root`."""
    text = json.loads((root / TABLE).read_text(encoding="utf-8"))
    names = {name: [Span(*span) for span in spans] for name, spans in text["names"].items()}
    return Table(tuple(text["versions"]), names)


def written(table: Table) -> str:
    """Return the table as JSON with a line for each span, so that a diff says what moved."""
    names = ",\n".join(
        f"{json.dumps(name)}: [" + ",".join(f"\n  {_line(span)}" for span in spans) + "]"
        for name, spans in sorted(table.names.items())
    )
    return f'{{\n"versions": {json.dumps(table.versions)},\n"names": {{\n{names}\n}}\n}}\n'


def _line(span: Span) -> str:
    return json.dumps(astuple(span), ensure_ascii=False)
