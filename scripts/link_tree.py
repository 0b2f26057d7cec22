"""Lay the packages out as they install, in `build/tree`, for tools that cannot read the map.

    python scripts/link_tree.py [ROOT]

`[tool.setuptools.package-dir]` of pyproject.toml says where each package lies; mypy and
import-linter want `interv/dsl/…` on disk. The tree is made of links, so it never goes stale.
"""

from __future__ import annotations

import shutil
import sys
import tomllib
from pathlib import Path

TREE = Path("build/tree")


def link_tree(root: Path) -> Path:
    """Make the tree anew under `root` and return its folder."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    folders: dict[str, str] = project["tool"]["setuptools"]["package-dir"]
    tree = root / TREE
    shutil.rmtree(tree, ignore_errors=True)
    for package, folder in sorted(folders.items()):
        _fill(tree.joinpath(*package.split(".")), (root / folder).resolve())
    return tree


def _fill(target: Path, source: Path) -> None:
    """Link the files of one package; folders are packages of their own."""
    target.mkdir(parents=True)
    for item in source.iterdir():
        if item.is_file():
            (target / item.name).symlink_to(item)


if __name__ == "__main__":
    link_tree(Path(sys.argv[1]) if len(sys.argv) > 1 else Path.cwd())
