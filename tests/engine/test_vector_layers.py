"""A file's `direction.N` edits the output of block N in the engine: no block too early or late.

The files are built with the `gguf` library, one as repeng writes them and one as llama.cpp's
cvector-generator does. All directions but one are as good as nothing, so that the layer on which
the edit lands shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from tests.engine.answer import Answer, Ask
from tests.engine.host import EngineHost
from tests.engine.oracle import Oracle
from tests.tolerances import ENGINE_LOGPROB

pytestmark = pytest.mark.engine

WIDTH, LAYERS, TOKENS = 576, 30, 4
PROMPTS = ([504, 3575, 282, 4649, 314], [1, 4093, 198, 2683, 30])
LARGE, NOTHING = 20.0, 1e-6
# The first and the last that a file can have, and one in the middle.
CHOSEN = (1, 14, 29)


def direction(norm: float) -> np.ndarray:
    values = np.random.default_rng(5).normal(size=WIDTH)
    return (norm * values / np.linalg.norm(values)).astype(np.float32)


def bank(layer: int) -> dict[int, np.ndarray]:
    return {n: direction(LARGE if n == layer else NOTHING) for n in range(1, LAYERS)}


def write(path: Path, writer: gguf.GGUFWriter, layers: list[int], chosen: int) -> None:
    for layer in layers:
        writer.add_tensor(f"direction.{layer}", bank(chosen)[layer])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def as_repeng(path: Path, chosen: int) -> None:
    """The model's type as hint, an unsigned count, layers from the last one down."""
    writer = gguf.GGUFWriter(path, "controlvector")
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_uint32("controlvector.layer_count", LAYERS - 1)
    write(path, writer, list(range(LAYERS - 1, 0, -1)), chosen)


def as_llama_cpp(path: Path, chosen: int) -> None:
    """A signed count, layers upwards."""
    writer = gguf.GGUFWriter(path, "controlvector")
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_int32("controlvector.layer_count", LAYERS)
    write(path, writer, list(range(1, LAYERS)), chosen)


WRITERS = {"repeng": as_repeng, "llama_cpp": as_llama_cpp}


@dataclass
class Rig:
    oracle: Oracle
    answers: dict[str, list[Answer]]

    def expected(self, prompt: list[int], ids: list[int], layer: int) -> Answer:
        added = torch.tensor(direction(LARGE))
        return self.oracle.follow(prompt, ids, {("post_block", layer): lambda h: h + added})


@pytest.fixture(scope="module")
def rig(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    folder = tmp_path_factory.mktemp("layers")
    lines, names = ["interv 1"], [f"{w}_{n}" for w in WRITERS for n in CHOSEN]
    for name in names:
        writer, chosen = name.rsplit("_", 1)
        WRITERS[writer](folder / f"{name}.gguf", int(chosen))
        lines.append(f'vector {name} = "{name}.gguf"')
    # At every layer that a file has: which of them is edited, the file alone decides.
    lines += [f"program {n}_on {{ steer {n} at post_block[1..{LAYERS - 1}] }}" for n in names]
    document = folder / "layers.interv"
    document.write_text("\n".join(lines) + "\n")
    asks = [Ask(list(prompt), f"{name}_on", TOKENS) for name in names for prompt in PROMPTS]
    with EngineHost("traced", model_path, files=[document]) as engine:
        found = iter(engine.answers(asks))
    return Rig(Oracle(model_path), {name: [next(found) for _ in PROMPTS] for name in names})


@pytest.mark.parametrize("layer", CHOSEN)
@pytest.mark.parametrize("writer", WRITERS)
def test_the_edit_lands_on_the_block_that_the_file_names(rig: Rig, writer: str, layer: int) -> None:
    for prompt, answer in zip(PROMPTS, rig.answers[f"{writer}_{layer}"], strict=True):
        there = rig.expected(list(prompt), answer.ids, layer)
        assert answer.ids == there.ids
        assert answer.distance(there) < ENGINE_LOGPROB
        for other in {layer - 1, layer + 1} & set(range(LAYERS)):
            elsewhere = rig.expected(list(prompt), answer.ids, other)
            assert answer.distance(elsewhere) > 20 * ENGINE_LOGPROB
