"""The tables of a page that a script writes: each between `<!-- NAME -->` and `<!-- /NAME -->`."""

from __future__ import annotations

import re
from collections.abc import Mapping


def filled(page: str, tables: Mapping[str, str]) -> str:
    """Return the page with every table as it is now; raise KeyError for one that is not known."""

    def put(found: re.Match[str]) -> str:
        name = found["name"]
        return f"<!-- {name} -->\n\n{tables[name]}\n\n<!-- /{name} -->"

    return re.sub(r"<!-- (?P<name>\w+) -->.*?<!-- /(?P=name) -->", put, page, flags=re.S)
