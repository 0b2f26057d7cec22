"""One engine's edits at run time: the tables, the tokens of this step, the sites that were reached.

A worker process owns one `Engine` for its model runner. Each step the runner says which tokens it
feeds; the engine writes `slot[T]` and `mask[T]`; the spliced graph reads them site by site.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from interv.codegen.bundle import Bundle
from interv.codegen.kernels.registry import FORMS, SiteUpdate, runnable
from interv.codegen.tables import SiteTensors, signed, site_tensors, write_slot
from interv.errors import IntervError
from interv.passes.find_sites import FoundSites
from interv.passes.select import Tokens, select
from interv.sites import SITES, Site
from interv.spec import Everything


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What a runner knows of the tokens it is about to feed, in batch order.

    `position` and `token_id` are what really reaches the model, on its device; `starts`,
    `prompt_length` and `slot` are per request, on the host.
    """

    position: torch.Tensor  # [T] int64, absolute
    token_id: torch.Tensor  # [T] int32 or int64
    starts: npt.NDArray[np.int32]  # [R + 1], tokens of request r: starts[r] .. starts[r + 1]
    prompt_length: npt.NDArray[np.int32]  # [R], of the original prompt
    slot: npt.NDArray[np.int32]  # [R], -1: no edit


class Engine:
    """The state of a bundle's edits in one worker."""

    def __init__(
        self,
        bundle: Bundle,
        device: torch.device,
        dtype: torch.dtype,
        max_tokens: int,
        slots: int,
    ) -> None:
        self.bundle = bundle
        self.device = device
        self.slot = torch.full((max_tokens,), -1, dtype=torch.int32, device=device)
        self.mask = torch.zeros(max_tokens, dtype=torch.int64, device=device)
        self.edited = torch.zeros(len(bundle.sites), slots, dtype=torch.int64, device=device)
        self.tables = {t.site: site_tensors(t, slots, device) for t in bundle.sites}
        self.reached: set[str] = set()
        self._filled = 0
        self._updates = {
            str(table.site): self._lower(self.tables[table.site], self.edited[i], dtype)
            for i, table in enumerate(bundle.sites)
        }
        self.default_slot = -1
        if bundle.default is not None:
            self.write_program(0, bundle.default)
            self.default_slot = 0

    def _lower(self, site: SiteTensors, edited: torch.Tensor, dtype: torch.dtype) -> SiteUpdate:
        """Give a site the best form of the update that runs on this device."""
        form = FORMS[runnable(self.device)[0]]
        return form(site, self.slot, self.mask, edited, dtype)

    def write_program(self, slot: int, program: str) -> None:
        """Fill a slot with what a program does at every site."""
        for table in self.bundle.sites:
            write_slot(self.tables[table.site], slot, table.programs.get(program, ()))

    def update(self, site: str, hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        """Apply one site's edits to the tokens of this step; called from the compiled graph."""
        self.reached.add(site)
        if hidden.ndim > 2:
            hidden = hidden.view(-1, hidden.shape[-1])
            residual = None if residual is None else residual.view(-1, residual.shape[-1])
        self._updates[site](hidden, residual)

    def begin(self, step: Step) -> None:
        """Write the slots and selector bits of a step's tokens; every other token has no edit."""
        counts = np.diff(step.starts)
        tokens = int(step.starts[-1])
        self.clear()
        if tokens == 0 or not (step.slot >= 0).any():
            return
        slot = torch.from_numpy(np.repeat(step.slot, counts))
        self.slot[:tokens].copy_(slot, non_blocking=True)
        self._filled = tokens
        self.mask[:tokens] = self._bits(step, counts, tokens)

    def _bits(self, step: Step, counts: npt.NDArray[np.int32], tokens: int) -> torch.Tensor | int:
        """Evaluate the selectors on the device, from the positions and ids that are really fed."""
        selectors = self.bundle.selectors
        always = signed(sum(1 << i for i, s in enumerate(selectors) if isinstance(s, Everything)))
        varying = [(i, s) for i, s in enumerate(selectors) if not isinstance(s, Everything)]
        if not varying:
            return always
        lengths = torch.from_numpy(np.repeat(step.prompt_length, counts).astype(np.int64))
        fed = Tokens(
            position=step.position[:tokens].long(),
            prompt_length=lengths.to(self.device, non_blocking=True),
            token_id=step.token_id[:tokens].long(),
        )
        bits = torch.full((tokens,), always, dtype=torch.int64, device=self.device)
        for index, selector in varying:
            bits |= select(fed, selector).long() * signed(1 << index)
        return bits

    def clear(self) -> None:
        """Leave every token without an edit: for warm-up, capture and the end of a step."""
        if self._filled:
            self.slot[: self._filled].fill_(-1)
            self._filled = 0

    def verify(self, layers: range) -> None:
        """Raise IntervError E521 unless a forward pass reached every site of these layers."""
        owned = [t.site for t in self.bundle.sites if t.site.layer in layers]
        lost = [site for site in owned if str(site) not in self.reached]
        if lost:
            raise unreached(self.bundle, lost)


def unreached(bundle: Bundle, lost: Sequence[Site], found: FoundSites | None = None) -> IntervError:
    """Return the error for sites that the model's graph, where one was seen, does not have."""
    names = ", ".join(str(site) for site in lost[:4]) + (" …" if len(lost) > 4 else "")
    where = bundle.where.get(lost[0], ())
    more = f" and {len(where) - 2} more" if len(where) > 2 else ""
    notes = [f"{lost[0]} is declared at {', '.join(where[:2])}{more}"] if where else []
    helps = []
    if found is None:
        notes.append("no compiled graph of this model holds these blocks")
    else:
        notes += sorted({found.missing[site] for site in lost})
        block = lost[0].layer
        here = [name for name in SITES if Site(name, block) in found.points]
        helps.append(f"sites of block {block}: {', '.join(here) or 'none'}")
    return IntervError("E521", f"this model has no site {names}", notes=notes, helps=helps)
