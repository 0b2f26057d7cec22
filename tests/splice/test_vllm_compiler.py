"""Under the compiler that CUDA machines use, an edit that does nothing changes no bit.

It is vLLM's own: the graph in pieces, Inductor, IR ops, and vLLM's passes behind Inductor's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from interv.codegen.bundle import Bundle
from interv.compile import compile_documents
from interv.load import load_documents
from interv.model import ModelFacts
from tests.splice.compiled_llama import LAYERS, WIDTH, Run, compiled

# Packages that vLLM imports warn of each other.
pytestmark = pytest.mark.filterwarnings("ignore")
PROGRAMS = {
    "after blocks": "steer a at post_block[*] scale 0.5",
    "after attention": "cap a at post_attn[*] in [-1, 1]",
    "before blocks": "ablate a at pre_attn[*]",
    "everywhere": "steer a at pre_attn[*]  steer a at post_attn[*]  steer a at post_block[*]",
    "some layers": "steer a at post_block[1]  cap a at pre_attn[3] in [, 1]",
    "captured": "capture at post_block[*] to m  capture at post_attn[*] after to m",
}


@pytest.fixture(scope="module", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compile everything anew, and leave nothing behind."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("compiled")
        patch.setenv("VLLM_CACHE_ROOT", str(folder))
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
        yield
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def stock(caches: None) -> Run:
    return compiled("stock")


def bundle(folder: Path, body: str) -> Bundle:
    random = torch.Generator().manual_seed(5)
    vector = torch.randn(WIDTH, generator=random)
    safetensors.torch.save_file({"a": vector}, folder / "a.safetensors")
    document = folder / "d.interv"
    head = 'interv 1\nvector a = "a.safetensors"\nsink m = memory()\n'
    document.write_text(f"{head}program p {{ {body} }}\n")
    facts = ModelFacts("m", "X", WIDTH, LAYERS)
    return compile_documents(load_documents([document]), facts, None, False).bundle


@pytest.mark.parametrize("name", PROGRAMS)
def test_unedited_equals_stock_bit_by_bit(name: str, stock: Run, tmp_path: Path) -> None:
    found = bundle(tmp_path, PROGRAMS[name])
    run = compiled(name.replace(" ", "_"), found)
    assert run.reached == {str(site) for site in found.spliced}
    assert torch.equal(run.rows, stock.rows)
    assert run.pieces == stock.pieces
    if "some" not in name:
        # Blocks that are edited alike share what is compiled, as they do without edits.
        assert run.artifacts == stock.artifacts == 3
