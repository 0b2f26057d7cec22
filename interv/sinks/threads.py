"""Threads beside an engine's."""

from __future__ import annotations

import ctypes


def use_one_core() -> None:
    """Let torch's operations in this thread run on it alone; other threads are as before.

    A second team of OpenMP threads is more than the machine has cores for. The first team, the
    engine's, then no longer spins where its threads wait for each other but sleeps, which makes
    every step slower for as long as the second team exists. `torch.set_num_threads` would not do:
    vLLM replaces it, and it is not of one thread.
    """
    import torch

    torch.get_num_threads()  # a thread's first operation sets what is set here otherwise
    openmp = getattr(ctypes.CDLL(None), "omp_set_num_threads", None)
    if openmp is not None:
        openmp(1)
