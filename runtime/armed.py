"""What an engine is armed with, for people: a few lines of its log, and `GET /v1/interventions`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from interv.codegen.bundle import Bundle
from interv.runtime.config import InterventionConfig
from interv.sites import SITES, Site
from interv.wording import counted, layer_text

# How many names a line of the log has at most.
_MOST = 12


@dataclass(frozen=True, slots=True)
class Armed:
    """The same facts as lines and as data."""

    carried: InterventionConfig

    def lines(self, memory: Mapping[str, int], device: str) -> list[str]:
        """Return what the log says when an engine starts; `memory` is bytes by what they hold."""
        bundle = self.carried.bundle
        inline = "; requests may bring programs of their own" if bundle.inline else ""
        sites = _some(sites_text(bundle.spliced)) or "none"
        found = [
            f"armed with {_some(self.carried.files)}",
            f"programs: {_some(map(self._program, bundle.programs)) or 'none'}{inline}",
            f"sites: {counted(len(bundle.spliced), 'site')} ({sites})",
        ]
        if bundle.sinks:
            sinks = (f"{one.decl.name} ({one.decl.kind})" for one in bundle.sinks)
            found.append(f"sinks: {_some(sinks)}")
        if bundle.kv is not None:
            found.append(f"KV policy: {bundle.kv.policy}, {_default(bundle)}")
        if bundle.spliced:
            total = f"{_mib(sum(memory.values()))} on {device}"
            each = ", ".join(f"{name} {_mib(size)}" for name, size in memory.items() if size)
            found.append(f"{self.carried.slots} slots of {bundle.width}, {total}: {each}")
        return found

    def _program(self, name: str) -> str:
        return f"{name} (default)" if name == self.carried.bundle.default else name

    def data(self, used: int, held: int) -> dict[str, Any]:
        """Return what a client may know, with the slots in use and the requests that wait."""
        from interv import __version__

        bundle = self.carried.bundle
        policy = None
        if bundle.kv is not None:
            policy = {"policy": bundle.kv.policy, "default": _default(bundle)}
        return {
            "interv": __version__,
            "documents": list(self.carried.files),
            "default": bundle.default,
            "programs": [self._about(name) for name in bundle.programs],
            "inline": bundle.inline,
            "sites": sites_text(bundle.spliced),
            "sinks": [{"name": one.decl.name, "kind": one.decl.kind} for one in bundle.sinks],
            "kv": policy,
            "slots": {"size": self.carried.slots, "used": used},
            "held": held,
        }

    def _about(self, name: str) -> dict[str, Any]:
        bundle = self.carried.bundle
        edited = [table.site for table in bundle.sites if table.programs.get(name)]
        taken = [site for one in bundle.captures if one.program == name for site in one.sites]
        return {
            "name": name,
            "edits": sites_text(edited),
            "captures": sites_text(dict.fromkeys(taken)),
            "digest": bundle.contents[name],
        }


def sites_text(sites: Iterable[Site]) -> list[str]:
    """Print sites in the language's notation, the layers of a name together."""
    layers: dict[str, list[int]] = {}
    for site in sites:
        layers.setdefault(site.name, []).append(site.layer)
    return [f"{name}[{layer_text(layers[name])}]" for name in SITES if name in layers]


def _some(words: Iterable[str]) -> str:
    found = list(words)
    more = f" and {len(found) - _MOST} more" if len(found) > _MOST else ""
    return ", ".join(found[:_MOST]) + more


def _default(bundle: Bundle) -> str:
    assert bundle.kv is not None
    return "on by default" if bundle.kv.default else "for requests that ask"


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
