"""The folder map of pyproject.toml, the link tree made of it, and who imports what."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Container, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from link_tree import link_tree

from tests.repo.files import PACKAGES, PROJECT, ROOT, STAGES, name_of, python_files

# The only files that name a module of vLLM. `compat` holds what may move; `generate` is a program
# as a user writes it, and takes the two public names of the package itself.
KNOWS_VLLM = {
    "runtime/compat/classes.py": None,
    "runtime/compat/configuration.py": None,
    "runtime/compat/new_blocks.py": None,
    "runtime/compat/requests.py": None,
    "runtime/compat/worker.py": None,
    # Classes that derive from vLLM's own, which its registries ask for.
    "runtime/kv/worker/flash.py": None,
    "runtime/kv/scheduler/manager.py": None,
    "runtime/kv/worker/on_cpu.py": None,
    "runtime/kv/scheduler/spec.py": None,
    "runtime/kv/worker/triton.py": None,
    "interv/measuring/generate.py": {"vllm"},
    "interv/measuring/measure.py": {"vllm"},
    "interv/extract/forward.py": {"vllm"},
}


def test_every_folder_of_code_is_a_package_that_installs() -> None:
    folders = {
        str(file.parent.relative_to(ROOT)).replace("interv/", "").replace("/", ".")
        for file in python_files(*STAGES)
        if file.name == "__init__.py"
    }
    expected = {"interv" if name == "interv" else f"interv.{name}" for name in folders}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == expected
    assert set(PACKAGES) == expected


def test_the_map_names_the_folders() -> None:
    for package, folder in PACKAGES.items():
        assert (ROOT / folder / "__init__.py").is_file(), package


def test_the_link_tree_has_every_module_once(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    for folder in ("interv", "dsl", "passes", "codegen", "runtime"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    tree = link_tree(tmp_path)
    assert link_tree(tmp_path) == tree  # an old one is replaced
    found = [file.resolve() for file in tree.rglob("*.py")]
    assert sorted(found) == sorted(python_files(*STAGES))
    assert (tree / "interv/dsl/parser.py").resolve() == ROOT / "dsl/parser.py"


def test_imports_are_absolute_and_of_the_package() -> None:
    wrong = [
        f"{name_of(file)}: {module}"
        for file in python_files(*STAGES)
        for module in imports(file)
        if module.split(".")[0] in ("", "dsl", "passes", "codegen", "runtime", "tests")
    ]
    assert wrong == []


def test_one_folder_knows_vllm() -> None:
    found: dict[str, set[str]] = {}
    for file in python_files(*STAGES):
        if named := {name for name in imports(file) if name.split(".")[0] == "vllm"}:
            found[name_of(file)] = named
    assert set(found) == set(KNOWS_VLLM)
    for name, allowed in KNOWS_VLLM.items():
        assert allowed is None or found[name] == allowed


def imports(file: Path) -> Iterator[str]:
    """Yield every module that a file imports, wherever it does; '' for a relative one."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "" if node.level else str(node.module)


def test_no_module_needs_itself() -> None:
    """Not even by what it imports late or for types alone; the lazy face names everything."""
    modules = {module_of(file): file for file in python_files(*STAGES)}
    needs = {name: set(needed(file, modules)) for name, file in modules.items() if name != "interv"}
    TopologicalSorter(needs).prepare()  # raises CycleError with the modules of a circle


def module_of(file: Path) -> str:
    package = next(name for name, folder in PACKAGES.items() if ROOT / folder == file.parent)
    return package if file.stem == "__init__" else f"{package}.{file.stem}"


def needed(file: Path, modules: Container[str]) -> Iterator[str]:
    """Yield the modules of ours that a file imports, or imports something of."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            for name in (f"{node.module}.{alias.name}" for alias in node.names):
                yield name if name in modules else str(node.module)


def test_the_face_is_lazy_and_whole() -> None:
    code = (
        "import sys, interv\n"
        "own = sorted(name for name in sys.modules if name.startswith('interv.'))\n"
        "assert own == [], own\n"
        "for name in interv.__all__: assert getattr(interv, name) is not None, name\n"
        "heavy = {'torch', 'vllm'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert set(interv.__all__) <= set(dir(interv))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
