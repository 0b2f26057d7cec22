"""The page of features tells the truth: tests that it names exist, what it calls refused is."""

from __future__ import annotations

import ast
import re
from types import SimpleNamespace
from typing import Any

from error_codes import HOLE, uses

from interv.errors import IntervErrors
from interv.runtime.frontend.start import _refuse
from tests.repo.files import ROOT

PAGE = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")


def rows(section: str) -> list[list[str]]:
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def test_every_feature_that_is_right_has_a_test_that_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) >= len(rows("Right")) > 15
    for file, name in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert name in {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}, file
    assert all(re.fullmatch(r"`tests/\S+::\w+`", row[-1]) for row in rows("Right"))


def test_every_feature_that_is_refused_has_a_message_of_its_code() -> None:
    found = uses(ROOT)
    for _, code, message in rows("Refused"):
        said = [one.message for one in found if one.code == code and one.message]
        patterns = [".+".join(map(re.escape, one.split(HOLE))) for one in said]
        assert any(re.fullmatch(one, message) for one in patterns), message


def everything_on() -> tuple[Any, Any]:
    """Return a configuration and a bundle with everything at once that a start refuses."""
    from vllm.config import CompilationMode

    config = SimpleNamespace(
        parallel_config=SimpleNamespace(
            enable_dbo=False,
            use_ubatching=True,
            pipeline_parallel_size=2,
            prefill_context_parallel_size=2,
        ),
        compilation_config=SimpleNamespace(
            pass_config=SimpleNamespace(enable_sp=True), mode=CompilationMode.STOCK_TORCH_COMPILE
        ),
        cache_config=SimpleNamespace(kv_sharing_fast_prefill=True),
        model_config=SimpleNamespace(is_encoder_decoder=True),
        kv_transfer_config=object(),
        speculative_config=SimpleNamespace(enable_adaptive_verification=True),
    )
    return config, SimpleNamespace(captures=("one",), programs=("p",), stores=lambda _: 1)


def test_a_start_refuses_what_the_page_says() -> None:
    try:
        _refuse(*everything_on())
    except IntervErrors as caught:
        raised = {(one.code, one.message) for one in caught.errors}
    assert raised == {(code, said) for _, code, said in rows("Refused") if code == "E503"}
