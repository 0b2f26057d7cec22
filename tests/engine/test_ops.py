"""Every op, gate and policy on a real engine against plain torch in forward hooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from tests.engine.answer import Answer, Ask
from tests.engine.host import EngineHost
from tests.engine.models import HIDDEN_SIZE, tiny_model
from tests.engine.oracle import Edit, Oracle, Place
from tests.engine.programs import Directions
from tests.tolerances import ENGINE_LOGPROB

pytestmark = pytest.mark.engine

DOCUMENT = """interv 1
vector v = "v.safetensors"
vector w = "w.safetensors"
adapter low = "low.safetensors"
adapter full = "full.safetensors"
program kept      { steer v at post_block[1] scale 0.8 keep norm }
program replaced  { replace v at post_attn[2] scale 0.2 strength 0.6 }
program exchanged { replace v by w at pre_attn[1] }
program adapted   { apply low at post_block[1] scale 0.5 }
program gated     { cap w at post_block[2] in [1.5, 2] gate v sharpness 0.5 threshold 0.2 }
program later {
  steer v at pre_attn[1] scale 0.2
  steer w at post_block[2] scale 0.5 gate v at pre_attn[1] sharpness 0.3 threshold 1
  ablate v at post_attn[3] gate v at pre_attn[1] sharpness 0.3 threshold 1
}
program joined {
  cap v at post_attn[1] in [-0.1, 0.2]
  cap w at post_attn[1] in [0.3, 0.5]
  conflict joint
}
program everything {
  steer v at post_block[1] scale 0.3
  cap w at post_block[1] in [-0.2, 0.2] strength 0.8
  steer w at post_block[1] scale 0.5 keep norm gate v sharpness 0.5
  apply low at post_block[1] scale 0.25
  replace w by v at post_block[1] strength 0.5
  replace v at post_block[1] scale 0.3 strength 0.25
  ablate w at post_block[1] strength 0.5
}
program share        { steer v at post_block[1] scale 0.4 norm }
program share_kept   { steer v at post_attn[1] scale -0.5 norm keep norm }
program ablated_kept { ablate v at post_block[2] keep norm }
program ablated_over { ablate w at post_block[1] strength 1.75 over }
program stepped {
  steer w at post_block[2] scale 0.5 gate v at pre_attn[1] absolute above 2
  steer v at post_block[2] scale 0.5 gate v below 0
}
program angled {
  steer v at post_attn[2] scale 0.5 gate w cosine sharpness 20 threshold 0.05
  steer w at post_block[2] scale 0.5 gate v at pre_attn[1] absolute cosine above 0.05
}
program amounts {
  steer v at post_block[1] scale 0.3
  steer w at post_block[1] scale 0.25 norm gate v absolute cosine sharpness 9 threshold 0.1
  ablate v at post_block[1] strength 0.6 keep norm
  cap w at post_block[1] in [-0.2, 2] strength 0.8 gate v above -3 below 9
  ablate w at post_block[1] strength 1.5 over keep norm gate w cosine threshold 0.1
  steer v at post_block[1] scale 0.3 norm keep norm
}
program fading {
  steer v at post_block[1] scale 0.8 decay 0.7
  cap w at post_block[1] in [-0.2, 0.2] strength 0.8 decay 0.9 gate v at pre_attn[1] sharpness 0.5
  steer w at post_block[2] scale 0.5 keep norm decay 0.6 gate v sharpness 0.5 when generated
  apply full at post_attn[3] scale 0.5 decay 0.8
}
program turned    { rotate v towards w at post_block[1] to 60 }
program turned_and_more {
  steer v at post_attn[2] scale 0.2
  rotate w towards v at post_attn[2] to -150 adaptive strength 0.6 gate v sharpness 0.5 decay 0.9
  ablate v at post_attn[2] strength 0.5
}
program mapped    { apply full at post_block[2] scale 0.5 }
program mapped_and_more {
  apply full at post_block[1] scale 0.75 gate v at pre_attn[1] sharpness 0.3 threshold 1
  steer v at post_block[1] scale 0.8 keep norm gate w sharpness 0.5
  cap w at post_block[1] in [-0.2, 0.2] strength 0.8
}
"""
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [100, 200, 300, 400]]
TOKENS = {"traced": 8, "inductor": 8, "B": 3}


@dataclass(frozen=True)
class Adapter:
    read: torch.Tensor
    bias: torch.Tensor
    write: torch.Tensor


def adapter(folder: Path) -> Adapter:
    rng = np.random.default_rng(11)
    read, write = rng.normal(size=(2, 3, HIDDEN_SIZE)).astype(np.float32) / 8
    parts = {"read": read, "bias": rng.normal(size=3).astype(np.float32), "write": write}
    save_file(parts, folder / "low.safetensors")
    return Adapter(*(torch.from_numpy(one) for one in parts.values()))


def full_map(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(12)
    weight = (np.eye(HIDDEN_SIZE) + rng.normal(size=(HIDDEN_SIZE,) * 2) / 16).astype(np.float32)
    parts = {"weight": weight, "bias": rng.normal(size=HIDDEN_SIZE).astype(np.float32) / 4}
    save_file(parts, folder / "full.safetensors")
    return torch.from_numpy(parts["weight"]), torch.from_numpy(parts["bias"])


class Meaning:
    """What the programs above mean, in plain torch on one stream `[…, H]`."""

    def __init__(
        self, directions: Directions, low: Adapter, full: tuple[torch.Tensor, torch.Tensor]
    ) -> None:
        self.v, self.w, self.low, self.full = directions.v, directions.w, low, full
        self.gate, self.prompt = torch.tensor(1.0), 0

    def programs(self) -> dict[str, dict[Place, Edit]]:
        v, w = self.v, self.w
        return {
            "kept": {("post_block", 1): lambda h: kept(h, 0.8 * v)},
            "replaced": {("post_attn", 2): lambda h: h + 0.6 * (0.2 * v - h)},
            "exchanged": {("pre_attn", 1): lambda h: h + share(h, v) * (w - v)},
            "adapted": {("post_block", 1): lambda h: self.adapted(h, 0.5)},
            "gated": {
                ("post_block", 2): lambda h: h + sig(0.5, h @ v - 0.2) * (cap(h, w, 1.5, 2) - h)
            },
            "later": {
                ("pre_attn", 1): self.probed,
                ("post_block", 2): lambda h: h + self.gate * 0.5 * w,
                ("post_attn", 3): lambda h: h - self.gate * share(h, v) * v,
            },
            "joined": {("post_attn", 1): self.joined},
            "everything": {("post_block", 1): self.everything},
            "share": {("post_block", 1): lambda h: h + 0.4 * along(h, v)},
            "share_kept": {("post_attn", 1): lambda h: kept(h, -0.5 * along(h, v))},
            "ablated_kept": {("post_block", 2): lambda h: kept(h, -share(h, v) * v)},
            "ablated_over": {("post_block", 1): lambda h: h - 1.75 * share(h, w) * w},
            "stepped": {
                ("pre_attn", 1): lambda h: self.read(h, (h @ v).abs() > 2),
                ("post_block", 2): self.stepped,
            },
            "angled": {
                ("pre_attn", 1): lambda h: self.read(h, cosine(h, v).abs() > 0.05),
                ("post_attn", 2): lambda h: h + sig(20, cosine(h, w) - 0.05) * 0.5 * v,
                ("post_block", 2): lambda h: h + self.gate * 0.5 * w,
            },
            "amounts": {("post_block", 1): self.amounts},
            "fading": {
                ("pre_attn", 1): self.faded_probe,
                ("post_block", 1): self.faded,
                ("post_block", 2): self.faded_later,
                ("post_attn", 3): lambda h: h + self.fade(h, 0.8) * 0.5 * self.mapped(h),
            },
            "turned": {("post_block", 1): lambda h: turned(h, v, w, 60)},
            "turned_and_more": {("post_attn", 2): self.turned_and_more},
            "mapped": {("post_block", 2): lambda h: h + 0.5 * self.mapped(h)},
            "mapped_and_more": {
                ("pre_attn", 1): self.opened,
                ("post_block", 1): self.mapped_and_more,
            },
        }

    def read(self, h: torch.Tensor, opens: torch.Tensor) -> torch.Tensor:
        self.gate = opens[..., None].float()
        return h

    def stepped(self, h: torch.Tensor) -> torch.Tensor:
        h = h + self.gate * 0.5 * self.w
        return h + (h @ self.v < 0)[..., None] * 0.5 * self.v

    def amounts(self, h: torch.Tensor) -> torch.Tensor:
        v, w = self.v, self.w
        h = h + 0.3 * v
        h = h + sig(9, cosine(h, v).abs() - 0.1) * 0.25 * along(h, w)
        h = kept(h, -0.6 * share(h, v) * v)
        opens = ((h @ v > -3) & (h @ v < 9))[..., None]
        h = h + opens * 0.8 * (cap(h, w, -0.2, 2) - h)
        h = kept(h, -sig(1, cosine(h, w) - 0.1) * 1.5 * share(h, w) * w)
        return kept(h, 0.3 * along(h, v))

    def fade(self, h: torch.Tensor, rate: float) -> torch.Tensor:
        """Return the powers of a rate, [T, 1]: of a prompt all 0, then 0, 1, 2, …."""
        return rate ** (torch.arange(h.shape[-2]) - self.prompt).clamp(min=0)[:, None].float()

    def faded_probe(self, h: torch.Tensor) -> torch.Tensor:
        self.gate = sig(0.5, h @ self.v)
        return h

    def faded(self, h: torch.Tensor) -> torch.Tensor:
        h = h + self.fade(h, 0.7) * 0.8 * self.v
        return h + self.fade(h, 0.9) * self.gate * 0.8 * (cap(h, self.w, -0.2, 0.2) - h)

    def faded_later(self, h: torch.Tensor) -> torch.Tensor:
        after = (torch.arange(h.shape[-2]) >= self.prompt)[:, None].float()
        weight = after * self.fade(h, 0.6) * sig(0.5, h @ self.v)
        return kept(h, weight * 0.5 * self.w)

    def adapted(self, h: torch.Tensor, scale: float) -> torch.Tensor:
        return h + scale * (h @ self.low.read.T + self.low.bias) @ self.low.write

    def mapped(self, h: torch.Tensor) -> torch.Tensor:
        weight, bias = self.full
        return h @ weight.T + bias - h

    def opened(self, h: torch.Tensor) -> torch.Tensor:
        self.gate = sig(0.3, h @ self.v - 1)
        return h

    def mapped_and_more(self, h: torch.Tensor) -> torch.Tensor:
        h = h + self.gate * 0.75 * self.mapped(h)
        h = kept(h, sig(0.5, h @ self.w) * 0.8 * self.v)
        return h + 0.8 * (cap(h, self.w, -0.2, 0.2) - h)

    def turned_and_more(self, h: torch.Tensor) -> torch.Tensor:
        v, w = self.v, self.w
        h = h + 0.2 * v
        weight = self.fade(h, 0.9) * sig(0.5, h @ v) * ((h @ w) > 0)[..., None]
        h = h + weight * 0.6 * (turned(h, w, v, -150) - h)
        return h - 0.5 * share(h, v) * v

    def probed(self, h: torch.Tensor) -> torch.Tensor:
        h = h + 0.2 * self.v
        self.gate = sig(0.3, h @ self.v - 1)
        return h

    def joined(self, h: torch.Tensor) -> torch.Tensor:
        """Alternate between the two caps with Dykstra's corrections until both hold."""
        x, left = h.double(), [torch.zeros_like(h, dtype=torch.float64)] * 2
        for _ in range(500):
            for i, (u, low, high) in enumerate(((self.v, -0.1, 0.2), (self.w, 0.3, 0.5))):
                moved = x + left[i]
                x = cap(moved, u.double(), low, high)
                left[i] = moved - x
        return x.to(h.dtype)

    def everything(self, h: torch.Tensor) -> torch.Tensor:
        v, w = self.v, self.w
        h = h + 0.3 * v
        h = h + 0.8 * (cap(h, w, -0.2, 0.2) - h)
        h = kept(h, sig(0.5, h @ v) * 0.5 * w)
        h = self.adapted(h, 0.25)
        h = h + 0.5 * share(h, w) * (v - w)
        h = h + 0.25 * (0.3 * v - h)
        return h - 0.5 * share(h, w) * w


