"""What an engine is armed with: the lines of the start log, and the memory that it takes.

    interv: armed by calm.interv: 2 programs (calm, probe), default calm, inline programs refused
    interv: 3 sites (post_block[10..12]), 1 sink (rows: memory), no KV policy
    interv: 256 slots of 16 columns, 64 reports at once; 1.2 MiB on cpu: banks 0.1, slots 0.9, …

Dims: `N` sites, `S` slots, `K` columns, `T` the most tokens of a step, `H` hidden size, `R` seats.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import torch

from interv.codegen.bundle import Bundle
from interv.codegen.slot import WORDS
from interv.document.sites import SITES, Site
from interv.document.wording import counted, layer_text
from interv.runtime import compat
from interv.runtime.captures.staging import groups_of
from interv.runtime.config import InterventionConfig

_FLOAT32, _INT32, _INT64 = 4, 4, 8
# Names of programs in a line of the log; a document may have hundreds.
_MOST_NAMES = 16


@dataclass(frozen=True, slots=True)
class DeviceBytes:
    """The memory that edits and captures take on the device of one worker, in bytes."""

    banks: int  # directions, their products with each other, and linear maps
    slots: int
    step: int  # what each token of a step is edited by
    counts: int
    stages: int  # rows on their way out of captures

    @property
    def total(self) -> int:
        """Return the sum."""
        return sum(asdict(self).values())


def device_bytes(
    carried: InterventionConfig, max_tokens: int, itemsize: int, layers: range
) -> DeviceBytes:
    """Return what one worker allocates that runs `layers`, for steps of `max_tokens` tokens.

    `itemsize` is that of the model's dtype, in bytes.
    """
    bundle, slots, tokens = carried.bundle, carried.slots, max_tokens
    sites, row = len(bundle.sites), max(1, bundle.width) * WORDS * _INT64 + _INT32
    groups = groups_of(bundle, layers)
    points = sum(len(group.points) for group in groups)
    return DeviceBytes(
        banks=_banks(bundle),
        slots=slots * sites * row,
        step=tokens * (3 * _INT32 + _INT64 + bundle.gates * _FLOAT32),
        counts=(1 + carried.seats) * sites * len(bundle.counted) * _INT64,
        stages=tokens * (points * bundle.hidden_size * itemsize + len(groups) * _INT32),
    )


def _banks(bundle: Bundle) -> int:
    rows = [len(table.bank) for table in bundle.sites]
    own = sum(n * (bundle.hidden_size + n) for n in rows)
    # A map that several sites have is kept once.
    maps = {one.digest: one for table in bundle.sites for one in table.maps}
    return _FLOAT32 * (own + sum(one.weight.size + one.bias.size for one in maps.values()))


def armed_lines(
    carried: InterventionConfig, device: str, taken: DeviceBytes | None
) -> tuple[str, ...]:
    """Return what the log says at the start; `taken` is None where nothing is spliced."""
    bundle = carried.bundle
    programs = counted(len(bundle.programs), "program")
    names = f" ({_few(bundle.programs)})" if bundle.programs else ""
    inline = "taken" if bundle.inline else "refused"
    return (
        f"interv: armed by {', '.join(carried.documents) or 'no document'}: {programs}{names},"
        f" default {bundle.default or 'none'}, inline programs {inline}",
        f"interv: {_sites(bundle.spliced)}, {_sinks(bundle)}, {_policy(bundle)}",
        *([] if taken is None else [_memory(carried, device, taken)]),
    )


def _memory(carried: InterventionConfig, device: str, taken: DeviceBytes) -> str:
    parts = ", ".join(f"{name} {_mib(size)}" for name, size in asdict(taken).items())
    return (
        f"interv: {counted(carried.slots, 'slot')} of {counted(carried.bundle.width, 'column')},"
        f" {counted(carried.seats, 'report')} at once;"
        f" {_mib(taken.total)} MiB on {device}: {parts}"
    )


def _mib(size: int) -> str:
    """Print bytes in MiB, rounded up, so that what is there is never 0."""
    return f"{math.ceil(size * 10 / 2**20) / 10:.1f}"


def _few(names: tuple[str, ...]) -> str:
    more = len(names) - _MOST_NAMES
    shown = ", ".join(names[:_MOST_NAMES])
    return f"{shown} and {more} more" if more > 0 else shown


def site_texts(sites: Iterable[Site]) -> tuple[str, ...]:
    """Print sites by kind, as the language writes them: `post_block[10..20]`."""
    found = {name: [one.layer for one in sites if one.name == name] for name in SITES}
    return tuple(f"{name}[{layer_text(layers)}]" for name, layers in found.items() if layers)


def _sites(sites: tuple[Site, ...]) -> str:
    if not sites:
        return "no site"
    return f"{counted(len(sites), 'site')} ({', '.join(site_texts(sites))})"


def _sinks(bundle: Bundle) -> str:
    if not bundle.sinks:
        return "no sink"
    named = (f"{use.decl.name}: {use.decl.kind}" for use in bundle.sinks)
    return f"{counted(len(bundle.sinks), 'sink')} ({', '.join(named)})"


def _policy(bundle: Bundle) -> str:
    kv = bundle.kv
    if kv is None:
        return "no KV policy"
    asked = "for all requests" if kv.default else "for requests that ask for it"
    return f"KV policy {kv.policy} (budget {kv.budget}, buffer {kv.buffer}, {asked})"


def log_armed(
    carried: InterventionConfig, config: compat.VllmConfig, device: torch.device, max_tokens: int
) -> None:
    """Say in the log what is armed: once an engine, by its first worker."""
    if not compat.is_first_worker(config):
        return
    bundle, taken = carried.bundle, None
    if bundle.spliced:
        layers = compat.owned_layers(config, bundle.num_layers)
        itemsize = config.model_config.dtype.itemsize
        taken = device_bytes(carried, max_tokens, itemsize, layers)
    for line in armed_lines(carried, device.type, taken):
        compat.log.info("%s", line)
    if bundle.spliced and compat.fuses_all_reduce(config):
        compat.log.warning("%s", unfused_line(bundle.spliced))


def unfused_line(sites: tuple[Site, ...]) -> str:
    """Return what is said where the edit stands between a sum over ranks and the norm behind it."""
    lost = counted(len(sites), "site")
    return (
        f"interv: at {lost} vLLM does not fuse the all-reduce with the norm behind it, since the"
        " edit needs what lies between: fewer sites lose less"
    )
