"""One engine's edits at run time: the tables, the tokens of this step, the sites that were reached.

A worker process owns one `Engine` for its model runner. Each step the runner says which tokens it
feeds, and for which requests; the engine fills the slots that are new and writes `slot[T]` and
`mask[T]`; the spliced graph reads them site by site.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from interv.codegen.bundle import Bundle
from interv.codegen.kernels.linear import LinearMaps, linear_maps
from interv.codegen.kernels.norm import Norm
from interv.codegen.kernels.registry import FORMS, SiteUpdate, SiteUpdateNorm, norm_form, runnable
from interv.codegen.slot import signed
from interv.codegen.tables import StepTensors, site_tensors, slot_tables
from interv.document.sites import SITES, Site
from interv.document.spec import Everything
from interv.errors import IntervError
from interv.passes.captured.find_sites import FoundSites
from interv.passes.graph.column import Mode
from interv.passes.graph.selector_masks import Tokens, generated_index, select
from interv.runtime.captures.staging import Captures
from interv.runtime.choice import Choice
from interv.runtime.counters import USED, Counters
from interv.runtime.slot_contents import Composer
from interv.runtime.worker.device_counts import DeviceCounts
from interv.runtime.worker.seen_tokens import Seen, SeenTokens, ring_size
from interv.runtime.worker.selector_bits import Bits
from interv.runtime.worker.slots import Slots


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What a runner knows of the tokens it is about to feed, in batch order.

    `position` and `token_id` are what really reaches the model, on its device; the rest is per
    request, on the host.
    """

    position: torch.Tensor  # [T] int64, absolute
    token_id: torch.Tensor  # [T] int32 or int64
    starts: npt.NDArray[np.int32]  # [R + 1], tokens of request r: starts[r] .. starts[r + 1]
    prompt_length: npt.NDArray[np.int32]  # [R], of the original prompt
    choices: Sequence[Choice]  # [R]
    ids: Sequence[str] = ()  # [R], the engine's own
    # Of requests that start or resume in this step: the ids before their first token in it.
    anew: Mapping[int, Callable[[], Sequence[int]]] = field(default_factory=dict)


