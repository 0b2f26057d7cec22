"""Write tests/compat/vllm_names.json: the names of vLLM that interv uses, version by version.

    python scripts/seam_table.py              make it anew for the versions that it has
    python scripts/seam_table.py --add 0.34.0 take up another one

For each name of `runtime/compat/seams.py`, and each that the runtime imports, it holds the file
that has it, what it is and its signature; versions that follow each other and agree are one line.
The wheels are downloaded one after another, and only their Python files are kept: a second run
downloads nothing. Tests hold the runtime against the table, without torch or vLLM.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TypeAlias

from python_names import Found, Kind
from vllm_uses import vllm_uses
from vllm_wheels import NoWheel, package

from interv.cache import cache_folder
from interv.files import replacing
from interv.progress import Progress
from interv.runtime.compat.seams import SEAMS

TABLE = Path("tests/compat/vllm_names.json")


@dataclass(frozen=True, slots=True)
class Span:
    """What a name is in versions that follow each other, the first and the last included."""

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
            if place(span.first) <= place(version) <= place(span.last):
                return span.found
        return None


def wanted(root: Path) -> list[str]:
    """Return the names that the table is about, sorted."""
    declared = {name.path for seam in SEAMS for way in seam.candidates for name in way}
    return sorted(declared | {use.name for use in vllm_uses(root)})


def read_table(root: Path) -> Table:
    """Return the table of the repository at `root`."""
    text = json.loads((root / TABLE).read_text(encoding="utf-8"))
    names = {name: [Span(*span) for span in spans] for name, spans in text["names"].items()}
    return Table(tuple(text["versions"]), names)


def make_table(versions: Sequence[str], names: Sequence[str], progress: Progress) -> Table:
    """Look every name up in every version. Raises NoWheel for a version that no index has."""
    found: dict[str, dict[str, Found]] = {name: {} for name in names}
    for version in versions:
        with package(version, cache_folder(), progress) as files:
            progress.step(f"vLLM {version}: looking for {len(names)} names")
            for name in names:
                if (one := files.find(name)) is not None:
                    found[name][version] = one
    spans = {name: list(_spans(versions, known)) for name, known in found.items()}
    return Table(tuple(versions), spans)


def _spans(versions: Sequence[str], known: Mapping[str, Found]) -> Iterator[Span]:
    first = ""
    for before, version in zip(["", *versions], [*versions, ""], strict=True):
        if known.get(before) == known.get(version):
            continue
        if before in known:
            yield Span(first, before, *astuple(known[before]))
        first = version


def written(table: Table) -> str:
    """Return the table as JSON with a line for each span, so that a diff says what moved."""
    names = ",\n".join(
        f"{json.dumps(name)}: [" + ",".join(f"\n  {_line(span)}" for span in spans) + "]"
        for name, spans in sorted(table.names.items())
    )
    return f'{{\n"versions": {json.dumps(table.versions)},\n"names": {{\n{names}\n}}\n}}\n'


def _line(span: Span) -> str:
    return json.dumps(astuple(span), ensure_ascii=False)


def ordered(versions: Sequence[str]) -> list[str]:
    """Return versions from the oldest to the newest, each once."""
    return sorted(set(versions), key=lambda one: [int(part) for part in re.findall(r"\d+", one)])


def main(arguments: Sequence[str], root: Path) -> int:
    """Write the table of the repository at `root`; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="seam_table.py", description="The names of vLLM's versions"
    )
    parser.add_argument("--add", metavar="VERSION", action="append", default=[])
    added: list[str] = parser.parse_args(arguments).add
    before = read_table(root)
    try:
        with Progress() as progress:
            table = make_table(ordered([*before.versions, *added]), wanted(root), progress)
    except NoWheel as error:
        print(f"no wheel: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the table is as it was, and what was downloaded is kept", file=sys.stderr)
        return 130
    with replacing(root / TABLE) as file:
        file.write_text(written(table), encoding="utf-8")
    print(f"{TABLE}: {len(table.names)} names, vLLM {table.versions[0]} to {table.versions[-1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path.cwd()))
