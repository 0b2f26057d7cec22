"""The seams: every name of vLLM that interv relies on, as data.

A version of vLLM has a way of a seam if it has all its names. Nothing here imports vLLM: a table of
names, made from the packages of each version, is held against this file.
"""

from __future__ import annotations

from interv.runtime.compat.seam import Name as Name, Seam as Seam
from interv.runtime.compat.seams_frontend import FRONTEND
from interv.runtime.compat.seams_kv import KV
from interv.runtime.compat.seams_scheduler import SCHEDULER
from interv.runtime.compat.seams_worker import WORKER

SEAMS: tuple[Seam, ...] = (*FRONTEND, *SCHEDULER, *WORKER, *KV)
