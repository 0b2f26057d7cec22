"""Which bit of a token's mask stands for which selector.

The documents' selectors have the first bits for good; the selectors of inline programs share
what is left, as slots are shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from interv.document.markers import Following, following
from interv.document.spec import Selector
from interv.passes.placing.plan import MAX_SELECTORS
from interv.runtime.worker.slots import Slots


class Bits:
    """The meaning of every bit in one worker."""

    def __init__(self, fixed: Sequence[Selector]) -> None:
        self._fixed = {selector: i for i, selector in enumerate(fixed)}
        self._meaning = dict(enumerate(fixed))
        self._followed = {i: following(one) for i, one in self._meaning.items() if following(one)}
        self._slots = Slots(MAX_SELECTORS - len(fixed))
        self._bit: dict[Selector, int] = {}

    def place(self, selectors: Iterable[Selector]) -> int:
        """Give the selectors of a step their bits; return the bits whose meaning has changed.

        Raises IntervError E523 for more than there are, which the scheduler prevents.
        """
        wanted = {one.model_dump_json(): one for one in selectors if one not in self._fixed}
        _, new = self._slots.place([*wanted])
        first, changed = len(self._fixed), 0
        for key, index in new:
            bit = first + index
            self._bit = {one: b for one, b in self._bit.items() if b != bit}
            self._bit[wanted[key]] = bit
            self._meaning[bit] = wanted[key]
            self._followed.pop(bit, None)
            if leaves := following(wanted[key]):
                self._followed[bit] = leaves
            changed |= 1 << bit
        return changed

    def bit(self, selector: Selector) -> int:
        """Return the bit of a selector that was placed."""
        return self._fixed[selector] if selector in self._fixed else self._bit[selector]

    def followed(self, used: int) -> dict[int, tuple[Following, ...]]:
        """Return the bits that are set in `used` and follow markers, with what they follow."""
        return {bit: leaves for bit, leaves in self._followed.items() if used >> bit & 1}

    def among(self, used: int) -> Iterator[tuple[int, Selector]]:
        """Yield the bits that are set in `used`, with their selectors."""
        for bit, selector in self._meaning.items():
            if used >> bit & 1:
                yield bit, selector
