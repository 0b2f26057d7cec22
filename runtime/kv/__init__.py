"""KV policies on vLLM: the scheduler's blocks, the worker's caches, and what both agree on."""
