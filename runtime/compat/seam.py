"""A seam: something that interv has to be able to do in vLLM, and the names that it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Process: TypeAlias = Literal["any", "frontend", "scheduler", "worker"]
Need: TypeAlias = Literal["interv", "kv", "http"]


@dataclass(frozen=True, slots=True)
class Name:
    """One name of vLLM: `package.module:Class.member`.

    An `attribute` is assigned in a method or is a field: the class itself does not show it.
    """

    path: str
    attribute: bool = False

    @property
    def module(self) -> str:
        """Return the module that it lies in."""
        return self.path.partition(":")[0]

    @property
    def member(self) -> str:
        """Return its name within the module."""
        return self.path.partition(":")[2]


@dataclass(frozen=True, slots=True)
class Seam:
    """What interv has to be able to do, and the ways in which versions of vLLM let it.

    A way is the names that it takes; the newest stands first. `needed_by` says what is refused
    where no way is there: everything, KV policies, or what a server does over HTTP.
    """

    title: str
    process: Process
    needed_by: Need
    candidates: tuple[tuple[Name, ...], ...]


def names(module: str, *members: str) -> tuple[Name, ...]:
    """Return names of one module below `vllm.`; a member that ends in `=` is an attribute."""
    return tuple(
        Name(f"vllm.{module}:{one.removesuffix('=')}", one.endswith("=")) for one in members
    )


def seam(title: str, process: Process, *ways: tuple[Name, ...], needed_by: Need = "interv") -> Seam:
    """Return a seam with the ways that are given, newest first."""
    return Seam(title, process, needed_by, ways)
