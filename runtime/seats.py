"""How many requests of an engine can have reports of their own at once.

A *seat* is where the rows of one request are counted, by site and program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interv.codegen.bundle import Bundle

# Seats of an engine that runs no more requests at once, and what more of them may take.
SEATS, MOST_SEAT_BYTES = 64, 64 << 20


def seats_for(bundle: Bundle, requests: int) -> int:
    """Return R: a seat for each of the `requests` that may run at once, within MOST_SEAT_BYTES."""
    each = 8 * max(1, len(bundle.sites) * len(bundle.counted))
    return max(SEATS, min(requests, MOST_SEAT_BYTES // each))
