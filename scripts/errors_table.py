"""Write docs/errors.md: every error code of the source, what it means, an example, who raises it.

    python scripts/errors_table.py

A code has one meaning, which stands in `document_errors.py` or `engine_errors.py`; codes and
modules come from the source. A test compares the page with what this prints, and every example with
the messages of its code.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from document_errors import DOCUMENT_ERRORS
from engine_errors import ENGINE_ERRORS
from error_codes import Use, uses

PAGE = Path("docs/errors.md")

GROUPS: Mapping[str, str] = {
    "E1": "Syntax: the text cannot be read",
    "E2": "Names and types: the document, its files, or a document and a model do not fit",
    "E3": "Invalid intermediate graphs: a bug of interv, please report it",
    "E4": "Lowering: programs that cannot be combined, or are too large",
    "E5": "vLLM, models and the machine",
    "E8": "What people bring, and what of it does not go together: files, words, programs",
}

# code: what it means, an example
MEANINGS: Mapping[str, tuple[str, str]] = {**DOCUMENT_ERRORS, **ENGINE_ERRORS}


def page(found: list[Use]) -> str:
    """Return the page; raise KeyError for a code of the source that has no meaning here."""
    return "".join(f"{line}\n" for line in _lines(found))


def _lines(found: list[Use]) -> Iterator[str]:
    yield "# Errors"
    yield ""
    yield "Every error has a code, which stays the same from version to version, and one meaning."
    yield "This page is written by `scripts/errors_table.py`."
    by_code: dict[str, list[str]] = {}
    for use in found:
        by_code.setdefault(use.code, []).append(use.module)
    for group, title in GROUPS.items():
        yield from ("", f"## {group}xx", "", f"{title}.", "")
        yield from ("| code | meaning | for example | raised in |", "|---|---|---|---|")
        for code in sorted(code for code in by_code if code.startswith(group)):
            meaning, example = MEANINGS[code]
            where = ", ".join(f"`{module}`" for module in dict.fromkeys(by_code[code]))
            yield f"| {code} | {meaning} | {example} | {where} |"


def main(root: Path) -> None:
    """Write the page of the repository at `root`; exit where a code has no meaning yet."""
    found = uses(root)
    if new := sorted({use.code for use in found} - set(MEANINGS)):
        where = "scripts/document_errors.py or engine_errors.py"
        sys.exit(f"give {', '.join(new)} a meaning and an example in {where}")
    (root / PAGE).write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path.cwd())