def sig(sharpness: float, x: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(sharpness * x)[..., None]


def share(h: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return (h @ v)[..., None] / (v @ v)


def along(h: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return a vector along `v` that is as long as the stream."""
    return h.norm(dim=-1, keepdim=True) * v / v.norm()


def cosine(h: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return (h @ v) / (h.norm(dim=-1) * v.norm())


def turned(h: torch.Tensor, v: torch.Tensor, w: torch.Tensor, degrees: float) -> torch.Tensor:
    """Rotate in a plane by the paper's own formula, with a projection matrix."""
    b1 = v / v.norm()
    b2 = w - (w @ b1) * b1
    b2 = b2 / b2.norm()
    inside = h @ (torch.outer(b1, b1) + torch.outer(b2, b2))
    angle = torch.tensor(degrees).deg2rad()
    return h - inside + inside.norm(dim=-1, keepdim=True) * (angle.cos() * b1 + angle.sin() * b2)


def kept(h: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    moved = h + change
    return moved * (h.norm(dim=-1) / moved.norm(dim=-1))[..., None]


def cap(h: torch.Tensor, v: torch.Tensor, low: float, high: float) -> torch.Tensor:
    u = v / v.norm()
    p = (h @ u)[..., None]
    return h + (p.clamp(low, high) - p) * u


@dataclass
class Rig:
    answers: dict[str, list[Answer]]
    stock: list[Answer]
    follow: Callable[[str, list[int], list[int]], Answer]


@pytest.fixture(
    scope="module", params=["traced", "B", pytest.param("inductor", marks=pytest.mark.slow)]
)
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    folder = tmp_path_factory.mktemp("ops")
    directions = Directions.random(HIDDEN_SIZE, norm=5.0)
    directions.save(folder)
    meaning = Meaning(directions, adapter(folder), full_map(folder))
    programs = meaning.programs()
    path, model = folder / "ops.interv", tiny_model("llama")
    path.write_text(DOCUMENT)
    oracle, tokens = Oracle(model), TOKENS[request.param]
    asks = [Ask(prompt, name, tokens) for name in ("off", *programs) for prompt in PROMPTS]
    # On B the updates join the fused norms behind them: no other test has that.
    joined = request.param == "B"
    with EngineHost(request.param, model, [path], absorb_norm=joined) as engine:
        found = iter(engine.answers(asks))
        answers = {name: [next(found) for _ in PROMPTS] for name in ("off", *programs)}
        assert ("6 updates joined the add-norm" in engine.log()) == joined
    stock = answers.pop("off")

    def follow(name: str, prompt: list[int], ids: list[int]) -> Answer:
        meaning.prompt = len(prompt)
        return oracle.follow(prompt, ids, programs[name])

    return Rig(answers, stock, follow)


def test_every_op_equals_the_oracle(rig: Rig) -> None:
    for name, answers in rig.answers.items():
        for prompt, answer in zip(PROMPTS, answers, strict=True):
            expected = rig.follow(name, prompt, answer.ids)
            assert answer.ids == expected.ids, name
            assert answer.distance(expected) < ENGINE_LOGPROB, name


def test_every_op_moves_the_answer(rig: Rig) -> None:
    for name, answers in rig.answers.items():
        for before, after in zip(rig.stock, answers, strict=True):
            assert before.distance(after) > 10 * ENGINE_LOGPROB, name
