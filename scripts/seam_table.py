"""Write tests/compat/vllm_names.json: the names of vLLM that interv uses, version by version.

    python scripts/seam_table.py              make it anew for the versions that it has
    python scripts/seam_table.py --add 0.34.0 take up another one

For each name of `runtime/compat/seams.py`, and each that the runtime imports, it holds the file
that has it, what it is and its signature; versions that follow each other and agree are one line.
The wheels are downloaded one after another, and only their Python files are kept: a second run
downloads nothing. Tests hold the runtime against the table, without torch or vLLM. The tables of
docs/versions.md are written, too.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

from name_table import TABLE, Span, Table, read_table, written
from python_names import Found
from versions_page import write_page
from vllm_uses import vllm_uses
from vllm_wheels import NoWheel, package

from interv.cache import cache_folder
from interv.files import replacing
from interv.progress import Progress
from interv.runtime.compat.seams import SEAMS

_SUMMARY = "Write the table of vLLM's names, and the tables of docs/versions.md."


def wanted(root: Path) -> list[str]:
    """Return the names that the table is about, sorted."""
    declared = {name.path for seam in SEAMS for way in seam.candidates for name in way}
    return sorted(declared | {use.name for use in vllm_uses(root)})


def make_table(versions: Sequence[str], names: Sequence[str], progress: Progress) -> Table:
    """Look every name up in every version. Raises NoWheel for a version that no index has."""
    found: dict[str, dict[str, Found]] = {name: {} for name in names}
    for version in versions:
        with package(version, cache_folder(), progress) as files:
            progress.step(f"vLLM {version}: looking for {len(names)} names")
            for name in names:
                if (one := files.find(name)) is not None:
                    found[name][version] = one
    spans = {name: list(spans_of(versions, known)) for name, known in found.items()}
    return Table(tuple(versions), spans)


def spans_of(versions: Sequence[str], known: Mapping[str, Found]) -> Iterator[Span]:
    """Yield what a name is, a span for versions that follow each other and agree."""
    first = ""
    for before, version in zip(["", *versions], [*versions, ""], strict=True):
        if known.get(before) == known.get(version):
            continue
        if before in known:
            yield Span(first, before if version else "", *astuple(known[before]))
        first = version


def ordered(versions: Sequence[str]) -> list[str]:
    """Return versions from the oldest to the newest, each once."""
    return sorted(set(versions), key=lambda one: [int(part) for part in re.findall(r"\d+", one)])


def main(arguments: Sequence[str], root: Path) -> int:
    """Write the table of the repository at `root`; return the exit code."""
    parser = argparse.ArgumentParser(prog="seam_table.py", description=_SUMMARY)
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
    write_page(root)
    print(f"{TABLE}: {len(table.names)} names, vLLM {table.versions[0]} to {table.versions[-1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path.cwd()))
