"""Names under which facts of ours travel on vLLM's objects from one process to another."""

from __future__ import annotations

# What a runner's output says: the requests whose stream is not finite.
NOT_FINITE = "interv_not_finite"
