"""Building the C form: once, whole, and with a clear word where it cannot be built."""

from __future__ import annotations

from pathlib import Path

import pytest

from interv.codegen.kernels import native
from interv.errors import IntervError

# `library` remembers what it loaded; these tests ask it anew.
build = native.library.__wrapped__


def compiler(folder: Path, script: str) -> Path:
    folder.mkdir()
    path = folder / "gcc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "interv" / "native"


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(IntervError) as caught:
        build()
    assert str(caught.value) == (
        "error[E510]: no C compiler was found to build the CPU form of the update\n"
        "  = looked for: gcc, clang, cc\n"
        "  = install one, for example with 'apt-get install gcc'"
    )


def test_a_compiler_that_fails(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = '[ "$1" = --version ] && echo 1 && exit\necho "no space left" >&2\nexit 1'
    path = compiler(tmp_path / "bin", fails)
    monkeypatch.setenv("PATH", str(path.parent))
    with pytest.raises(IntervError) as caught:
        build()
    assert str(caught.value) == (
        f"error[E510]: the CPU form of the update does not build with {path}\n  = no space left"
    )
    assert list(cache.iterdir()) == []


def test_it_is_built_once_and_nothing_else_is_left(cache: Path) -> None:
    first = build()
    (made,) = cache.iterdir()
    written = made.stat().st_mtime_ns
    again = build()
    assert [path.name for path in cache.iterdir()] == [made.name]
    assert made.stat().st_mtime_ns == written
    assert first["interv_update_f32_f32"]
    assert again["interv_update_bf16_f32"]


def test_another_compiler_builds_its_own(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build()
    path = compiler(tmp_path / "bin", 'PATH=/usr/bin:/bin exec cc "$@"')
    monkeypatch.setenv("PATH", str(path.parent))
    build()
    assert len(list(cache.iterdir())) == 2
