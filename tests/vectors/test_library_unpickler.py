"""Why pickles are not read by Python's own unpickler, however little its `find_class` gives."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from interv.vectors.pickles import loads
from interv.vectors.raw import BadFile

# Names become classes that do nothing; no more of an unpickler can be replaced.
INERT = """
import io, pickle, resource, sys

class Inert:
    def __init__(self, *arguments): ...
    def __setstate__(self, state): ...

class Reader(pickle.Unpickler):
    def find_class(self, module, name): return type(name, (Inert,), {})
    def persistent_load(self, said): return said

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
print(Reader(io.BytesIO(bytes.fromhex(sys.stdin.read()))).load())
"""
FAR = b"Nr\x00\x00\x00\x20."  # None, kept under the number 2**29
DEEP = b"})" + b"\x85" * 1_000_000 + b"Ns."  # a dict whose key is a million tuples deep


def by_the_library(data: bytes) -> subprocess.CompletedProcess[str]:
    """Read a pickle with inert names in a process of its own, which may have 2 GiB."""
    command = [sys.executable, "-c", INERT]
    return subprocess.run(command, input=data.hex(), capture_output=True, text=True)


def test_the_library_reads_what_is_harmless() -> None:
    assert by_the_library(b"cos\nsystem\n(Vls\ntR0K\x07.").stdout == "7\n"


def test_seven_bytes_take_all_memory_of_the_library() -> None:
    found = by_the_library(FAR)
    assert found.stderr.splitlines()[-1] == "MemoryError"
    assert loads(FAR) is None


def test_a_nested_key_ends_the_process_of_the_library() -> None:
    assert by_the_library(DEEP).returncode == -signal.SIGSEGV
    with pytest.raises(BadFile) as caught:
        loads(DEEP)
    assert str(caught.value) == "its pickle holds a tuple as a key"
