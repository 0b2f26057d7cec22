"""A made-up vLLM, with nothing but the names that interv relies on: what is wrapped without one?

Run as a program it plays every part of `test_made_up_vllm.py` in one process and prints a report.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interv.errors import IntervError
from interv.runtime.compat import lookup, version
from interv.runtime.compat.seams import SEAMS, Name, Seam

VERSION = "9.9.9"
# What some are beside functions.
KINDS = {
    "add_cli_args": "staticmethod",
    "from_cli_args": "classmethod",
    "needs_kv_cache_zeroing": "property",
}


def make(folder: Path, ways: Sequence[tuple[Name, ...]]) -> None:
    """Write a package `vllm` that has these names."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "vllm").mkdir(parents=True)
    (folder / "vllm" / "__init__.py").touch()
    modules: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name in (one for names in ways for one in names):
        owner, _, member = name.member.rpartition(".")
        modules[name.module][owner] |= set() if name.attribute else {member}
    for module, owners in modules.items():
        path = folder.joinpath(*module.split(".")).with_suffix(".py")
        if any(other.startswith(f"{module}.") for other in modules):
            path = path.with_suffix("") / "__init__.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(_lines(owners)))
    for package in {one.parent for one in folder.rglob("*.py")}:
        for around in (package, *package.parents):
            if around.is_relative_to(folder / "vllm"):
                (around / "__init__.py").touch()
    info = folder / f"vllm-{VERSION}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}\n")


def _lines(owners: dict[str, set[str]]) -> list[str]:
    lines = []
    for owner, members in owners.items():
        if owner:
            lines += [f"class {owner}:", "    ours = False"]
        indent = "    " if owner else ""
        for member in sorted(members):
            if member[0].isupper() and not owner:
                lines += [f"class {member}:", "    pass"]
            else:
                lines += [f"{indent}@{kind}"] if (kind := KINDS.get(member)) else []
                lines += [f"{indent}def {member}(*args, **kwargs):", f"{indent}    return None"]
    return lines


def play(folder: Path, ways: Sequence[tuple[Name, ...]], breaks: str = "") -> dict[str, Any]:
    """Install a vLLM with these names, register, and tell what is wrapped and what is said.

    `breaks` is a file of it that has all its names and cannot be imported.
    """
    from interv.runtime import plugin
    from interv.runtime.compat import chunks, waiting

    make(folder, ways)
    if breaks:
        with (folder / breaks).open("a") as file:
            file.write("\nraise OSError('no such device')\n")
    for name in [one for one in sys.modules if one.partition(".")[0] == "vllm"]:
        del sys.modules[name]
    for known in (lookup.look, lookup._text, version._say_newer):
        known.cache_clear()
    version._FAULTS.clear()
    waiting.waiting_seams.cache_clear()
    chunks.chunk_seams.cache_clear()
    said = _Said()
    version.log.addHandler(said)
    plugin.register()
    version.log.removeHandler(said)
    return {
        "wrapped": sorted(_wrapped()),
        "said": said.lines,
        "fault": _error(version.check_version),
        "engine_args": _error(version.check_arguments),
        "server": _error(version.check_server),
        "lacks": version.lacks("kv"),
    }


class _Said(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _wrapped() -> list[str]:
    """Return what is wrapped in the modules of vLLM that are loaded."""
    found = []
    for module, loaded in sys.modules.items():
        if module.partition(".")[0] != "vllm":
            continue
        for owner, one in [("", loaded), *vars(loaded).items()]:
            members = vars(one).items() if isinstance(one, type) or not owner else ()
            for name, member in members:
                inner = getattr(member, "fget", None) or getattr(member, "__func__", member)
                if hasattr(inner, "_interv_seam"):
                    found.append(f"{module}:{owner}.{name}" if owner else f"{module}:{name}")
    return found


def _error(look: Any) -> str:
    try:
        look()
    except IntervError as error:
        return str(error)
    return ""


def without(seam: Seam) -> list[tuple[Name, ...]]:
    """Return the newest ways of all seams, without a name that each way of this one needs."""
    gone = [_needed(names) for names in seam.candidates]
    ways = [one.candidates[0] for one in SEAMS]
    return [tuple(one for one in names if not one.path.startswith((*gone,))) for names in ways]


def _needed(names: Sequence[Name]) -> str:
    """Return a name that the lookup sees: one that is no attribute, or else a whole class."""
    seen = [one.path for one in names if not one.attribute and not one.path.endswith("__")]
    return seen[0] if seen else names[0].path.rpartition(".")[0]


def main(folder: Path) -> None:
    """Play all parts: with everything, with the oldest ways, and without each seam in turn."""
    sys.path.insert(0, str(folder))
    logging.getLogger("vllm.interv").setLevel(logging.DEBUG)
    newest = [one.candidates[0] for one in SEAMS]
    report = {
        "all": play(folder, newest),
        "oldest": play(folder, [one.candidates[-1] for one in SEAMS]),
        "nothing": play(folder, []),
        "broken": play(folder, newest, breaks="vllm/v1/engine/output_processor.py"),
        "each": {one.title: play(folder, without(one)) for one in SEAMS},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
