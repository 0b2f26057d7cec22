"""What a client sends to choose its program, and what it gets beside its answer."""
