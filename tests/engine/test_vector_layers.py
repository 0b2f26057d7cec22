"""A file's `direction.N` edits the output of block N in the engine: no block too early or late.

The files are built with the `gguf` library, one as repeng writes them and one as llama.cpp's
cvector-generator does. All directions but one are as good as nothing, so that the layer on which
the edit lands shows. Files that repeng and steering-vectors wrote themselves give the answers
that were recorded under the hooks of those libraries (`tests/vectors/brought/make.py`), and a bank
by hidden states what a hook on its block does.
"""

from __future__ import annotations

import json
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


BROUGHT = Path(__file__).parents[1] / "vectors" / "brought"
FILES = {
    "steering_vectors": ("steering_vectors.pt", "steering_vectors.pkl"),
    "repeng": ("repeng.gguf", "repeng.pkl"),
}
RECORDED = json.loads((BROUGHT / "answers.json").read_text())
# Of a bank by hidden states this layer is steered.
PERSONA = 14


def brought_lines() -> list[str]:
    """A vector and a program for each file of another library, at the strength it was used at."""
    lines = []
    for tool, files in FILES.items():
        for file in files:
            name, scale = file.replace(".", "_"), RECORDED[tool]["scale"]
            lines.append(f'vector {name} = "{BROUGHT / file}"')
            lines.append(f"program {name} {{ steer {name} at post_block[10, 14] scale {scale} }}")
    return lines


def hidden_states(oracle: Oracle, prompt: list[int]) -> torch.Tensor:
    with torch.no_grad():
        found = oracle.model(torch.tensor([prompt]), output_hidden_states=True).hidden_states
    return torch.stack([one[0, -1] for one in found])


WRITERS = {"repeng": as_repeng, "llama_cpp": as_llama_cpp}


@dataclass
class Rig:
    oracle: Oracle
    answers: dict[str, list[Answer]]
    bank: torch.Tensor  # [L + 1, H], by hidden states

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
    oracle = Oracle(model_path)
    persona = hidden_states(oracle, PROMPTS[0]) - hidden_states(oracle, PROMPTS[1])
    torch.save(persona, folder / "persona.pt")
    lines += ['vector persona = "persona.pt" rows hidden_states', *brought_lines()]
    lines.append(f"program persona_on {{ steer persona at post_block[{PERSONA}] }}")
    document = folder / "layers.interv"
    document.write_text("\n".join(lines) + "\n")
    asks = [Ask(list(p), f"{name}_on", TOKENS) for name in [*names, "persona"] for p in PROMPTS]
    files = [file.replace(".", "_") for listed in FILES.values() for file in listed]
    length = len(RECORDED["repeng"]["answers"][0]["ids"])
    asks += [Ask(list(prompt), file, length) for file in files for prompt in PROMPTS]
    with EngineHost("traced", model_path, files=[document]) as engine:
        found = iter(engine.answers(asks))
    named = [*names, "persona", *files]
    return Rig(oracle, {name: [next(found) for _ in PROMPTS] for name in named}, persona)


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


@pytest.mark.parametrize(
    ("tool", "file"), [(tool, file) for tool, files in FILES.items() for file in files]
)
def test_a_librarys_own_file_answers_as_its_own_hooks(rig: Rig, tool: str, file: str) -> None:
    for i, answer in enumerate(rig.answers[file.replace(".", "_")]):
        theirs, off = RECORDED[tool]["answers"][i], RECORDED["off"]["answers"][i]
        assert (theirs["prompt"], answer.ids) == (PROMPTS[i], theirs["ids"])
        pairs = list(zip(answer.logprobs, theirs["logprobs"], strict=True))
        assert max(abs(mine - other) for mine, other in pairs) < ENGINE_LOGPROB
        apart = abs(theirs["logprobs"][0] - off["logprobs"][0])
        assert theirs["ids"] != off["ids"] or apart > 5 * ENGINE_LOGPROB


def test_a_bank_by_hidden_states_is_one_row_off(rig: Rig) -> None:
    for prompt, answer in zip(PROMPTS, rig.answers["persona"], strict=True):

        def steered(row: int, prompt: list[int] = prompt, ids: list[int] = answer.ids) -> Answer:
            added = rig.bank[row]
            return rig.oracle.follow(prompt, ids, {("post_block", PERSONA): lambda h: h + added})

        assert answer.ids == steered(PERSONA + 1).ids
        assert answer.distance(steered(PERSONA + 1)) < ENGINE_LOGPROB
        assert answer.distance(steered(PERSONA)) > 5 * ENGINE_LOGPROB


def test_hidden_states_are_outputs_of_blocks_but_for_the_last(rig: Rig) -> None:
    """`hidden_states[i + 1]` is post_block[i]; the last one is behind the final norm."""
    seen: dict[int, torch.Tensor] = {}

    def see(layer: int, h: torch.Tensor) -> torch.Tensor:
        seen[layer] = h[0, -1]
        return h

    edits = {("post_block", n): (lambda h, n=n: see(n, h)) for n in (0, PERSONA, LAYERS - 1)}
    rig.oracle.follow(list(PROMPTS[0]), [0], edits)
    states = hidden_states(rig.oracle, PROMPTS[0])
    assert torch.equal(states[1], seen[0])
    assert torch.equal(states[PERSONA + 1], seen[PERSONA])
    norm = rig.oracle.model.model.norm
    assert torch.equal(states[LAYERS], norm(seen[LAYERS - 1]))