class Engine:
    """The state of a bundle's edits in one worker."""

    def __init__(
        self,
        bundle: Bundle,
        device: torch.device,
        dtype: torch.dtype,
        max_tokens: int,
        slots: int,
        counters: Counters | None = None,
        captures: Captures | None = None,
        layers: range | None = None,
        taken_back: int = 0,
    ) -> None:
        self.captures = captures
        self.adapters: Sequence[Any] = ()  # vLLM's own arithmetic of LoRA, by place
        self.bundle = bundle
        self.device = device
        self.default = Choice.default_of(bundle)
        self.tokens = StepTensors(
            torch.full((max_tokens,), -1, dtype=torch.int32, device=device),
            torch.zeros(max_tokens, dtype=torch.int64, device=device),
            torch.full((max_tokens,), -1, dtype=torch.int32, device=device),
            torch.zeros(max_tokens, bundle.gates, device=device),
            torch.zeros(max_tokens, dtype=torch.int32, device=device),
        )
        self.slots = Slots(slots)
        self.tables = slot_tables(len(bundle.sites), slots, bundle.width, device)
        self.counters = counters or Counters(None, bundle)
        own = [i for i, t in enumerate(bundle.sites) if layers is None or t.site.layer in layers]
        self.counts = DeviceCounts(self.counters, device, own)
        self.reached: set[str] = set()
        self._composer = Composer(bundle)
        self._meaning = Bits(bundle.selectors)
        self.seen = SeenTokens(device, ring_size(taken_back))
        self._bits = np.zeros(slots, dtype=np.int64)  # the selector bits that a slot looks at
        self._fading = np.zeros(slots, dtype=np.bool_)  # whether something of a slot decays
        self._tickets: dict[int, int] = {}  # by seat
        self._seated: set[int] = set()  # the seats of this step
        self._filled = 0
        # The best form of the update that runs on this device.
        best = runnable(device)[0]
        form = FORMS[best]
        self.sites = {
            str(t.site): site_tensors(t, self.tables, i, device) for i, t in enumerate(bundle.sites)
        }
        held: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._maps: dict[str, LinearMaps] = {
            str(t.site): linear_maps(t.maps, self.sites[str(t.site)], self.tokens, held)
            for t in bundle.sites
            if t.maps
        }
        self._updates: dict[str, SiteUpdate] = {
            name: form(site, self.tokens, self.counts.site(i), dtype)
            for i, (name, site) in enumerate(self.sites.items())
        }
        self._norms: dict[str, SiteUpdateNorm] = {
            name: norm_form(best, self._updates[name], site, self.tokens, self.counts.site(i))
            for i, (name, site) in enumerate(self.sites.items())
        }

    def update(self, site: str, hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        """Apply one site's edits to the tokens of this step; called from the compiled graph."""
        self.reached.add(site)
        if hidden.ndim > 2:
            hidden = hidden.view(-1, hidden.shape[-1])
            residual = None if residual is None else residual.view(-1, residual.shape[-1])
        if self.captures is not None:
            self.captures.copy(site, False, hidden, residual)
        if site in self._maps:
            self._maps[site](hidden, residual)
        if site in self._updates:
            self._updates[site](hidden, residual)
        if self.captures is not None:
            self.captures.copy(site, True, hidden, residual)

    def update_norm(
        self,
        site: str,
        hidden: torch.Tensor,
        residual: torch.Tensor,
        norm: Norm,
        normed: torch.Tensor,
        carried: torch.Tensor,
    ) -> None:
        """Apply one site's edits and the add-RMSNorm behind them; called from the compiled graph.

        `normed` and `carried` are written; they may be `hidden` and `residual`.
        """
        self.reached.add(site)
        streams = (one.view(-1, one.shape[-1]) for one in (hidden, residual, normed, carried))
        own, other, *results = streams
        if self.captures is not None:
            self.captures.copy(site, False, own, other)
        if site in self._maps:
            own = own.clone()  # the op writes `normed` and `carried` only
            self._maps[site](own, other)
        self._norms[site](own, other, norm, *results)
        if self.captures is not None:
            self.captures.copy(site, True, results[1], None)

    def begin(self, step: Step) -> None:
        """Write the slots and selector bits of a step's tokens; every other token has no edit.

        Raises IntervError E523 for more configurations than slots.
        """
        self.clear()
        slots = self._place(step.choices)
        tokens = int(step.starts[-1])
        if tokens == 0 or not (slots >= 0).any():
            return
        counts = np.diff(step.starts)
        self._put(self.tokens.slot, np.repeat(slots, counts), tokens)
        self._seat(step.choices, counts, tokens)
        self._filled = tokens
        fed = functools.cache(functools.partial(self._fed, step, counts, tokens))
        if self._fading[slots[slots >= 0]].any():
            self.tokens.index[:tokens].copy_(generated_index(fed()))
        used = int(np.bitwise_or.reduce(self._bits[slots[slots >= 0]]))
        if self.captures is None:
            self.tokens.mask[:tokens] = self._masks(step, slots, fed, used)
            return
        used |= self.captures.selectors(step.choices)
        self.tokens.mask[:tokens] = self._masks(step, slots, fed, used)
        self.captures.begin(step, self.tokens.mask[:tokens])

    def _place(self, choices: Sequence[Choice]) -> npt.NDArray[np.int32]:
        """Give each request its slot `[R]`, and fill those that are new."""
        if any(one.inline for one in choices):
            self._place_bits(choices)
        slots, new = self.slots.place([one.key for one in choices])
        if new:
            wanted = {one.key: one for one in choices}
            for key, slot in new:
                self._fill(slot, wanted[key])
            self.counters.head[USED] = self.slots.used
        return slots

    def _place_bits(self, choices: Sequence[Choice]) -> None:
        """Give the selectors of inline programs their bits; forget slots that had those bits."""
        brought = [one.inline for one in choices if one.inline]
        changed = self._meaning.place(s for one in brought for s in one.selectors)
        if changed:
            stale = (self._bits.view(np.uint64) & np.uint64(changed)) != 0
            self.slots.forget(np.flatnonzero(stale).tolist())
            self._bits[stale] = 0

    def _fill(self, slot: int, choice: Choice) -> None:
        rows = self._composer.rows(choice, self._meaning.bit)
        self.tables.write(slot, rows)
        held = np.arange(rows.columns.shape[1]) < rows.count[:, None]
        looked = rows.columns["bit"] | rows.columns["unless"]
        self._bits[slot] = np.bitwise_or.reduce(looked[held], initial=0)
        self._fading[slot] = ((rows.columns["mode"][held] & Mode.DECAY) != 0).any()

    def _seat(self, choices: Sequence[Choice], counts: npt.NDArray[np.int32], tokens: int) -> None:
        """Say for each token where its request's own rows are counted."""
        seats = np.array([one.seat for one in choices], dtype=np.int32)
        self._seated = {one.seat for one in choices if one.seat >= 0}
        if not self._seated:
            return
        for one in choices:
            if one.seat >= 0 and self._tickets.get(one.seat) != one.ticket:
                self._tickets[one.seat] = one.ticket
                self.counts.take(one.seat)
        self._put(self.tokens.seat, np.repeat(seats, counts), tokens)

    def _put(self, target: torch.Tensor, values: npt.NDArray[np.int32], tokens: int) -> None:
        target[:tokens].copy_(torch.from_numpy(values), non_blocking=True)

    def _masks(
        self, step: Step, slots: npt.NDArray[np.int32], known: Callable[[], Tokens], used: int
    ) -> torch.Tensor | int:
        """Evaluate the selectors on the device, from the positions and ids that are really fed.

        `known` returns those of the step. Only selectors whose bit is in `used` are evaluated:
        no token's slot looks at another.
        """
        selectors = list(self._meaning.among(used))
        always = signed(sum(1 << i for i, s in selectors if isinstance(s, Everything)))
        varying = [(i, s) for i, s in selectors if not isinstance(s, Everything)]
        if not varying:
            return always
        fed = known()
        along = self._along(step, fed, slots, used)
        if along is not None:
            fed = replace(fed, along=along)
        bits = torch.full(fed.position.shape, always, dtype=torch.int64, device=self.device)
        for index, selector in varying:
            bits |= select(fed, selector).long() * signed(1 << index)
        if along is not None:
            along.keep()
        return bits

    def _fed(self, step: Step, counts: npt.NDArray[np.int32], tokens: int) -> Tokens:
        """Return what the device knows of a step's tokens."""
        lengths = torch.from_numpy(np.repeat(step.prompt_length, counts).astype(np.int64))
        return Tokens(
            position=step.position[:tokens].long(),
            prompt_length=lengths.to(self.device, non_blocking=True),
            token_id=step.token_id[:tokens].long(),
        )

    def _along(
        self, step: Step, fed: Tokens, slots: npt.NDArray[np.int32], used: int
    ) -> Seen | None:
        """Return what came before a step's tokens, None where nobody's selector follows it."""
        followed = self._meaning.followed(used)
        if not followed:
            return None
        wanted = []
        for slot, choice in zip(slots.tolist(), step.choices, strict=True):
            looked = int(self._bits[slot]) if slot >= 0 else 0
            if self.captures is not None:
                looked |= self.captures.selectors((choice,))
            own = (leaves for bit, leaves in followed.items() if looked >> bit & 1)
            wanted.append(tuple(leaf for leaves in own for leaf in leaves))
        return self.seen.follow(step, fed, wanted)

    def clear(self) -> None:
        """Leave every token without an edit: for warm-up, capture and the end of a step."""
        if self._filled:
            self.tokens.slot[: self._filled].fill_(-1)
            self.tokens.seat[: self._filled].fill_(-1)
            self._filled = 0
            self._seated = set()
            if self.captures is not None:
                self.captures.clear()

    def collect(self) -> None:
        """Take what the forward pass captured."""
        if self.captures is not None:
            self.captures.collect()

    def publish(self) -> None:
        """Let other processes see the counts of a step with edits, when its result is there."""
        if self._filled:
            self.counts.publish(self._seated)

    def verify(self, layers: range) -> None:
        """Raise IntervError E521 unless a forward pass reached every site of these layers."""
        owned = [site for site in self.bundle.spliced if site.layer in layers]
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
