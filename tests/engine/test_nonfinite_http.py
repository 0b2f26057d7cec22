"""What a client of a real server is told when its request overflows, and what others notice."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.programs import Directions
from tests.engine.test_server import PROMPT, ask, post, serving

pytestmark = pytest.mark.engine

DOCUMENT = """interv 1
vector v = "v.safetensors"
vector w = "w.safetensors"
program calm { steer v at post_block[15] scale 0.5 }
"""


@pytest.fixture(scope="module")
def directions() -> Directions:
    return Directions.random(576, norm=60.0)


@pytest.fixture(scope="module")
def server(
    model_path: Path, directions: Directions, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("overflow")
    directions.save(folder)
    document = folder / "calm.interv"
    document.write_text(DOCUMENT)
    with serving(model_path, document) as url:
        yield url


def overflowing(directions: Directions) -> tuple[str, str]:
    """Return an inline program that is lost, and its error.

    Each of its adds alone is a number of the engine's type.
    """
    v, w = directions.v, directions.w
    scale = 3.4e38 / max(float(v.abs().max()), float(w.abs().max()))
    assert float((v + w).abs().max()) * scale > 3.5e38
    adds = "\n".join(f"steer {one} at post_block[15] scale {scale!r}" for one in "vw")
    return f"interv 1\nprogram lost {{\n{adds}\n}}", (
        "error[E590]: the residual stream of this request became infinite or not a number\n"
        "  = it asked for an inline program\n"
        "  = the largest value of float32 is 3.4e+38\n"
        "  = ask for a smaller multiplier, or for an edit with a smaller scale"
    )


def test_a_request_that_overflows_is_a_bad_request(server: str, directions: Directions) -> None:
    plain = ask(server, intervention="off")["choices"]
    program, said = overflowing(directions)
    chat = {"messages": [{"role": "user", "content": PROMPT}], "model": "m", "max_tokens": 4}
    body = {
        "model": "m",
        "prompt": PROMPT,
        "max_tokens": 4,
        "vllm_xargs": {"intervention": program},
    }
    xargs = {"vllm_xargs": {"intervention": program}}
    for route, more in (
        ("completions", body),
        ("completions", {**body, "n": 2}),
        ("completions", {**body, "prompt": [PROMPT, "Once"]}),
        ("chat/completions", {**chat, **xargs}),
    ):
        with pytest.raises(urllib.error.HTTPError) as error:
            post(f"{server}/v1/{route}", more)
        assert error.value.code == 400
        assert json.load(error.value)["error"]["message"] == said
    request = urllib.request.Request(
        f"{server}/v1/completions",
        json.dumps({**body, "stream": True}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as reply:
        events = [line[6:] for line in reply.read().decode().splitlines() if line]
    assert events.pop() == "[DONE]"
    assert [json.loads(one)["error"]["message"] for one in events] == [said]
    assert ask(server, intervention="off")["choices"] == plain
