"""The engine core: who waits for a slot, the keys of blocks, how far a cached prefix reaches."""
