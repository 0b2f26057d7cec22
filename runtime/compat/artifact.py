"""A compiled graph that survives a restart.

vLLM 0.32 saves what torch compiled ahead of time and, on the next start, asks it to finish its
loading; what torch's own compilers give it has no such method, so on a CPU every start compiles
again. This wrapper has it.
"""

from __future__ import annotations

from typing import Any

from torch._dynamo.aot_compile_types import (
    BundledAOTAutogradSerializableCallable,
    SerializableCallable,
)


class CompiledGraph(SerializableCallable):
    """A graph compiled by Inductor, called as it is and saved as torch saves it."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph."""
        return self._compiled(*args, **kwargs)

    @classmethod
    def serialize_compile_artifacts(cls, fn: CompiledGraph) -> bytes:
        """Return the bytes that `deserialize_compile_artifacts` makes the graph from."""
        saved = BundledAOTAutogradSerializableCallable(fn._compiled)
        data: bytes = BundledAOTAutogradSerializableCallable.serialize_compile_artifacts(saved)
        return data

    @classmethod
    def deserialize_compile_artifacts(cls, data: bytes) -> CompiledGraph:
        """Return the saved graph, ready to be called."""
        return cls(BundledAOTAutogradSerializableCallable.deserialize_compile_artifacts(data))

    def finalize_loading(self, config: Any) -> None:
        """Do nothing: such a graph is complete when it is read."""
