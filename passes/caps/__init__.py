"""Several bounds at once: what can hold, and the smallest change after which it does."""
