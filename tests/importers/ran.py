"""Run an imported document without a model, and what its source says in float64 numpy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

import interv
from interv.document.as_python import to_python
from interv.document.sites import SITES, Site
from interv.dsl.formatter import format_text
from interv.importers import Imported, Options, import_file, write_import
from interv.load import load_document, refuse_unsupported
from interv.model import ModelFacts
from interv.passes.build import build
from interv.passes.graph.context import Context
from interv.passes.graph.directions import Adapter, Vector
from interv.passes.graph.ir import execute
from interv.passes.graph.selector_masks import Tokens
from interv.passes.pipeline import run_passes
from interv.vectors import load_adapter, load_vector
from tests.dsl.test_translations import At

H, L = 6, 4
MODEL = ModelFacts("small", "SmallForCausalLM", H, L)
# Directions of a document are float32, 6e-8 of themselves; the rest is float64.
CLOSE = 1e-6
TOKENS = tuple(
    At(position, length, (7 * position + length) % 5)
    for length in (1, 3, 6)
    for position in range(length + 4)
)

Row: TypeAlias = npt.NDArray[np.float64]
# What a source makes of the stream of one token that leaves a block.
Edited: TypeAlias = Callable[[Row, int, At], Row]


def row(rng: np.random.Generator, *shape: int) -> npt.NDArray[np.float32]:
    """Make float32 numbers, so that JSON holds exactly what the oracle computes with."""
    return rng.normal(size=shape or (H,)).astype(np.float32)


def listed(values: npt.NDArray[np.float32]) -> list[float]:
    return [float(one) for one in values]


def imported(folder: Path, data: object, **options: Any) -> Imported:
    """Import and write; what is written reads back, formats and builds as the same document."""
    source = folder / "source.json"
    source.write_text(json.dumps(data))
    return written(source, **options)


def written(source: Path, **options: Any) -> Imported:
    target = source.parent / "out.interv"
    made = import_file(source, target, Options(source.parent, **options))
    write_import(made, force=True)
    document = load_document(target)
    refuse_unsupported(document)
    assert document.spec == made.spec
    assert target.read_text() == made.text == format_text(made.text)
    space: dict[str, Any] = {}
    exec(to_python(made.spec), space)
    assert space["doc"].spec() == made.spec
    assert interv.load_text(interv.to_text(made.spec)).spec == made.spec
    return made


def run(
    made: Imported, index: int, given: Mapping[Site, Row], tokens: tuple[At, ...] = TOKENS
) -> dict[Site, Row]:
    """Return the streams [T, H] of every site as a program of the written document edits them."""
    document = load_document(made.target)
    spec, program = document.spec, document.spec.programs[index]
    root = document.root
    vectors = {one.name: Vector(one.name, load_vector(one, root)) for one in spec.vectors}
    adapters = {one.name: Adapter(one.name, load_adapter(one, root)) for one in spec.adapters}
    graph = build(document, index, vectors, L, adapters)
    stages = run_passes(graph, Context(program.name, program.conflict, MODEL))
    columns = ([getattr(at, name) for at in tokens] for name in At.__slots__)
    batch = Tokens(*(torch.tensor(column) for column in columns))
    streams = {site: torch.from_numpy(h.copy()) for site, h in given.items()}
    done = execute(stages[-1].graph, streams, batch)
    return {site: h.numpy() for site, h in done.items()}


def streams(seed: int) -> dict[Site, Row]:
    rng = np.random.default_rng(seed)
    shape = (len(TOKENS), H)
    return {Site(name, layer): rng.normal(size=shape) for layer in range(L) for name in SITES}


def check(made: Imported, edited: Edited, index: int = 0, seed: int = 0) -> None:
    """Compare a program with its source, which edits what leaves a block, on random streams."""
    given = streams(seed)
    found = run(made, index, given)
    changed = False
    for site, h in given.items():
        wanted = h
        if site.name == "post_block":
            wanted = np.stack(
                [edited(one, site.layer, at) for one, at in zip(h, TOKENS, strict=True)]
            )
        near(found[site], wanted)
        changed |= bool(np.abs(wanted - h).max() > 1e-3)
    assert changed, "the source edits nothing, so that nothing is compared"


def near(found: Row, wanted: Row) -> None:
    assert np.abs(found - wanted).max() <= CLOSE * max(1.0, float(np.abs(wanted).max()))
