"""What sinks do beside an engine takes one core, and leaves the engine's threads alone."""

from __future__ import annotations

import os
import subprocess
import sys

# A process of its own: tests that run side by side have one thread each.
CODE = """
import threading

import torch

from interv.sinks.threads import use_one_core

found = []


def run(alone):
    if alone:
        use_one_core()
    torch.ones(1000, 1000).sum()
    found.append(torch.get_num_threads())


torch.ones(1000, 1000).sum()
for alone in (False, True, False):
    thread = threading.Thread(target=run, args=(alone,))
    thread.start()
    thread.join()
print(*found, torch.get_num_threads())
"""


def test_a_thread_on_one_core_leaves_the_others_as_they_are() -> None:
    two = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=two)
    assert (done.stdout.split(), done.stderr) == (["2", "1", "2", "2"], "")
