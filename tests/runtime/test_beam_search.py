"""Which default programs beam search can have: those that edit all tokens of a beam alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from interv.runtime.frontend.beam_search import follows_prompt
from tests.passes.small import MODEL
from tests.runtime.documents import carried

DOCUMENT = """interv 1
vector v = "v.safetensors"
sink rows = memory()
program other { steer v at post_block[1] when generated }
program calm { BODY }
"""
STEER = "steer v at post_block[1]"
BODIES = {
    STEER: False,
    f"{STEER} when token(3)": False,
    f"{STEER} when not token(3)": False,
    f"{STEER} when generated": True,
    f"{STEER} when prompt[0]": True,
    f"{STEER} when not prompt[:4]": True,
    f"{STEER} when token(3) and generated": True,
    f"{STEER} when token(3) or prompt": True,
    f"{STEER}\n  steer v at post_block[2] when generated[:8]": True,
    "capture at post_block[1] tokens all to rows": True,
}


@pytest.mark.parametrize("body", BODIES)
def test_a_default_that_follows_the_prompt(tmp_path: Path, body: str) -> None:
    save_file({"v": np.ones(MODEL.hidden_size, np.float32)}, tmp_path / "v.safetensors")
    text = DOCUMENT.replace("BODY", f"\n  {body}\n")
    assert follows_prompt(carried(tmp_path, f"{text}default calm\n").bundle) is BODIES[body]
    assert follows_prompt(carried(tmp_path, text).bundle) is False
