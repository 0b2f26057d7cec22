"""The plugin inside vLLM: everything that has state, and everything that knows vLLM."""
