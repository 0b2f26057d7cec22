"""Write the tables of docs/versions.md: which seams each version of vLLM has, and by which way.

    python scripts/versions_page.py

They come from the table of names that `seam_table.py` makes, which calls this, too. Each stands
between `<!-- NAME -->` and `<!-- /NAME -->`; a test compares the page with what this makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from name_table import Table, read_table
from page_tables import filled

from interv.runtime.compat.seams import SEAMS, Name, Seam

PAGE = Path("docs/versions.md")
NEEDS: Mapping[str, str] = {
    "interv": "edits, requests, captures",
    "http": "what a server does over HTTP",
    "kv": "KV policies",
}


def first_way(table: Table, seam: Seam, version: str) -> int | None:
    """Return the newest way of a seam that a version has, counted from 0; None for none."""
    ways = enumerate(seam.candidates)
    return next((i for i, way in ways if all(table.find(one.path, version) for one in way)), None)


def tables(table: Table) -> dict[str, str]:
    """Return the tables of the page."""
    return {
        "found": "\n".join(_found(table)),
        "ways": "\n".join(_ways(table)),
    }


def _found(table: Table) -> Iterator[str]:
    columns = ["needed by", "names", *map(_short, table.versions)]
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for need, text in NEEDS.items():
        seams = [seam for seam in SEAMS if seam.needed_by == need]
        names = {name.path for seam in seams for way in seam.candidates for name in way}
        counts = [
            sum(first_way(table, seam, version) is not None for seam in seams)
            for version in table.versions
        ]
        cells = (f"{count} of {len(seams)}" for count in counts)
        yield f"| {text} | {len(names)} | {' | '.join(cells)} |"


def _ways(table: Table) -> Iterator[str]:
    yield "| seam | process | versions | way |"
    yield "|---|---|---|---|"
    for seam in SEAMS:
        if len(seam.candidates) == 1:
            continue
        taken = {version: first_way(table, seam, version) for version in table.versions}
        title = f"{seam.title} | {seam.process}"
        for number in range(len(seam.candidates)):
            versions = [_short(version) for version, way in taken.items() if way == number]
            span = f"{versions[0]} to {versions[-1]}" if versions else "none"
            names = ", ".join(f"`{_shown(name)}`" for name in _own(seam, number))
            yield f"| {title} | {span} | {names} |"
            title = " | "


def _short(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _shown(name: Name) -> str:
    """Return a member with its class, or a module's with the end of the module's name."""
    module, _, member = name.path.partition(":")
    return member if "." in member else f"{'.'.join(module.split('.')[-2:])}:{member}"


def _own(seam: Seam, number: int) -> list[Name]:
    """Return the names of one way that no other has."""
    others = {name for i, way in enumerate(seam.candidates) if i != number for name in way}
    return [name for name in seam.candidates[number] if name not in others]


def write_page(root: Path) -> None:
    """Write the tables of the repository at `root`."""
    page = root / PAGE
    page.write_text(
        filled(page.read_text(encoding="utf-8"), tables(read_table(root))), encoding="utf-8"
    )


if __name__ == "__main__":
    write_page(Path.cwd())
