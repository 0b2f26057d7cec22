"""Build the C form of the update once for this machine and load it.

The shared object lies in the user's cache under the digest of source, flags, compiler and CPU,
so another machine or another compiler never meets a stale one.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path

from interv.cache import cache_folder
from interv.errors import IntervError

_FLAGS = ("-O3", "-march=native", "-std=gnu11", "-shared", "-fPIC")
_COMPILERS = ("gcc", "clang", "cc")


@functools.cache
def library() -> ctypes.CDLL:
    """Return the loaded library, building it on first use (about a second).

    Raises IntervError E510 where no C compiler is found or the build fails.
    """
    source = resources.files("interv.codegen.kernels").joinpath("update.c").read_text()
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise IntervError(
            "E510",
            "no C compiler was found to build the CPU form of the update",
            notes=[f"looked for: {', '.join(_COMPILERS)}"],
            helps=["install one, for example with 'apt-get install gcc'"],
        )
    target = _folder() / f"update-{_digest(source, compiler)}.so"
    if not target.exists():
        _build(compiler, source, target)
    return ctypes.CDLL(str(target))


def _folder() -> Path:
    folder = cache_folder() / "native"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _digest(source: str, compiler: str) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    cpu = platform.processor() + platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        cpu += "".join(sorted({line for line in lines if line.startswith(("flags", "model name"))}))
    parts = (source, " ".join(_FLAGS), compiler, version, cpu)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def _build(compiler: str, source: str, target: Path) -> None:
    """Compile beside the target and move the result there, so that a reader never sees half."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        text, built = Path(folder) / "update.c", Path(folder) / "update.so"
        text.write_text(source)
        command = [compiler, *_FLAGS, "-o", str(built), str(text), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise IntervError(
                "E510",
                f"the CPU form of the update does not build with {compiler}",
                notes=done.stderr.strip().splitlines()[-5:],
            )
        os.replace(built, target)
