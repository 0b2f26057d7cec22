"""KV policies in the engine core: chunks, blocks, what a request may hold."""
