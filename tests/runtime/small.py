"""A small compiled bundle, and engines and steps on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from interv.codegen.bundle import Bundle, Column, SiteTable
from interv.document.sites import Site
from interv.document.spec import Everything, Selector
from interv.runtime.choice import Choice
from interv.runtime.worker.engine import Engine, Step
from tests.kernels.cases import unit_bank

H, L = 16, 4
MAX_TOKENS = 32
SITES = (Site("pre_attn", 0), Site("post_block", 2))


def bundle(
    selectors: Sequence[Selector] = (Everything(),),
    default: str | None = "calm",
    structure: str = "one",
    scale: float = 1.0,
    columns: Sequence[Column] = (),
) -> Bundle:
    """Make a bundle whose program adds a direction at two sites, one column a selector.

    Or has the columns that are given, at both.
    """
    columns = tuple(columns) or tuple(
        Column(-1, i % 2, alpha=scale, selector=i) for i in range(len(selectors))
    )
    return Bundle(
        hidden_size=H,
        num_layers=L,
        sites=tuple(SiteTable(site, unit_bank(2, H), {"calm": columns}) for site in SITES),
        selectors=tuple(selectors),
        programs=("calm",),
        default=default,
        structure=structure,
        contents={"calm": f"contents {scale}"},
        where={
            SITES[0]: ("calm.interv:4", "calm.interv:5", "b.interv:1"),
            SITES[1]: ("c.interv:7",),
        },
    )


def engine(made: Bundle | None = None, max_tokens: int = MAX_TOKENS, slots: int = 3) -> Engine:
    found = bundle() if made is None else made
    return Engine(found, torch.device("cpu"), torch.float32, max_tokens, slots)


CALM, OFF = Choice.of((("calm", 1.0),)), Choice()


def step(
    requests: Sequence[tuple[int, int, int]], choices: Sequence[Choice] = (), seed: int = 0
) -> Step:
    """Make a step of requests (first position, tokens fed, prompt length); more rows are padding.

    Every request has the program `calm` where no choices are given.

    Padding carries positions and ids that a selector would take if it looked.
    """
    made = torch.Generator().manual_seed(seed)
    fed = [torch.arange(first, first + count) for first, count, _ in requests]
    position = torch.cat([*fed, torch.zeros(5, dtype=torch.int64)])
    ids = torch.randint(0, 5, (len(position),), generator=made, dtype=torch.int32)
    return Step(
        position=position,
        token_id=ids,
        starts=np.cumsum([0, *(count for _, count, _ in requests)]).astype(np.int32),
        prompt_length=np.array([length for *_, length in requests], dtype=np.int32),
        choices=choices or [CALM] * len(requests),
    )
