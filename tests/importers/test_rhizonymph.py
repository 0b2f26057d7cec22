"""RhizoNymph modules: the document makes of a forward pass what the module makes of it.

A forward pass of a few blocks stands here twice: with the hooks where the source has them, which
write into the stream after the next norm has read it, and with the sites where ours are.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from interv.document.sites import SITES, Site
from interv.importers import Imported
from tests.dsl.test_translations import At
from tests.importers.ran import TOKENS, H, L, Row, imported, listed, near, row, run

FUZZ = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PHASES = {"": (True, True), "prefill_": (True, False), "decode_": (False, True)}
WEIGHTS = np.random.default_rng(0).normal(size=(L, 2, H, H)) / 2


def branch(x: Row, layer: int, which: int) -> Row:
    """Stand for attention (0) or MLP (1): any function of the normed stream, token by token."""
    normed = x / np.sqrt((x * x).mean(-1, keepdims=True))
    return np.tanh(normed @ WEIGHTS[layer, which])


def hook(module: Mapping[str, Any], name: str, layer: int, h: Row) -> Row:
    """Return a stream as a hook leaves it: additions, then clamps that all read what those made."""
    out = h.copy()
    for t, at in enumerate(TOKENS):
        for entry in entries(module, "vectors", name, layer, at):
            scale, vector = (
                (entry["scale"], entry["vector"]) if isinstance(entry, dict) else (1, entry)
            )
            out[t] += scale * np.asarray(vector)
        same = out[t].copy()
        for group in entries(module, "clamps", name, layer, at):
            for clamp in group:
                unit = np.asarray(clamp["vector"]) / np.linalg.norm(clamp["vector"])
                low = clamp.get("value", clamp.get("min", -np.inf))
                high = clamp.get("value", clamp.get("max", np.inf))
                p = same @ unit
                out[t] += clamp.get("strength", 1) * (np.clip(p, low, high) - p) * unit
    return out


def entries(module: Mapping[str, Any], what: str, name: str, layer: int, at: At) -> list[Any]:
    found = []
    for prefix, (prompt, generated) in PHASES.items():
        layers = module.get(f"{prefix}{what}", {}).get(name, {})
        if str(layer) in layers and (prompt if at.in_prompt else generated):
            found.append(layers[str(layer)])
    return found


def llama(module: Mapping[str, Any], x: Row) -> Row:
    """Run the blocks with the source's hooks, each behind the norm that has read the stream."""
    for i in range(L):
        residual = hook(module, "pre_attn", i, x)
        residual = residual + branch(x, i, 0)
        seen = residual
        residual = hook(module, "post_attn", i, residual)
        out = residual + branch(seen, i, 1)
        x = hook(module, "post_block", i, out)
    return x


def gemma(module: Mapping[str, Any], x: Row) -> Row:
    """Run the blocks as Gemma 3 does: `post_attn` comes before the attention is added."""
    for i in range(L):
        residual = hook(module, "pre_attn", i, x)
        residual = hook(module, "post_attn", i, residual)
        residual = residual + branch(x, i, 0)
        out = residual + branch(residual, i, 1)
        x = hook(module, "post_block", i, out)
    return x


def ours(made: Imported | None, x: Row) -> Row:
    """Run the blocks with our sites, where an edit is seen by all that follows."""

    def edited(h: Row, name: str, layer: int) -> Row:
        if made is None:
            return h
        site = Site(name, layer)
        everywhere = {Site(one, i): h for i in range(L) for one in SITES}
        return run(made, 0, everywhere)[site]

    for i in range(L):
        x = edited(x, "pre_attn", i)
        x = edited(x + branch(x, i, 0), "post_attn", i)
        x = edited(x + branch(x, i, 1), "post_block", i)
    return x


def start() -> Row:
    return np.random.default_rng(1).normal(size=(len(TOKENS), H))


def compare(made: Imported, wanted: Row) -> None:
    near(ours(made, start()), wanted)
    assert np.abs(wanted - ours(None, start())).max() > 1e-3
    assert made.inexact == ()


