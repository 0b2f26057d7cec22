"""KV policies beside the model: attention, the cache, compaction."""
