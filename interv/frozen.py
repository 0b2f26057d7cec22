"""A mapping that cannot be changed and, unlike `MappingProxyType`, travels between processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class FrozenMap(Mapping[K, V]):
    """A copy of a mapping, in its order, without a way to write into it.

    >>> FrozenMap({3: "a"})[3]
    'a'
    """

    __slots__ = ("_held",)

    def __init__(self, held: Mapping[K, V]) -> None:
        self._held = dict(held)

    def __getitem__(self, key: K) -> V:
        return self._held[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def __repr__(self) -> str:
        return f"FrozenMap({self._held!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenMap, (dict(self._held),)
