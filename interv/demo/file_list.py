"""A list of a folder's files with their sizes and sha256, to know that it is whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

NAME = "manifest.json"


def write_manifest(folder: Path, recipe: str) -> None:
    """Write the manifest of all files in `folder`; `recipe` says how they were made."""
    files = {
        str(path.relative_to(folder)): {
            "bytes": path.stat().st_size,
            "mtime_ns": path.stat().st_mtime_ns,
            "sha256": sha256_of(path),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != NAME
    }
    text = json.dumps({"recipe": recipe, "files": files}, indent=1)
    (folder / NAME).write_text(text + "\n", encoding="utf-8")


def problems(folder: Path, recipe: str, *, full: bool = False) -> tuple[str, ...]:
    """Return what is wrong with `folder`, nothing where it is whole and of this recipe.

    Contents are read where size or time of change differ from the manifest's, and with `full`
    for every file.
    """
    try:
        known = json.loads((folder / NAME).read_text(encoding="utf-8"))
        files, made = dict(known["files"]), known["recipe"]
    except (OSError, ValueError, KeyError, TypeError):
        return (f"it has no readable {NAME}",)
    if made != recipe:
        return ("it was made by another version",)
    found = (_problem(folder / name, entry, full) for name, entry in files.items())
    return tuple(problem for problem in found if problem)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _problem(path: Path, entry: dict[str, Any], full: bool) -> str:
    if not path.is_file():
        return f"'{path.name}' is missing"
    status = path.stat()
    if status.st_size != entry.get("bytes"):
        return f"'{path.name}' has {status.st_size} bytes instead of {entry.get('bytes')}"
    same_time = status.st_mtime_ns == entry.get("mtime_ns")
    if (full or not same_time) and sha256_of(path) != entry.get("sha256"):
        return f"'{path.name}' has other contents than when it was made"
    return ""