seeds = st.integers(0, 2**16)
vectors = seeds.map(lambda seed: listed(row(np.random.default_rng(seed))))
additions = st.one_of(
    vectors, st.fixed_dictionaries({"vector": vectors, "scale": st.sampled_from([0.5, -2.0])})
)
clamps = st.one_of(
    st.fixed_dictionaries(
        {"vector": vectors, "max": st.floats(0, 1)}, optional={"min": st.floats(-1, 0)}
    ),
    st.fixed_dictionaries(
        {"vector": vectors, "value": st.floats(-1, 1)}, optional={"strength": st.floats(0, 1)}
    ),
)
some_layers = st.sampled_from(["0", "1", "2"])


def tiers(hooks: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    added = st.dictionaries(
        st.sampled_from(hooks), st.dictionaries(some_layers, additions, max_size=2), max_size=3
    )
    clamped = st.fixed_dictionaries(
        {},
        optional={
            "post_block": st.dictionaries(
                some_layers, st.lists(clamps, min_size=1, max_size=3), min_size=1, max_size=2
            )
        },
    )
    names = {f"{prefix}vectors": added for prefix in PHASES}
    names |= {f"{prefix}clamps": clamped for prefix in PHASES}
    return st.fixed_dictionaries({}, optional=names)


def with_an_edit(module: dict[str, Any]) -> dict[str, Any]:
    """Add a vector at a block of its own, so that every module changes something."""
    base = module.setdefault("vectors", {})
    base.setdefault("post_block", {})["3"] = listed(row(np.random.default_rng(9)))
    return module


@given(tiers(["post_block"]).map(with_an_edit))
@FUZZ
def test_a_module_at_post_block_needs_no_family(tmp_path: Path, module: dict[str, Any]) -> None:
    compare(imported(tmp_path, module), llama(module, start()))


@given(
    tiers(["pre_attn", "post_attn", "post_block"]).map(with_an_edit),
    st.sampled_from([("llama", llama), ("gemma3", gemma)]),
)
@FUZZ
def test_the_hooks_of_a_family(tmp_path: Path, module: dict[str, Any], family: Any) -> None:
    name, forward = family
    compare(imported(tmp_path, module, family=name), forward(module, start()))


def test_the_families_differ() -> None:
    """What the importer maps apart is apart: one module, two families, two results."""
    module = {"vectors": {"post_attn": {"1": listed(row(np.random.default_rng(2)))}}}
    assert np.abs(llama(module, start()) - gemma(module, start())).max() > 1e-2


def test_clamps_that_do_not_meet_stay_in_order(tmp_path: Path) -> None:
    v, w = (listed(row(np.random.default_rng(seed))) for seed in (3, 4))
    module = {
        "vectors": {"post_block": {"0": w}},
        "prefill_clamps": {"post_block": {"0": [{"vector": v, "max": 0.5}]}},
        "decode_clamps": {"post_block": {"0": [{"vector": v, "value": 0}]}},
    }
    made = imported(tmp_path, module)
    assert made.text.partition("program")[2] == (
        """ out {
  steer base           at post_block[0]
  cap   prefill_clamp  at post_block[0]  in [, 0.5]  when prompt
  cap   decode_clamp   at post_block[0]  in [0, 0]   when generated
}
"""
    )
    compare(made, llama(module, start()))


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16", "float64"])
def test_packed_vectors(tmp_path: Path, kind: str) -> None:
    rows = np.array([[1, -2, 0.5, 4, 0, 3], [0.25, 1, 1, -8, 2, 0]], np.float32)
    raw = rows.astype({"bfloat16": "<f4"}.get(kind, kind)).tobytes()
    if kind == "bfloat16":
        raw = (rows.view(np.uint32) >> 16).astype("<u2").tobytes()
    packed = {
        "dtype": kind,
        "shape": [2, H],
        "layer_indices": [0, 2],
        "data": base64.b64encode(raw).decode(),
        "scales": [1.0, 0.5],
    }
    made = imported(tmp_path, {"decode_vectors": {"post_block": packed}, "name": "packed"})
    plain = {"0": listed(rows[0]), "2": {"vector": listed(rows[1]), "scale": 0.5}}
    compare(made, llama({"decode_vectors": {"post_block": plain}}, start()))
    assert made.spec.programs[0].name == "packed"
