"""What an engine carries reaches processes that are started, not forked, as it was."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from interv.compile import compile_documents
from interv.frozen import FrozenMap
from interv.load import load_documents
from interv.model import model_facts
from interv.request.inline import compile_inline
from interv.runtime.config import InterventionConfig
from interv.runtime.frontend.start import _by_name

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL = model_facts(str(EXAMPLES / "models" / "smollm2-135m"))


@pytest.mark.parametrize("document", sorted(EXAMPLES.glob("*.interv")), ids=lambda one: one.stem)
def test_an_example_with_inline_programs_travels(document: Path) -> None:
    made = compile_documents(load_documents([document]), MODEL, lambda _: (7,), inline=True)
    sent = InterventionConfig(made.bundle, 4, "", MODEL, _by_name(made))
    came = pickle.loads(pickle.dumps(sent))
    assert came.vectors
    assert came.compute_hash() == sent.compute_hash()
    assert came.bundle.contents == sent.bundle.contents
    for name, vector in sent.vectors.items():
        known = came.vectors[name].directions
        assert known.digest == vector.directions.digest
        assert known.layers == vector.layers
        for layer in range(MODEL.num_layers):
            if vector.directions.has(layer):
                np.testing.assert_array_equal(known.at(layer), vector.directions.at(layer))
    for name in sent.vectors:
        site = made.bundle.sites[0].site
        text = f"interv 1  program mine {{ steer {name} at {site} scale -1.5 }}"
        here, there = (
            compile_inline(text, one.bundle, one.vectors, MODEL, None) for one in (sent, came)
        )
        assert there.digest == here.digest


def test_a_map_that_travels_is_as_it_was_and_cannot_be_written() -> None:
    held = {2: "b", 1: "a"}
    sent = FrozenMap(held)
    held[3] = "c"
    came = pickle.loads(pickle.dumps(sent))
    assert came == sent == {2: "b", 1: "a"}
    assert list(came) == [2, 1]
    with pytest.raises(TypeError, match="does not support item assignment"):
        came[1] = "z"
