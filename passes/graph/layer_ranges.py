"""Sites written as ranges, and the layers they stand for."""

from __future__ import annotations

from dataclasses import dataclass

from interv.document.sites import Site
from interv.document.spec import LayerRange, SiteRef
from interv.document.wording import place_text


@dataclass(frozen=True, slots=True)
class Sites:
    """A site at several layers, as written, of a model with `num_layers` blocks."""

    ref: SiteRef
    num_layers: int  # L

    def expand(self) -> tuple[Site, ...]:
        """Return the sites in the order in which their layers are written.

        Layers outside the model are kept as they are: `resolve_sites` refuses them.
        """
        layers = (n for item in self.ref.layers for n in self.layers(item))
        return tuple(Site(self.ref.name, n) for n in layers)

    def layers(self, item: int | str | LayerRange) -> range:
        """Return the layers of one item of the list; negative ones count from the end.

        Of what lies outside the model the nearest layer is kept, however far a range goes.
        """
        if isinstance(item, LayerRange):
            first, last = self._from_end(item.first), self._from_end(item.last)
            return range(max(first, -1), min(last, self.num_layers) + 1)
        if isinstance(item, int):
            return range(self._from_end(item), self._from_end(item) + 1)
        return range(self.num_layers)

    def _from_end(self, layer: int) -> int:
        return layer + self.num_layers if layer < 0 else layer

    def __str__(self) -> str:
        return place_text(self.ref)
